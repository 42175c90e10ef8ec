"""ReferenceEngine: the oracle behind the same methods as the native engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .._core import MAX_ROWS
from ..config import MAX_STEPS, MAX_THREADS, show, whole
from ..errors import Cancelled, Error, InvalidRequest
from ..progress import says_stop
from .backbone import Sequences, run_backbone
from .checks import array_of, device_of, prefill_arrays, token_ids
from .fm_head import modulations, velocity
from .noise import noise_source
from .solver import combine_guidance, integrate, normalize_token, scheduled_guidance, time_grid
from .types import ModelShape, Sampling, linear, wide
from .weights import load_weights

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}
STATES = ("hidden", "cond", "modulation", "velocity", "latent")


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    """The thread count of torch is global to the process: borrowed for the length of a call, then put back."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class ReferenceEngine:
    """The decode loop in plain torch. With trace=True, `trace` collects, since the last prefill, as torch tensors:

    layers      per backbone run, every block's output [rows, columns, hidden_size]
    hidden, cond, modulation, tokens   per image token, as in `state` but in the compute dtype
    velocity    per token, per evaluation: the head's output [rows, token_dim] before guidance
    x           per token, the start and the state after each step [images, token_dim]
    """

    backend = "reference/torch"

    def __init__(
        self,
        config: ModelShape,
        tensors: Mapping[str, Any],
        *,
        dtype: str = "float32",
        device: str = "cpu",
        threads: int | None = None,
        trace: bool = False,
    ) -> None:
        """Converts the weights to `dtype` once. Raises CheckpointError on missing, unknown or misshapen tensors,
        InvalidRequest or Error on a device that cannot be had.
        """
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise InvalidRequest(f"dtype is {show(dtype)}; known: {', '.join(DTYPES)}")
        if threads is not None:
            threads = whole("threads", threads, 1, MAX_THREADS)
        self.config = config
        self.dtype = dtype
        self.threads = threads or torch.get_num_threads()
        self.trace: dict[str, list[Any]] | None = {} if trace else None
        self._dtype = DTYPES[dtype]
        self._device = device_of(device)
        self._weights, self._converted = load_weights(config, tensors, self._dtype, self._device)
        self.reset()

    @property
    def rows(self) -> int:
        """Rows of the last prefill; 0 before it."""
        return 0 if self._sequences is None else int(self._sequences.keep.shape[0])

    @property
    def position(self) -> int:
        """Image tokens generated since prefill."""
        return self._position

    def reset(self) -> None:
        """Forgets the sequences."""
        self._forget()
        if self.trace is not None:
            self.trace.clear()

    def _forget(self) -> None:
        """All but the trace, which shows what went wrong."""
        self._sequences: Sequences | None = None
        self._hidden = torch.empty(0)
        self._pending: torch.Tensor | None = None
        self._position = self._room = 0
        self._state: dict[str, torch.Tensor] = {}

    def plan(self, rows: int, positions: int, steps: int) -> dict[str, int]:
        """Bytes of `rows` sequences of `positions` columns, sampled with `steps` steps."""
        c, size = self.config, self._dtype.itemsize
        rows, steps = whole("rows", rows, 1, MAX_ROWS), whole("steps", steps, 1, MAX_STEPS)
        positions = whole("positions", positions, 1, c.max_position_embeddings)
        cache = 2 * c.num_hidden_layers * rows * positions * c.num_key_value_heads * c.head_dim * size
        scratch = steps * rows * (3 * c.fm_head_layers + 2) * c.fm_head_dim * size
        return {**self._weight_bytes(), "kv_cache": cache, "scratch": scratch}

    def memory(self) -> dict[str, int]:
        """Bytes held now; scratch is what the last token's modulations took."""
        held = self._sequences
        cache = 0 if held is None else sum(t.nbytes for t in (*held.keys, *held.values))
        scratch = self._state["modulation"].nbytes if "modulation" in self._state else 0
        return {**self._weight_bytes(), "kv_cache": cache, "scratch": scratch}

    def _weight_bytes(self) -> dict[str, int]:
        return {"weights": sum(t.nbytes for t in self._weights.values()), "converted": self._converted}

    def embed_tokens(self, ids: Any) -> np.ndarray:
        """Token ids [n] -> float32 [n, hidden_size]."""
        index = token_ids(ids, self.config.vocab_size)
        return _float32(self._weights["embed_tokens.weight"][torch.from_numpy(index).to(self._device)])

    def project_tokens(self, tokens: Any) -> np.ndarray:
        """Image tokens [n, token_dim] -> float32 [n, hidden_size], by image_in_projector."""
        array = array_of("tokens", tokens, "f", "float32")
        if array.ndim != 2 or array.shape[1] != self.config.token_dim:
            raise InvalidRequest(f"tokens have shape {array.shape}, expected (n, {self.config.token_dim})")
        return _float32(linear(self._weights, "image_in_projector", self._tensor(array, self._dtype)))

    def prefill(
        self,
        embeds: Any,
        mask: Any = None,
        *,
        max_new_tokens: int,
        progress: Callable[[int, int], Any] | None = None,
    ) -> None:
        """Starts afresh. embeds [rows, width, hidden_size]; mask [rows, width] False where a column is padding.

        Padding may stand anywhere: it is dropped. progress(width, width) is called once; where it returns False
        the sequences are forgotten and Cancelled is raised.
        """
        array, keep = prefill_arrays(self.config, embeds, mask, max_new_tokens)
        self.reset()
        # A stable sort of the mask moves each row's padding to its left and keeps the order of the rest.
        order = np.argsort(keep, axis=1, kind="stable")[:, -int(keep.sum(axis=1).max()) :]
        array, keep = np.take_along_axis(array, order[:, :, None], axis=1), np.take_along_axis(keep, order, axis=1)
        self._room = int(max_new_tokens)
        self._sequences = Sequences(torch.from_numpy(keep).to(self._device))
        with torch.no_grad(), _torch_threads(self.threads):
            self._hidden = self._run(self._sequences, self._tensor(array, self._dtype))
        width = int(array.shape[1])
        if progress is not None and says_stop(progress(width, width)):
            self.reset()
            raise Cancelled("prefill was stopped by its progress callback")

    def decode(
        self,
        params: Sampling,
        count: int | None = None,
        *,
        noise: Any = None,
        seeds: Sequence[int] | None = None,
        callback: Callable[[int, int, np.ndarray], Any] | None = None,
    ) -> np.ndarray:
        """Makes `count` more tokens of each image (None: all that remain) -> float32 [images, made, token_dim].

        noise [count, 1 + steps, images, token_dim], or seeds, one per image. callback(position, num_tokens, tokens
        of this call so far) stops after the token where it returns False. Raises Error where a token is not finite.
        """
        sequences, images, count = self._check_request(params, count)
        shape = (count, 1 + params.num_inference_steps, images, self.config.token_dim)
        draw = noise_source(shape, self._position, noise, seeds)
        knots = time_grid(params)
        made: list[np.ndarray] = []
        with torch.no_grad(), _torch_threads(self.threads):
            for _ in range(count):
                x = self._next_token(sequences, params, knots, self._tensor(draw(len(made)), wide(self._dtype)))
                made.append(_float32(x))
                if callback is not None and says_stop(
                    callback(self._position, params.num_tokens, np.stack(made, axis=1))
                ):
                    break
        return np.stack(made, axis=1) if made else np.empty((images, 0, self.config.token_dim), np.float32)

    def state(self, name: str) -> np.ndarray:
        """Float32 copy of an intermediate of the last token.

        hidden, cond [rows, hidden_size]; modulation [steps * rows, (3 * layers + 2) * fm_head_dim];
        velocity [rows, token_dim] of the last evaluation; latent [images, token_dim] before normalization.
        """
        if name not in STATES:
            raise InvalidRequest(f"state is {name!r}; known: {', '.join(STATES)}")
        if name not in self._state:
            raise Error(f"there is no {name} yet: call {'prefill' if name == 'hidden' else 'decode'} first")
        return _float32(self._state[name].flatten(0, -2))

    def _tensor(self, array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor(array, device=self._device).to(dtype)

    def _record(self, name: str, value: Any) -> None:
        if self.trace is not None:
            self.trace.setdefault(name, []).append(value)

    def _check_request(self, params: Sampling, count: int | None) -> tuple[Sequences, int, int]:
        """The sequences, the images they make, and the count of tokens, all checked before any work is done."""
        if self._sequences is None:
            raise InvalidRequest("decode needs sequences: call prefill first")
        if params.branches not in (1, 2, 3) or self.rows % params.branches:
            raise InvalidRequest(f"{self.rows} rows cannot be {params.branches} branches of as many rows each")
        remaining = min(params.num_tokens - self._position, self._room - self._position)
        count = params.num_tokens - self._position if count is None else whole("count", count, 0, 2**62)
        if count > remaining or count < 0:
            raise InvalidRequest(f"{count} tokens asked for; {remaining} remain of num_tokens and max_new_tokens")
        if self.config.use_gen_pos_embed:
            table = self._weights["gen_pos_embed"].reshape(-1, self.config.hidden_size).shape[0]
            if self._position + count > table:
                raise InvalidRequest(f"image token {self._position + count - 1} is past the {table} of gen_pos_embed")
        return self._sequences, self.rows // params.branches, count

    def _run(self, sequences: Sequences, embeds: torch.Tensor) -> torch.Tensor:
        """Runs new columns; returns the last one's hidden state [rows, hidden_size], with its position embedding."""
        hidden, outputs = run_backbone(self._weights, self.config, embeds, sequences)
        self._record("layers", outputs)
        last = hidden[:, -1]
        if self.config.use_gen_pos_embed:
            last = last + self._weights["gen_pos_embed"].reshape(-1, self.config.hidden_size)[self._position]
        self._state["hidden"] = last
        return last

    def _next_token(
        self, sequences: Sequences, params: Sampling, knots: np.ndarray, noise: torch.Tensor
    ) -> torch.Tensor:
        """Makes one token of every image [images, token_dim] in the wide dtype."""
        if self._pending is not None:
            # The step of the previous token waits until a next one is asked for: the last token's is never run.
            embed = linear(self._weights, "image_in_projector", self._pending.to(self._dtype))
            sequences.keep = torch.nn.functional.pad(sequences.keep, (0, 1), value=True)
            self._hidden = self._run(sequences, embed.repeat(params.branches, 1)[:, None])
            self._pending = None
        x = self._sample(params, knots, noise)
        self._state["latent"] = x
        if params.normalize_tokens:
            x = normalize_token(x)
        finite = x.isfinite().all(dim=-1)
        if not finite.all():
            token, image = self._position, int(torch.argmin(finite.int()))
            self._forget()
            raise Error(
                f"values stopped being finite at image token {token} of image {image}; run `nextstep-rt info --verify` "
                "on the checkpoint, or lower guidance_scale, and start again"
            )
        self._record("tokens", x)
        self._pending = x
        self._position += 1
        return x

    def _sample(self, params: Sampling, knots: np.ndarray, noise: torch.Tensor) -> torch.Tensor:
        """Integrates the head from noise[0] under the condition of the current hidden state -> [images, token_dim]."""
        config, weights, token = self.config, self._weights, self._position
        cond = linear(weights, "image_out_projector", self._hidden)
        times = self._tensor(knots[: params.num_inference_steps], torch.float64)
        modulation = modulations(weights, config, cond, times)
        schedule = params.guidance_schedule, token, params.num_tokens
        guidance = scheduled_guidance(params.guidance_scale, *schedule)
        image_guidance = scheduled_guidance(params.image_guidance_scale, *schedule)
        evaluations: list[torch.Tensor] = []

        def guided_velocity(x: torch.Tensor, k: int) -> torch.Tensor:
            v = velocity(weights, config, x.to(self._dtype).repeat(params.branches, 1), modulation[k]).to(x.dtype)
            evaluations.append(v)
            return combine_guidance(v, params.branches, guidance, image_guidance, params.guidance_renorm)

        states = integrate(params, [float(t) for t in knots], noise[0], noise[1:], guided_velocity)
        self._state.update(cond=cond, modulation=modulation, velocity=evaluations[-1])
        for name, value in (("hidden", self._hidden), ("cond", cond), ("modulation", modulation)):
            self._record(name, value)
        self._record("velocity", evaluations)
        self._record("x", states)
        return states[-1]


def _float32(tensor: torch.Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().to(device="cpu", dtype=torch.float32).numpy().copy()
    return array
