"""`kernels`: every op of nextstep_rt.ops at models' shapes, against the measured roof."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from .. import options as o
from ..environment import last_cache
from ..floor import op_floor
from ..loop import Load, chosen, whole
from ..measure import MAX_SPREAD, Policy
from ..op_cases import Shapes
from ..pinning import pinned
from ..roofs import FROM_MEMORY, beside, sizes
from ..subject import check_dtype, find

MIN_SECONDS = 0.01
FLAGS = "--rows"
ManyShapes = Annotated[
    list[str] | None,
    typer.Option("--synthetic", metavar="SHAPE|KEY=VALUE", help="A shape, and again; default 14b and demo."),
]
ManyRows = Annotated[str, typer.Option(FLAGS, help="Rows, 1 to 16, commas between.")]
Ops = Annotated[str | None, typer.Option(help="Ops by name, commas between; default all of nextstep_rt.ops.")]
Threads = Annotated[
    int, typer.Option(help="Of linear and attention, which start them in each call; the other ops have one.")
]
MinSeconds = Annotated[float, typer.Option(help="Least seconds of a repeat: short ops are called again and again.")]


def kernels(
    synthetic: ManyShapes = None,
    ops: Ops = None,
    dtype: o.Dtype = "bfloat16",
    rows: ManyRows = "1,2,4,8,16",
    steps: o.Steps = 20,
    positions: o.Positions = 1024,
    threads: Threads = 1,
    min_seconds: MinSeconds = MIN_SECONDS,
    repeats: o.Repeats = 7,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    pin: o.Pin = True,
    out: o.Out = None,
    plot: o.Plot = False,
) -> None:
    """Every op: µs, GB/s, GFLOP/s and percent of the roof. A time includes the call from Python, about a µs or two."""
    policy, count = Policy(repeats, warmup, max_spread), o.thread_count(threads)
    wanted = op_names() if ops is None else chosen(ops, "--ops", op_names())
    shapes = [find([words]) for words in synthetic or ["14b", "demo"]]
    loads = [Load(n, steps, positions, 1) for n in whole(rows, FLAGS)]
    check_dtype(dtype)
    groups = []
    for shape in shapes:
        for asked in loads:
            cases = Shapes(shape.config, dtype, asked, count)
            groups.append(measure(shape.name, cases, wanted, dtype, policy, min_seconds, pin and count == 1))
    settings = {
        "model": ", ".join(shape.name for shape in shapes), "dtype": dtype, "steps": steps, "positions": positions,
        "threads": count, "repeats": repeats, "max_spread": max_spread, "pin": pin and count == 1,
    }  # fmt: skip
    o.Ending(out, plot, allow_unsteady)("kernels", settings, {"groups": groups})


def op_names() -> tuple[str, ...]:
    """Every function of nextstep_rt.ops."""
    from nextstep_rt import ops

    return tuple(name for name in ops.__all__ if not isinstance(getattr(ops, name), type))


def measure(
    model: str, shapes: Shapes, wanted: tuple[str, ...], dtype: str, policy: Policy, min_seconds: float, pin: bool
) -> dict[str, Any]:
    """The ops at one shape and number of rows, with the roofs of one thread and, where asked, of more beside them."""

    def work() -> list[tuple[Any, Any]]:
        found = []
        with pinned(on=pin):
            for case in shapes.all():
                if case.op in wanted:
                    # Without its arrays: those of all ops together may not fit.
                    found.append((replace(case, run=int), policy.measure(case.run, min_seconds)))
        return found

    at = sizes(shapes.threads, FROM_MEMORY * last_cache())
    (done, many) = beside(shapes.threads, dtype, policy, at, work)
    # Ops without threads are held against what one thread can do.
    one = many if shapes.threads == 1 else beside(1, dtype, policy, sizes(1), lambda: None)[1]
    made = []
    for case, sample in done:
        roofs = (many if case.threads else one).roofs
        made.append({
            "name": f"{case.op} {case.what}", "op": case.op, "what": case.what, "seconds": sample.to_json(),
            "bytes": case.bytes, "flops": case.flops, "resident_bytes": case.resident,
            "threads": shapes.threads if case.threads else 1,
            "floor_seconds": op_floor(case.bytes, case.flops, roofs, case.resident) if roofs.steady else None,
        })  # fmt: skip
    return {"name": f"{model}, {shapes.rows} rows", "model": model, "rows": shapes.rows, "ops": made,
            "roofs": many.to_json()}  # fmt: skip
