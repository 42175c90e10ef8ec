"""Single stages on arrays in host memory, by the CPU backend's kernels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypedDict, cast

from .. import _core

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

TOKEN_NORM_EPS = 1e-6


class SolverStep(TypedDict):
    """One velocity evaluation and the update after it; see :func:`solver_plan`."""

    kind: str
    time: float
    time_index: int
    draw: int
    cx: float
    cv: float
    ce: float


def layer_norm(
    x: Any,
    weight: Any = None,
    bias: Any = None,
    *,
    shift: Any = None,
    scale: Any = None,
    eps: float = TOKEN_NORM_EPS,
    isa: str | None = None,
) -> Floats:
    """LayerNorm of x float32 [b, d], then ``* weight + bias`` ([d]), then ``* (1 + scale) + shift`` ([b, d])."""
    return _core.op_layer_norm(x, weight, bias, shift, scale, eps=eps, isa=isa)


def token_norm(x: Any, *, isa: str | None = None) -> Floats:
    """Token-wise normalization: LayerNorm over the numbers of each image token, float32 [images, token_dim]."""
    return _core.op_layer_norm(x, eps=TOKEN_NORM_EPS, isa=isa)


def rope(x: Any, positions: Any, *, theta: float, isa: str | None = None) -> Floats:
    """Rotary embedding, half-split form: x float32 [b, heads, head_dim], positions int64 [b]."""
    return _core.op_rope(x, positions, theta, isa)


def attention(q: Any, k: Any, v: Any, lengths: Any, *, threads: int = 1, isa: str | None = None) -> Floats:
    """Decode attention, one query position a row, over the first ``lengths[b]`` positions of its cache.

    q float32 [b, h_q, d]; k, v float32 or bfloat16 [b, h_kv, capacity, d]; lengths int64 [b]; returns [b, h_q, d].
    Query head h reads kv head h // (h_q / h_kv); scores are scaled by 1/sqrt(d).
    """
    return _core.op_attention(q, k, v, lengths, threads, isa)


def silu_mul(gate: Any, up: Any, *, isa: str | None = None) -> Floats:
    """``silu(gate) * up``, float32 [b, n]."""
    return _core.op_silu_mul(gate, up, isa)


def guidance(
    v: Any,
    *,
    branches: int,
    scale: float,
    image_scale: float = 1.0,
    renorm: bool = False,
    isa: str | None = None,
) -> Floats:
    """Combine the branches of a velocity: float32 [branches * images, token_dim] -> [images, token_dim].

    Rows are branch-major: conditional, (image-only,) unconditional. ``renorm`` caps the result's length at that of the
    conditional velocity.
    """
    return _core.op_guidance(v, branches, scale, image_scale, renorm, isa)


def solver_plan(params: _core.SamplingParams) -> list[SolverStep]:
    """The solver's steps: at ``time`` evaluate v, then ``x = cx * x + cv * v + ce * noise[draw]``.

    ``time_index`` is the time's place among the plan's distinct ones. ``kind`` is "update", or for Heun "heun_predict"
    (keep x and v) and "heun_correct" (x = kept x + cv * (kept v + v)).
    """
    return [cast(SolverStep, step) for step in _core.op_solver_plan(params)]


def solver_update(
    x: Any, v: Any, noise: Any = None, *, cx: float, cv: float, ce: float = 0.0, isa: str | None = None
) -> Floats:
    """``cx * x + cv * v + ce * noise``, float32 [images, token_dim]."""
    return _core.op_solver_update(x, v, noise, cx=cx, cv=cv, ce=ce, isa=isa)


def time_sinusoid(times: Sequence[float]) -> Floats:
    """The FM head's time features: 128 cosines then 128 sines of t * 10000^(-i/128), float32 [len(times), 256]."""
    return _core.op_time_sinusoid(times)


def time_grid(params: _core.SamplingParams) -> Floats:
    """The solver's knots, float32 [num_inference_steps + 1] (one fewer for sde-final-ode)."""
    return _core.time_grid(params)


def normal_noise(seed: int, token: int, draw: int, n: int) -> Floats:
    """Standard normals float32 [n], a pure function of the arguments: see docs/model.md, "Noise"."""
    return _core.normal_noise(seed, token, draw, n)
