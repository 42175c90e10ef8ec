"""The ops that have a GPU kernel, wherever their arrays are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import _core
from ..errors import InvalidRequest
from . import composed, cuda
from .host import solver_plan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

KINDS = ("update", "heun_predict", "heun_correct")


def _no_out(*arrays: Any) -> None:
    if any(array is not None for array in arrays):
        raise InvalidRequest("out is for arrays of a GPU; in host memory the result is a new array")


def linear(
    x: Any,
    weight: Any,
    bias: Any = None,
    residual: Any = None,
    *,
    silu: bool = False,
    norm_weight: Any = None,
    eps: float = 1e-6,
    round_x: bool = False,
    threads: int = 1,
    isa: str | None = None,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Weight-streaming product: ``act(norm(x) @ weight.T + bias) + residual``.

    x [b, k]; weight float32 or bfloat16 [n, k]; bias float32 [n]; residual float32 [b, n]; returns [b, n]. ``silu``
    applies x * sigmoid(x). With ``norm_weight`` float32 [k], x is float32 and its RMSNorm is multiplied. ``round_x``
    (CPU) lets x be rounded to bfloat16 where the ISA multiplies that format.

    On a GPU: at most 64 rows where weight and x (or norm) are bfloat16, else 16; k a multiple of 8. The result is
    float32 with a residual, else in x's dtype (behind a norm, the weight's), or float32 where ``out`` is.
    """
    if cuda.is_cuda(x):
        if threads != 1 or isa is not None or round_x:
            raise InvalidRequest("threads, isa and round_x are the CPU's; leave them out for arrays of a GPU")
        return cuda.linear(x, weight, bias, residual, silu, norm_weight, eps, out, stream)
    _no_out(out)
    x = composed.normed(x, norm_weight, eps)
    return _core.op_linear(x, weight, bias, residual, silu, round_x, threads, isa)


