"""`scaling`: time and memory along one axis at a time, against the cost model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer

from nextstep_rt import InvalidRequest

from .. import options as o
from ..loop import Load, chosen, whole
from ..measure import MAX_SPREAD, Policy
from ..points import measure_points
from ..subject import Shape, check_dtype, find, load, named
from ..synthetic import NAMES
from .roofline import doubling

AXES = ("rows", "positions", "threads", "model")
Axis = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE,VALUE",
        help="rows, positions, threads or model with its values, e.g. --axis rows=1,2,4; default all four. The other "
        "options say where the axes cross.",
    ),
]


def scaling(
    axis: Axis = None,
    synthetic: o.Synthetic = None,
    model: o.Model = None,
    dtype: o.Dtype = "bfloat16",
    rows: o.Rows = 2,
    steps: o.Steps = 20,
    positions: o.Positions = 128,
    tokens: o.Tokens = 8,
    threads: o.Threads = None,
    repeats: o.Repeats = 5,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    pin: o.Pin = True,
    out: o.Out = None,
    plot: o.Plot = False,
) -> None:
    """Rows 1 to 16, positions 128 to 8192, threads and model size: time and memory against the cost model."""
    policy = Policy(repeats, warmup, max_spread)
    asked = Load(rows, steps, positions, tokens, policy.runs)
    shape, count = find(synthetic or (), model), o.thread_count(threads)
    axes = read_axes(axis or (), shape, asked, count)
    check_dtype(dtype)
    made = [
        {"name": name, "points": measure_axis(name, values, shape, asked, dtype, count, policy, pin)}
        for name, values in axes.items()
    ]
    settings = {
        "model": shape.name, "dtype": dtype, **asked.settings(), "threads": count, "repeats": repeats,
        "max_spread": max_spread, "pin": pin, "axes": {name: list(values) for name, values in axes.items()},
    }  # fmt: skip
    o.Ending(out, plot, allow_unsteady)("scaling", settings, {"axes": made})


def read_axes(words: Sequence[str], shape: Shape, asked: Load, threads: int) -> dict[str, Sequence[Any]]:
    """The axes and their values. Raises `InvalidRequest` for an unknown axis or a value that cannot be measured."""
    room = shape.config.max_position_embeddings - (asked.last - asked.positions)
    axes: dict[str, Sequence[Any]] = {
        "rows": (1, 2, 4, 8, 16),
        "positions": tuple(sorted({min(n, room) for n in (128, 512, 2048, 8192)})),
        "threads": doubling(threads),
        "model": tuple(dict.fromkeys(("tiny", "200m", "1b"))),
    }
    if not words:
        return axes
    given: dict[str, Sequence[Any]] = {}
    for word in words:
        name, _, values = word.partition("=")
        if name not in AXES:
            raise InvalidRequest(f"--axis {word}: {name!r} is no axis; known are {', '.join(AXES)}")
        if not values:
            given[name] = axes[name]
        elif name == "model":
            given[name] = chosen(values, "--axis model=", NAMES)
        else:
            given[name] = whole(values, f"--axis {name}=")
    for value in given.get("rows", ()):
        replace(asked, rows=value)
    for value in given.get("positions", ()):
        replace(asked, positions=value).fits(shape.config)
    return given


def measure_axis(
    name: str, values: Sequence[Any], shape: Shape, asked: Load, dtype: str, threads: int, policy: Policy, pin: bool
) -> list[dict[str, Any]]:
    """The points of one axis, each named after its value."""
    if name in ("rows", "positions"):
        loads = [replace(asked, **{name: value}) for value in values]
        points = measure_points(load(shape, dtype), loads, threads, policy, pin)
    elif name == "threads":
        subject = load(shape, dtype)
        points = [point for n in values for point in measure_points(subject, [asked], o.thread_count(n), policy, pin)]
    else:
        points = [
            point for n in values for point in measure_points(load(named(n), dtype), [asked], threads, policy, pin)
        ]
    return [{"name": f"{name}={value}", "value": value, **point} for value, point in zip(values, points, strict=True)]
