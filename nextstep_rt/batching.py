"""A request's rows cut into engine batches, embedded, run, and checked against the memory there is."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from . import _core
from .config import byte_size
from .errors import Error, InvalidRequest
from .progress import says_stop
from .request import Request
from .tokenizer import PromptTokenizer, TokenBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

Callback = Callable[[int, int, "NDArray[np.float32]"], Any]


class EngineLike(Protocol):
    """What the pipeline asks of an engine; the native one and the reference both have it."""

    @property
    def backend(self) -> str:
        """Where it runs, e.g. "cpu/avx512"."""

    @property
    def dtype(self) -> str:
        """The weights' dtype."""

    @property
    def threads(self) -> int:
        """Worker threads."""

    def embed_tokens(self, ids: Any) -> Any:
        """int64 [n] -> float32 [n, hidden_size]."""

    def project_tokens(self, tokens: Any) -> Any:
        """float32 [n, token_dim] -> float32 [n, hidden_size]."""

    def plan(self, rows: int, positions: int, steps: int) -> dict[str, int]:
        """Bytes a run of that size takes."""

    def memory(self) -> dict[str, int]:
        """Bytes held now."""

    def prefill(self, embeds: Any, mask: Any = None, *, max_new_tokens: int) -> None:
        """Start the rows."""

    def decode(
        self, params: Any, count: int | None = None, *, noise: Any = None, seeds: Any = None, callback: Any = None
    ) -> Any:
        """Make image tokens, float32 [images, made, token_dim]."""

    def reset(self) -> None:
        """Forget the rows."""


