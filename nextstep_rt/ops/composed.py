"""The fused ops in host memory, composed of the CPU backend's single stages. float32, but for the weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import _core
from ..errors import InvalidRequest
from .host import TOKEN_NORM_EPS, attention, guidance, layer_norm, silu_mul, solver_update, token_norm

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]


def as_numpy(array: Any, name: str) -> Any:
    """The same memory as a numpy array; raises InvalidRequest where numpy has no such dtype, or not in host memory."""
    import numpy as np

    if isinstance(array, np.ndarray):
        return array
    if not hasattr(array, "__dlpack__"):
        raise InvalidRequest(f"{name} is a {type(array).__name__}; give a numpy array or any array with __dlpack__")
    try:
        return np.from_dlpack(array)
    except (BufferError, RuntimeError, TypeError, ValueError) as e:
        raise InvalidRequest(f"{name} cannot be read as a numpy array: {e}; give float32 in host memory") from e


def normed(x: Any, weight: Any, eps: float) -> Any:
    """RMSNorm, or x itself where there is no weight."""
    return x if weight is None else _core.op_rms_norm(x, weight, eps)


def product(x: Any, weight: Any, bias: Any = None, silu: bool = False) -> Floats:
    """act(x W^T + bias)."""
    result: Floats = _core.op_linear(x, weight, bias, None, silu)
    return result


def gated_linear(x: Any, weights: Sequence[Any], biases: Sequence[Any]) -> Floats:
    """silu(gate) * up."""
    gate, up = (product(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))
    return silu_mul(gate, up)


def qkv_linear(
    x: Any, weights: Sequence[Any], biases: Sequence[Any], tables: Sequence[Any], places: Any, caches: Sequence[Any]
) -> Floats:
    """Rotated, scaled queries; keys and values go to the caches."""
    import numpy as np

    cos, sin = (as_numpy(table, "a table") for table in tables)
    for name, cache in zip(("k_cache", "v_cache"), caches, strict=True):
        if not isinstance(cache, np.ndarray) or cache.dtype != np.float32 or not cache.flags.writeable:
            raise InvalidRequest(f"{name} must be a writeable float32 numpy array in host memory")
    d_head, capacity = caches[0].shape[3], caches[0].shape[2]
    sequence, position = as_numpy(places, "places").T
    if len(position) and not (position.min() >= 0 and position.max() < capacity):
        raise InvalidRequest(f"places has a position outside 0..{capacity - 1}")
    if len(sequence) and not (sequence.min() >= 0 and sequence.max() < caches[0].shape[0]):
        raise InvalidRequest(f"places has a sequence outside 0..{caches[0].shape[0] - 1}")
    q, k, v = (
        product(x, weight, bias).reshape(len(sequence), -1, d_head)
        for weight, bias in zip(weights, biases, strict=True)
    )

    def turned(heads: Floats) -> Any:
        low, high = np.split(heads, 2, axis=-1)
        c, s = cos[position][:, None], sin[position][:, None]
        return np.concatenate([low * c - high * s, high * c + low * s], axis=-1)

    caches[0][sequence, :, position], caches[1][sequence, :, position] = turned(k), v
    scaled: Floats = turned(q) * np.float32(d_head**-0.5)
    return scaled


def attn_decode(q: Any, k_cache: Any, v_cache: Any, places: Any, starts: Any) -> Floats:
    """Row by row: each has its own sequence and range."""
    import numpy as np

    queries, k, v = as_numpy(q, "q"), as_numpy(k_cache, "k_cache"), as_numpy(v_cache, "v_cache")
    out: Floats = np.empty_like(queries)
    begins = np.zeros(len(queries), np.int64) if starts is None else as_numpy(starts, "starts")
    for row, (sequence, position) in enumerate(as_numpy(places, "places")):
        begin = int(begins[row])
        if not (0 <= sequence < len(k) and 0 <= begin <= position < k.shape[2]):
            raise InvalidRequest(
                f"row {row} asks for positions {begin}..{position} of sequence {sequence}; the cache has "
                f"{len(k)} sequences of {k.shape[2]}"
            )
        seen = slice(begin, int(position) + 1)
        scaled = queries[None, row] * np.float32(queries.shape[-1] ** 0.5)  # attention() scales by itself
        length = np.array([seen.stop - seen.start])
        out[row] = attention(scaled, k[None, sequence, :, seen], v[None, sequence, :, seen], length)[0]
    return out


def fm_modulations(condition: Any, times: Any, cond: Sequence[Any], modulation: Sequence[Any]) -> Floats:
    """One row of modulations for every time and row of the condition."""
    import numpy as np

    embedded = product(condition, *cond)
    y = as_numpy(times, "times")[:, None] + embedded[None]
    return product((y / (1 + np.exp(-y))).reshape(-1, y.shape[-1]).astype(np.float32), *modulation)


def velocity(weights: Sequence[Any], modulation: Any, x: Floats) -> Floats:
    """The head's network at one time; modulation [b, (3 layers + 2) d]."""
    import numpy as np

    h: Any = product(x, *weights[:2])
    parts = modulation.reshape(len(x), -1, h.shape[1])
    for i, at in enumerate(range(4, len(weights), 6)):
        norm_weight, norm_bias, *mlp = weights[at : at + 6]
        shift, scale, gate = (np.ascontiguousarray(parts[:, 3 * i + j]) for j in range(3))
        inner = layer_norm(h, norm_weight, norm_bias, shift=shift, scale=scale)
        h = h + gate * product(product(inner, mlp[0], mlp[1], silu=True), mlp[2], mlp[3])
    shift, scale = (np.ascontiguousarray(parts[:, j]) for j in (-2, -1))
    return product(layer_norm(h, shift=shift, scale=scale, eps=TOKEN_NORM_EPS), *weights[2:4])


def fm_head(
    weights: Sequence[Any],
    modulations: Any,
    noise: Any,
    plan: Sequence[float],
    branches: int,
    scales: tuple[float, float],
    flags: tuple[bool, bool],
    image_in: Sequence[Any],
) -> tuple[Floats, Floats | None]:
    """Every step of the solver, then token-wise normalization and the way back into the backbone."""
    import numpy as np

    noise = as_numpy(noise, "noise")
    x = np.ascontiguousarray(noise[0])
    rows = branches * len(x)
    per_time = as_numpy(modulations, "modulations").reshape(-1, rows, modulations.shape[-1])
    kept_x = kept_v = x
    for i in range(0, len(plan), 6):
        kind, time, draw, cx, cv, ce = plan[i : i + 6]
        v = velocity(weights, per_time[int(time)], np.tile(x, (branches, 1)))
        v = guidance(v, branches=branches, scale=scales[0], image_scale=scales[1], renorm=flags[0])
        if kind == 1:
            kept_x, kept_v = x, v
        if kind == 2:
            x = solver_update(kept_x, kept_v + v, cx=1.0, cv=cv)
        else:
            x = solver_update(x, v, noise[int(draw)] if draw >= 0 else None, cx=cx, cv=cv, ce=ce if draw >= 0 else 0.0)
    if flags[1]:
        x = token_norm(x)
    embeds = product(np.tile(x, (branches, 1)), *image_in) if image_in else None
    return x, embeds