def gated_linear(
    x: Any,
    gate: Any,
    up: Any,
    gate_bias: Any = None,
    up_bias: Any = None,
    *,
    norm_weight: Any = None,
    eps: float = 1e-6,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """``silu(norm(x) @ gate.T + gate_bias) * (norm(x) @ up.T + up_bias)``: x [b, k]; gate, up [n, k]; returns [b, n].

    Rows and dtypes as in :func:`linear`.
    """
    weights, biases = (gate, up), (gate_bias, up_bias)
    if cuda.is_cuda(x):
        return cuda.gated_linear(x, weights, biases, norm_weight, eps, out, stream)
    _no_out(out)
    return composed.gated_linear(composed.normed(x, norm_weight, eps), weights, biases)


def rope_tables(positions: int, head_dim: int, *, theta: float) -> tuple[Floats, Floats]:
    """Cosines and sines of position * theta^(-2i / head_dim), each float32 [positions, head_dim / 2]."""
    import numpy as np

    if positions < 1 or head_dim < 2 or head_dim % 2 or theta <= 0:
        raise InvalidRequest(f"no rotary tables of {positions} positions, head_dim {head_dim} and theta {theta}")
    angles = np.arange(positions)[:, None] * theta ** (-2.0 * np.arange(head_dim // 2) / head_dim)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def qkv_linear(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any],
    tables: Sequence[Any],
    places: Any,
    k_cache: Any,
    v_cache: Any,
    *,
    norm_weight: Any = None,
    eps: float = 1e-6,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """Queries, keys and values of x in one product, rotated (half-split form); keys and values go to the caches.

    x [b, k]; weights of q [h_q * d, k], k and v [h_kv * d, k]; biases float32 or None; tables of :func:`rope_tables`
    for the cache's capacity; places int32 [b, 2]: each row's sequence and position; caches [sequences, h_kv, capacity,
    d], written at the places. Returns the queries [b, h_q, d], scaled by 1/sqrt(d). On a GPU places are not checked.
    """
    caches = (k_cache, v_cache)
    if cuda.is_cuda(x):
        return cuda.qkv_linear(x, weights, biases, tables, places, caches, norm_weight, eps, out, stream)
    _no_out(out)
    return composed.qkv_linear(composed.normed(x, norm_weight, eps), weights, biases, tables, places, caches)


def attn_decode(
    q: Any, k_cache: Any, v_cache: Any, places: Any, starts: Any = None, *, out: Any = None, stream: int | None = None
) -> Any:
    """Flash decoding: each row attends to positions ``starts[b]`` (0) to ``places[b, 1]`` of sequence ``places[b, 0]``.

    q [b, h_q, d], as :func:`qkv_linear` leaves it; caches [sequences, h_kv, capacity, d]; starts int32 [b]; returns
    [b, h_q, d] in q's dtype. Query head h reads kv head h // (h_q / h_kv). Several rows may be of one sequence. On a
    GPU d is a multiple of 8 up to 256, q and caches have one dtype, and a row without positions is zeros; elsewhere
    it is refused. On a GPU places are not checked.
    """
    if cuda.is_cuda(q):
        return cuda.attn_decode(q, k_cache, v_cache, places, starts, out, stream)
    _no_out(out)
    return composed.attn_decode(q, k_cache, v_cache, places, starts)


def rms_norm(
    x: Any, weight: Any, *, eps: float, isa: str | None = None, out: Any = None, stream: int | None = None
) -> Any:
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last axis; x float32 [b, d], weight float32 [d]."""
    if cuda.is_cuda(x):
        return cuda.rms_norm(x, weight, eps, out, stream)
    _no_out(out)
    return _core.op_rms_norm(x, weight, eps, isa)


def add_position(
    hidden: Any, position: Any = None, *, dtype: str = "float32", out: Any = None, stream: int | None = None
) -> Any:
    """``hidden + position``, what image_out_projector reads: hidden float32 [b, d], position float32 [d] or None.

    The result is of ``dtype``; "bfloat16" on a GPU only.
    """
    if dtype not in ("float32", "bfloat16"):
        raise InvalidRequest(f"dtype is '{dtype}'; use 'float32' or 'bfloat16'")
    if cuda.is_cuda(hidden):
        return cuda.add_position(hidden, position, dtype, out, stream)
    _no_out(out)
    if dtype != "float32":
        raise InvalidRequest("in host memory the result is float32")
    rows = composed.as_numpy(hidden, "hidden")
    return rows.copy() if position is None else rows + composed.as_numpy(position, "position")


def fm_modulations(
    condition: Any,
    times: Any,
    cond_weight: Any,
    cond_bias: Any,
    weight: Any,
    bias: Any,
    *,
    out: Any = None,
    stream: int | None = None,
) -> Any:
    """All steps' modulations of the flow-matching head in one product: they do not depend on the sample.

    condition [b, d_model]; times float32 [t, d], the embedded times; cond_weight [d, d_model]; weight
    [(3 layers + 2) * d, d], the adaLN matrices of all blocks and the last layer one below the other; returns
    [t * b, (3 layers + 2) * d] in condition's dtype: ``weight @ silu(cond_weight @ condition + times)``, with biases.
    """
    cond, modulation = (cond_weight, cond_bias), (weight, bias)
    if cuda.is_cuda(condition):
        return cuda.fm_modulations(condition, times, cond, modulation, out, stream)
    _no_out(out)
    return composed.fm_modulations(condition, times, cond, modulation)


def fm_plan(params: _core.SamplingParams) -> list[float]:
    """:func:`solver_plan` as numbers, six a step: kind (0, 1, 2), time_index, draw, cx, cv, ce."""
    plan: list[float] = []
    for step in solver_plan(params):
        kind = float(KINDS.index(step["kind"]))
        plan += [kind, float(step["time_index"]), float(step["draw"]), step["cx"], step["cv"], step["ce"]]
    return plan


def fm_head(
    weights: Sequence[Any],
    modulations: Any,
    noise: Any,
    plan: Sequence[float],
    *,
    branches: int = 1,
    guidance: float = 1.0,
    image_guidance: float = 1.0,
    renorm: bool = False,
    normalize: bool = True,
    image_in: Sequence[Any] = (),
    tokens: Any = None,
    embeds: Any = None,
    stream: int | None = None,
) -> tuple[Any, Any]:
    """The whole flow-matching loop of one image token per image; on a GPU one persistent kernel.

    weights: weight and bias of the input and of the output product, then for every block of its norm, fc1 and fc2.
    modulations [t * rows, ...] of :func:`fm_modulations`, rows = branches * images, branch-major; noise float32
    [draws, images, d_tok], the first one the start; plan of :func:`fm_plan`. Guidance as in :func:`guidance`;
    ``normalize`` is the token-wise normalization. image_in: weight [d_model, d_tok] and bias of image_in_projector.

    Returns (tokens float32 [images, d_tok], embeds float32 [rows, d_model], or None without image_in). At most 16 rows.
    """
    scales, flags = (guidance, image_guidance), (renorm, normalize)
    if cuda.is_cuda(modulations):
        return cuda.fm_head(
            weights, modulations, noise, plan, branches, scales, flags, image_in, (tokens, embeds), stream
        )
    _no_out(tokens, embeds)
    return composed.fm_head(weights, modulations, noise, plan, branches, scales, flags, image_in)