def images_per_batch(branches: int) -> int:
    """Images the engine makes at once: all branches of an image run together."""
    return max(1, int(_core.MAX_ROWS) // branches)


def tokenize(tokenizer: PromptTokenizer, request: Request, max_positions: int) -> TokenBatch:
    """All rows of a request, branch-major. Raises `InvalidRequest` when a row and its image exceed the positions."""
    h, w = request.grid
    batch = tokenizer.build(
        request.full_prompts,
        request.settings.negative_prompt,
        h=h,
        w=w,
        branches=request.branches,
        images_per_prompt=request.images_per_prompt,
        with_image=request.image is not None,
    )
    total = batch.width + request.num_tokens
    if total > max_positions:
        raise InvalidRequest(
            f"the request takes {total} positions ({batch.width} of the prompt, {request.num_tokens} of the image), "
            f"but this model has {max_positions}: shorten the prompt or ask for a smaller image"
        )
    return batch


def check_memory(engine: EngineLike, request: Request, batch: TokenBatch, hidden_size: int, vae_bytes: int) -> None:
    """Compare what the request needs with what there is, before anything is allocated.

    Raises `InvalidRequest` saying both. Only host memory is known here; a device's engine checks its own.
    """
    if engine.backend.startswith("cuda"):
        return
    rows = min(request.num_images, images_per_batch(request.branches)) * request.branches
    plan = engine.plan(rows, batch.width + request.num_tokens, request.settings.num_inference_steps)
    held = engine.memory()
    needs = {
        "KV cache": max(0, plan["kv_cache"] - held.get("kv_cache", 0)),
        "scratch": max(0, plan["scratch"] - held.get("scratch", 0)),
        "prompt": rows * batch.width * hidden_size * 4,
        "images": request.num_images * request.height * request.width * (12 if request.output_type == "np" else 3),
        "VAE": 0 if request.output_type == "latent" and request.image is None else vae_bytes,
    }
    total, available = sum(needs.values()), int(_core.available_memory())
    if total > available > 0:  # 0: this system does not say
        parts = ", ".join(f"{name} {byte_size(size)}" for name, size in needs.items() if size)
        raise InvalidRequest(
            f"the request needs {byte_size(total)} ({parts}), and {byte_size(available)} are available: "
            "ask for fewer or smaller images"
        )


@dataclass
class Run:
    """What a request's batches have made so far. tokens_done counts each image's finished tokens."""

    tokens: NDArray[np.float32]
    tokens_done: list[int]
    stopped: bool = False
    seconds: dict[str, float] = field(default_factory=lambda: {"prefill_s": 0.0, "decode_s": 0.0})
    steps: int = 0

    def trimmed(self) -> NDArray[np.float32]:
        """float32 [images, most tokens any image has, token_dim]; zeros where an image has fewer."""
        return self.tokens[:, : max(self.tokens_done)]


def embed_rows(
    engine: EngineLike, batch: TokenBatch, placeholder: int, image_tokens: Mapping[int, NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Embeddings float32 [B,T,H] and mask bool [B,T]; image_tokens[row] take the places of a row's placeholders."""
    ids, mask = batch.input_ids, batch.attention_mask.astype(bool)
    embeds = np.asarray(engine.embed_tokens(ids.reshape(-1))).reshape(*ids.shape, -1)
    projected: dict[int, Any] = {}
    for row, tokens in image_tokens.items():
        places = ids[row] == placeholder
        if places.any():
            # Rows mostly share one picture: project it once.
            if id(tokens) not in projected:
                projected[id(tokens)] = engine.project_tokens(tokens)
            embeds[row, places] = projected[id(tokens)]
    return embeds, mask


class _Listener:
    """Passes the engine's tokens to the request's callback: counts over all batches, and its time is no engine time."""

    def __init__(self, callback: Callback, total: int) -> None:
        self.callback, self.total, self.before = callback, total, 0
        self.stopped = False
        self.seconds = 0.0

    def __call__(self, position: int, _: int, tokens: Any) -> bool:
        clock = time.perf_counter()
        view = np.asarray(tokens).view()
        view.flags.writeable = False  # the memory is the result's
        answer = self.callback(self.before + position, self.total, view)
        self.seconds += time.perf_counter() - clock
        self.stopped = says_stop(answer)
        return not self.stopped


def _decode(engine: EngineLike, params: Any, noise: Any, seeds: Any, listener: _Listener, first: int) -> Any:
    """decode(), whose errors count images from the batch's first: say which of the request that is."""
    try:
        return engine.decode(params, noise=noise, seeds=seeds, callback=listener)
    except Error as error:
        if first == 0 or type(error) is not Error:
            raise
        raise Error(f"{error} (images counted from image {first} of the request)") from error


def run_batches(
    engine: EngineLike,
    request: Request,
    batch: TokenBatch,
    *,
    placeholder: int,
    token_dim: int,
    image_tokens: list[NDArray[np.float32]],
    callback: Callback,
) -> Run:
    """Run every engine batch of a request. image_tokens has an entry per image, or is empty.

    callback(step, total, tokens of the running batch [images, made, token_dim]) counts over all batches and returns
    False to stop.
    """
    images, count = request.num_images, request.num_tokens
    size = images_per_batch(request.branches)
    params = _core.SamplingParams(**request.sampling())
    run = Run(np.zeros((images, count, token_dim), np.float32), [0] * images)
    listener = _Listener(callback, count * -(-images // size))
    for start in range(0, images, size):
        stop = min(start + size, images)
        rows = [branch * images + i for branch in range(request.branches) for i in range(start, stop)]
        pictures = {r: image_tokens[row % images] for r, row in enumerate(rows)} if image_tokens else {}
        clock = time.perf_counter()
        embeds, mask = embed_rows(engine, batch.take(rows), placeholder, pictures)
        engine.prefill(embeds, mask, max_new_tokens=count)
        run.seconds["prefill_s"] += time.perf_counter() - clock
        clock = time.perf_counter()
        noise = None if request.noise is None else np.ascontiguousarray(request.noise[:, :, start:stop])
        seeds = list(request.seeds[start:stop]) if noise is None else None
        made = np.asarray(_decode(engine, params, noise, seeds, listener, start))
        run.seconds["decode_s"] += time.perf_counter() - clock
        run.tokens[start:stop, : made.shape[1]] = made
        run.tokens_done[start:stop] = [made.shape[1]] * (stop - start)
        run.steps += made.shape[1]
        run.stopped = listener.stopped
        if run.stopped:
            break
        listener.before += count
    run.seconds["decode_s"] -= listener.seconds
    return run
