"""Every op with arguments that fit it, for tests of what the ops take and refuse."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nextstep_rt import ops

from .cases import normal

Arguments = dict[str, Any]
Op = Callable[[Arguments], np.ndarray]

LENGTHS = np.array([9, 4])


def case(call: Callable[..., np.ndarray], shapes: dict[str, tuple[int, ...]], **options: Any) -> tuple[Op, Arguments]:
    arrays = {name: normal(*shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    return lambda arguments: call(**arguments, **options), arrays


CASES: dict[str, tuple[Op, Arguments]] = {
    "linear": case(ops.linear, {"x": (3, 21), "weight": (10, 21), "bias": (10,), "residual": (3, 10)}),
    "rms_norm": case(ops.rms_norm, {"x": (3, 21), "weight": (21,)}, eps=1e-6),
    "layer_norm": case(
        ops.layer_norm, {"x": (3, 21), "weight": (21,), "bias": (21,), "shift": (3, 21), "scale": (3, 21)}
    ),
    "token_norm": case(ops.token_norm, {"x": (3, 21)}),
    "rope": case(ops.rope, {"x": (2, 3, 10)}, positions=np.array([3, 70]), theta=1e4),
    "attention": case(ops.attention, {"q": (2, 4, 12), "k": (2, 2, 9, 12), "v": (2, 2, 9, 12)}, lengths=LENGTHS),
    "silu_mul": case(ops.silu_mul, {"gate": (3, 21), "up": (3, 21)}),
    "guidance": case(ops.guidance, {"v": (6, 21)}, branches=2, scale=3.0),
    "solver_update": case(ops.solver_update, {"x": (3, 21), "v": (3, 21), "noise": (3, 21)}, cx=0.5, cv=1.0, ce=0.1),
}
# Every array argument of every op.
PLACES = [(name, argument) for name, (_, arguments) in CASES.items() for argument in arguments]
