"""Pipeline: a prompt in, images out."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import _core, prefill_attention
from .batching import EngineLike, Run, check_memory, run_batches, tokenize
from .checkpoint import Geometry, resolve_model, resolve_vae, weight_dtype
from .config import MAX_THREADS, GenerationConfig, byte_size, choice, show, whole
from .errors import CheckpointError, Error, InvalidRequest
from .images import to_pil, to_unit
from .options import CallOptions, call_signature, check_options
from .patches import unpatchify
from .progress import check_progress, reporting
from .request import OUTPUT_TYPES, Request, build_request
from .result import GenerationResult
from .tokenizer import PromptTokenizer
from .vision import Vision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from typing_extensions import Unpack

BACKENDS = ("native", "reference")
DTYPES = ("auto", "float32", "bfloat16")


class Pipeline:
    """A loaded model that draws. Safe to share between threads: calls run one after another.

    Attributes: folder, config (ModelConfig), geometry, defaults (GenerationConfig), checkpoint, engine, tokenizer,
    vision (the VAE, loaded on first use), load_s.
    """

    def __init__(self, folder: str, checkpoint: Any, engine: EngineLike, *, device: str, load_s: float = 0.0) -> None:
        """Put together from loaded parts; `from_pretrained` is the usual way. Raises `CheckpointError`."""
        self.folder, self.checkpoint, self.engine, self.device, self.load_s = folder, checkpoint, engine, device, load_s
        self.config = checkpoint.config
        vae_folder = resolve_vae(folder, self.config.vae_name_or_path)
        self.geometry = Geometry.of(self.config, vae_folder)
        self.defaults = GenerationConfig.from_folder(folder)
        self._check_defaults()
        self.tokenizer = PromptTokenizer(folder, self.config)
        self.vision = Vision(vae_folder, device=device)
        # Reentrant, so that a callback may decode a preview; _running keeps it from starting a generation within one.
        self._lock = threading.RLock()
        self._running = False

    def _check_defaults(self) -> None:
        try:
            build_request("", {}, self.geometry, self.defaults)
        except InvalidRequest as error:
            path = os.path.join(self.folder, "generation_config.json")
            raise CheckpointError(f"{path} states defaults that this model cannot run: {error}") from None

    @classmethod
    def from_pretrained(
        cls,
        model: str | os.PathLike[str] = "demo",
        *,
        device: str = "auto",
        dtype: str = "auto",
        backend: str = "native",
        threads: int | None = None,
        revision: str | None = None,
    ) -> Pipeline:
        """Load a model: "demo", a checkpoint folder, or a Hugging Face repo id (pinned by `revision`).

        device "cpu", "cuda", "cuda:i" or "auto"; dtype "float32", "bfloat16" or "auto" (as stored); backend "native"
        or "reference"; threads None for the engine's own choice. On a GPU a process's first pipeline times what may
        compute prompts' attention (see prefill_attention). Raises `CheckpointError`, `InvalidRequest`, or `Error` when
        the device is not there.
        """
        clock = time.perf_counter()
        choice("backend", backend, BACKENDS)
        choice("dtype", dtype, DTYPES)
        count = None if threads is None else whole("threads", threads, 1, MAX_THREADS)
        where = resolve_device(device)
        folder = resolve_model(model, revision)
        checkpoint = _core.Checkpoint(folder)
        stored = weight_dtype(checkpoint)
        wanted = stored if dtype == "auto" else dtype
        # The engine widens bfloat16 as it reads it, and copies only what is to be rounded.
        copies = backend == "reference" or (stored == "float32" and wanted == "bfloat16")
        _check_load_memory(checkpoint.nbytes, stored, wanted, copies=copies, mapped=where == "cpu")
        engine: EngineLike
        if backend == "reference":
            from .reference import ReferenceEngine

            weights = cast("Mapping[str, Any]", checkpoint)
            oracle = ReferenceEngine(checkpoint.config, weights, dtype=wanted, device=where, threads=count)
            engine = cast(EngineLike, oracle)
        else:
            native = _core.Engine(checkpoint.config, checkpoint, device=where, dtype=wanted, threads=count)
            prefill_attention.install(native)
            engine = cast(EngineLike, native)
        pipeline = cls(folder, checkpoint, engine, device=where)
        pipeline.load_s = time.perf_counter() - clock
        return pipeline

    def check(self, prompt: str | Sequence[str], **options: Unpack[CallOptions]) -> Request:
        """Check a call without running it. Raises `InvalidRequest` as the call would."""
        check_options(options)
        check_progress(options.get("progress"))
        return build_request(prompt, options, self.geometry, self.defaults)

    def __call__(self, prompt: str | Sequence[str], **options: Unpack[CallOptions]) -> GenerationResult:
        """Draw images for a prompt, or for each prompt of a list.

        prompt                  text; with `image`, exactly one "<image>" marks where the picture stands
        negative_prompt, positive_prompt    what guidance leads away from; what is appended to every prompt
        image                   a path, PIL image or array to edit; resized to the request's size with a note
        height, width           multiples of geometry.factor; None: native size, or the image's ratio at that area
        num_images_per_prompt   images of each prompt, each with a seed of its own
        num_inference_steps, guidance_scale, image_guidance_scale, guidance_schedule ("constant", "linear"),
        guidance_renorm, timestep_shift, solver, noise_level, last_step_size, normalize_tokens     see docs/model.md
        seed                    a number (image i uses seed + i), one number an image, or None to draw one
        noise                   float32 [tokens, 1 + steps, images, token_dim] in place of the seed's noise
        output_type             "pil", "np" (float32 [N,H,W,3] in 0..1) or "latent" (no VAE)
        progress                True for a bar on stderr, or a function of (done, total) image tokens
        callback                function of (step, total, tokens of the running batch [images, made, token_dim]); where
                                it returns False the run stops, and the result has complete=False and what was made

        What is not given takes the value of the checkpoint's generation_config.json, else the signature's default.
        Raises `InvalidRequest` before anything is allocated, `Error` when the model yields a value that is not finite.
        """
        begin = time.perf_counter()
        request = self.check(prompt, **options)
        with self._lock:
            if self._running:
                raise Error("the pipeline was called from its own callback: let the running generation end first")
            self._running = True
            try:
                return self._generate(request, options, begin)
            finally:
                self._running = False

    def _generate(self, request: Request, options: CallOptions, begin: float) -> GenerationResult:
        clock = time.perf_counter()
        batch = tokenize(self.tokenizer, request, self.geometry.max_positions)
        seconds = {"load_s": self.load_s, "tokenize_s": time.perf_counter() - clock}
        check_memory(
            self.engine, request, batch, self.config.hidden_size, self.vision.peak_bytes(request.height, request.width)
        )
        clock = time.perf_counter()
        if request.image is not None or request.output_type != "latent":
            self.vision.load()
        seconds["vae_load_s"] = time.perf_counter() - clock
        clock = time.perf_counter()
        picture = request.image
        pictures = [] if picture is None else self.vision.image_tokens(picture, request, self.geometry)
        seconds["vae_s"] = time.perf_counter() - clock
        callback = options.get("callback")
        with reporting(options.get("progress")) as report:

            def on_token(step: int, total: int, tokens: NDArray[np.float32]) -> Any:
                report(step, total)
                return callback(step, total, tokens) if callback is not None else True

            run = run_batches(
                self.engine,
                request,
                batch,
                placeholder=self.config.image_placeholder_id,
                token_dim=self.geometry.token_dim,
                image_tokens=pictures,
                callback=on_token,
            )
        finished = sum(done == request.num_tokens for done in run.tokens_done)
        clock = time.perf_counter()
        images = self._images(run.tokens[:finished], request.height, request.width, request.output_type)
        seconds["vae_s"] += time.perf_counter() - clock
        return self._result(request, run, images, seconds, begin)

    def _result(
        self, request: Request, run: Run, images: Any, seconds: dict[str, float], begin: float
    ) -> GenerationResult:
        timings = {**seconds, **run.seconds}
        timings["ms_per_token"] = 1e3 * run.seconds["decode_s"] / max(run.steps, 1)
        timings["total_s"] = time.perf_counter() - begin
        origin = {"model": os.path.basename(self.folder), "dtype": self.engine.dtype, "version": _core.__version__}
        return GenerationResult(
            images=images,
            tokens=run.trimmed(),
            seeds=request.seeds if request.noise is None else (),
            timings=timings,
            tokens_done=tuple(run.tokens_done),
            notes=list(request.notes),
            metadata=[{**request.to_json(i), **origin} for i in range(request.num_images)],
            complete=not run.stopped or min(run.tokens_done) == request.num_tokens,
        )

    def decode_tokens(self, tokens: Any, height: int, width: int, output_type: str = "pil") -> Any:
        """Images of tokens float32 [N, made, token_dim], as `output_type` says; tokens not made yet count as zeros.

        May be called from a callback, to show an image while it grows. Raises `InvalidRequest` for a wrong shape.
        """
        choice("output_type", output_type, OUTPUT_TYPES)
        factor, d = self.geometry.factor, self.geometry.token_dim
        for name, side in (("height", height), ("width", width)):
            if whole(name, side, 1, 1 << 16) % factor:
                raise InvalidRequest(f"{name} {side} is not a multiple of {factor}")
        count = (height // factor) * (width // factor)
        if count > self.geometry.max_positions:
            raise InvalidRequest(
                f"{height}x{width} makes {count} image tokens: this model has {self.geometry.max_positions}"
            )
        try:
            made = np.asarray(tokens, dtype=np.float32)
        except (TypeError, ValueError):
            raise InvalidRequest(f"tokens must be an array of numbers, not {show(tokens)}") from None
        if made.ndim != 3 or made.shape[1] > count or made.shape[2] != d:
            raise InvalidRequest(
                f"tokens have shape {made.shape}: expected (images, at most {count}, {d}) for {height}x{width}"
            )
        full = np.zeros((made.shape[0], count, d), np.float32)
        full[:, : made.shape[1]] = made
        with self._lock:
            return self._images(full, height, width, output_type)

    def _images(self, tokens: NDArray[np.float32], height: int, width: int, output_type: str) -> Any:
        """Tokens [N, n, d] -> images; one at a time, so that an image never depends on the others."""
        geometry = self.geometry
        h, w = height // geometry.factor, width // geometry.factor
        latents = unpatchify(tokens, h, w, geometry.patch)
        if output_type == "latent":
            return np.ascontiguousarray(latents)
        finish: Callable[[NDArray[np.float32]], Any] = to_unit if output_type == "np" else to_pil
        images = [finish(self.vision.decode(latent)) for latent in latents]
        if output_type == "np":
            return np.stack(images) if images else np.zeros((0, height, width, 3), np.float32)
        return images


# Introspection shows the API's real defaults; the options themselves must tell "not given" from "given".
setattr(Pipeline.__call__, "__signature__", call_signature())  # noqa: B010


def resolve_device(device: str) -> str:
    """The device meant: "auto" is "cuda" in a build that has it, else "cpu". Raises `InvalidRequest` for no device."""
    if not isinstance(device, str):
        raise InvalidRequest(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:i', not {show(device)}")
    if device == "auto":
        return "cuda" if _core.build_info().get("cuda") == "on" else "cpu"
    kind, _, index = device.partition(":")
    if device in ("cpu", "cuda") or (kind == "cuda" and index.isascii() and index.isdigit() and len(index) < 4):
        return device
    raise InvalidRequest(f"unknown device {show(device)}: choose 'auto', 'cpu', 'cuda' or 'cuda:i'")


def _check_load_memory(nbytes: int, stored: str, wanted: str, *, copies: bool, mapped: bool) -> None:
    """Weights must fit the memory there is, mapped or copied. Raises `Error`, and `InvalidRequest` for copies.

    Mapped ones need none to load, but every image token reads all of them: what the page cache cannot hold comes from
    the disk again each time.
    """
    size = {"bfloat16": 2, "float32": 4}
    needed = nbytes * size[wanted] // size.get(stored, 4) if copies else 0
    available = int(_core.available_memory())
    if mapped and nbytes > available > 0:
        raise Error(
            f"the weights take {byte_size(nbytes)} and {byte_size(available)} of memory are available: every image "
            "token would read them from the disk again; free memory, or use a machine with more or a smaller model"
        )
    if needed > available > 0:
        raise InvalidRequest(
            f"loading the weights as {wanted} needs {byte_size(needed)} and {byte_size(available)} are available: "
            f"use backend='native' with dtype={stored!r}, which reads them from the file without a copy"
        )
