"""Cases of the ops that stay in a cache: norms, rotations, guidance, the solver, noise and its tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from nextstep_rt import SamplingParams, ops

if TYPE_CHECKING:
    from .op_cases import OpCase, Shapes

FLOAT = 4


def small_cases(shapes: Shapes) -> Iterator[OpCase]:
    """One call each, with the numbers read and written, and the operations for each."""
    yield from _on_rows(shapes)
    yield from _on_tokens(shapes)
    yield from _on_host(shapes)


def _case(op: str, what: str, run: Callable[[], Any], numbers: int, flops: int) -> OpCase:
    from .op_cases import OpCase

    return OpCase(op, what, run, FLOAT * numbers, flops, FLOAT * numbers)


def _on_rows(s: Shapes) -> Iterator[OpCase]:
    c, b, d, f = s.c, s.rows, s.c.hidden_size, s.c.fm_head_dim
    x, weight = s.floats(b, d), s.floats(d)
    yield _case("rms_norm", f"{d}", lambda: ops.rms_norm(x, weight, eps=1e-6), 2 * b * d + d, 4 * b * d)
    h, scale, shift, own, bias = s.floats(b, f), s.floats(b, f), s.floats(b, f), s.floats(f), s.floats(f)
    yield _case(
        "layer_norm", f"{f}", lambda: ops.layer_norm(h, own, bias, shift=shift, scale=scale), 4 * b * f + 2 * f,
        11 * b * f,
    )  # fmt: skip
    heads = s.floats(b, c.num_attention_heads, c.head_dim)
    places = np.full(b, s.load.positions, np.int64)
    yield _case(
        "rope", f"{c.num_attention_heads}x{c.head_dim}", lambda: ops.rope(heads, places, theta=c.rope_theta),
        2 * heads.size, 3 * heads.size,
    )  # fmt: skip
    gate, up = s.floats(b, c.intermediate_size), s.floats(b, c.intermediate_size)
    yield _case("silu_mul", f"{c.intermediate_size}", lambda: ops.silu_mul(gate, up), 3 * gate.size, 5 * gate.size)
    position = s.floats(d)
    yield _case("add_position", f"{d}", lambda: ops.add_position(x, position), 2 * b * d + d, b * d)


def _on_tokens(s: Shapes) -> Iterator[OpCase]:
    d, branches = s.c.token_dim, s.load.branches
    images = s.rows // branches
    n = images * d
    x, noise, v, all_v = s.floats(images, d), s.floats(images, d), s.floats(images, d), s.floats(s.rows, d)
    yield _case("token_norm", f"{d}", lambda: ops.token_norm(x), 2 * n, 6 * n)
    yield _case(
        "guidance", f"{branches} branches of {d}",
        lambda: ops.guidance(all_v, branches=branches, scale=3.0), (branches + 1) * n, 2 * branches * n,
    )  # fmt: skip
    yield _case("solver_update", f"{d}", lambda: ops.solver_update(x, v, noise, cx=1.0, cv=0.1, ce=0.1), 4 * n, 5 * n)
    yield _case("normal_noise", f"{d}", lambda: ops.normal_noise(1, 2, 3, d), d, 20 * d)


def _on_host(s: Shapes) -> Iterator[OpCase]:
    """What is made once a request: its time is a call's."""
    params = SamplingParams(num_tokens=1, num_inference_steps=s.steps, branches=s.load.branches)
    half = s.c.head_dim // 2
    times = [i / s.steps for i in range(s.steps)]
    yield _case("solver_plan", f"{s.steps} steps", lambda: ops.solver_plan(params), 6 * s.steps, 0)
    yield _case("fm_plan", f"{s.steps} steps", lambda: ops.fm_plan(params), 6 * s.steps, 0)
    yield _case("time_grid", f"{s.steps} steps", lambda: ops.time_grid(params), s.steps + 1, 0)
    yield _case("time_sinusoid", f"{s.steps} steps", lambda: ops.time_sinusoid(times), 256 * s.steps, 0)
    yield _case(
        "rope_tables", f"{s.load.last} positions",
        lambda: ops.rope_tables(s.load.last, s.c.head_dim, theta=s.c.rope_theta), 2 * half * s.load.last, 0,
    )  # fmt: skip
