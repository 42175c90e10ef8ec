"""`sweep`: every combination of dtypes, rows, threads, steps and shapes of `decode`."""

from __future__ import annotations

from itertools import product
from typing import Annotated, Any

import typer

from nextstep_rt import InvalidRequest

from .. import options as o
from ..loop import Load, chosen, whole
from ..measure import MAX_SPREAD, Policy
from ..points import measure_points
from ..subject import DTYPES, find, load
from ..tables import case_of

MOST = 256  # points of one run
_MANY = "commas between."
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--synthetic",
        metavar="SHAPE|KEY=VALUE",
        help='A shape, and again, e.g. "200m num_hidden_layers=8".',
    ),
]
Dtypes = Annotated[str, typer.Option("--dtype", help=f"bfloat16, float32, {_MANY}")]
ManyRows = Annotated[str, typer.Option("--rows", help=f"Images x guidance branches, {_MANY}")]
ManySteps = Annotated[str, typer.Option("--steps", help=f"Solver steps, {_MANY}")]
ManyThreads = Annotated[str | None, typer.Option("--threads", help=f"Threads, {_MANY} Default all cores.")]


def sweep(
    synthetic: Shapes = None,
    dtype: Dtypes = "bfloat16,float32",
    rows: ManyRows = "1,2,4",
    steps: ManySteps = "20",
    threads: ManyThreads = None,
    positions: o.Positions = 32,
    tokens: o.Tokens = 8,
    repeats: o.Repeats = 5,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    pin: o.Pin = True,
    out: o.Out = None,
    plot: o.Plot = False,
) -> None:
    """Time per token at every combination of dtypes, rows, threads, steps and shapes."""
    policy = Policy(repeats, warmup, max_spread)
    shapes = [find([words]) for words in synthetic or ["200m"]]
    dtypes = chosen(dtype, "--dtype", tuple(DTYPES))
    counts = (o.thread_count(None),) if threads is None else whole(threads, "--threads")
    loads = [
        Load(r, s, positions, tokens, policy.runs) for r, s in product(whole(rows, "--rows"), whole(steps, "--steps"))
    ]
    total = len(shapes) * len(dtypes) * len(counts) * len(loads)
    if total > MOST:
        raise InvalidRequest(f"the grid has {total} points, more than {MOST}: give fewer values")
    for shape, one in product(shapes, loads):
        one.fits(shape.config)
    points: list[dict[str, Any]] = []
    for shape, kind in product(shapes, dtypes):
        subject = load(shape, kind)
        for count in counts:
            points += measure_points(subject, loads, o.thread_count(count), policy, pin)
    settings = {
        "model": ", ".join(shape.name for shape in shapes), "dtype": "-".join(dtypes), "positions": positions,
        "tokens": tokens, "repeats": repeats, "max_spread": max_spread, "pin": pin,
    }  # fmt: skip
    o.Ending(out, plot, allow_unsteady)("sweep", settings, {"points": [named(point) for point in points]})


def named(point: dict[str, Any]) -> dict[str, Any]:
    """The point with a name that tells it from the others."""
    s = point["settings"]
    return {"name": case_of(s), **point}
