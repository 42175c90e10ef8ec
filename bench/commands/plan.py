"""`plan`: milliseconds per token and memory of a model that need not be here, from roofs alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nextstep_rt import InvalidRequest

from .. import native
from .. import options as o
from ..environment import last_cache
from ..floor import Roofs, token_floors
from ..loop import Load
from ..measure import MAX_SPREAD, Policy
from ..results import read
from ..roofs import measure_roofs, needed_sizes
from ..subject import cache_bytes, check_dtype, find, head_bytes, weight_bytes

Bandwidth = Annotated[
    float | None, typer.Option(help="GB/s of reading memory, in place of measuring; needs --peak.", metavar="GB/S")
]
Peak = Annotated[float | None, typer.Option(help="GFLOP/s in this dtype, with --bandwidth.", metavar="GFLOP/S")]
Barrier = Annotated[float, typer.Option(help="Microseconds of one exchange among the threads, with --bandwidth.")]
Calibrate = Annotated[
    Path | None,
    typer.Option(
        metavar="DECODE.json", help="A result of `decode`: each stage is taken to miss its floor as much as there."
    ),
]


def plan(
    synthetic: o.Synthetic = None,
    model: o.Model = None,
    dtype: o.Dtype = "bfloat16",
    rows: o.Rows = 2,
    steps: o.Steps = 28,
    positions: o.Positions = 256,
    tokens: o.Tokens = 1024,
    threads: o.Threads = None,
    bandwidth: Bandwidth = None,
    peak: Peak = None,
    barrier: Barrier = 0.0,
    calibrate: Calibrate = None,
    repeats: o.Repeats = 5,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    out: o.Out = None,
) -> None:
    """Least milliseconds per token and the memory of a model, without running it.

    The roofs are measured on this machine, or given by --bandwidth and --peak for another one.
    """
    asked, shape = Load(rows, steps, positions, tokens), find(synthetic or (), model)
    asked.fits(shape.config)
    stages = native.stages(shape.config, check_dtype(dtype), rows, steps, asked.middle)
    count = o.thread_count(threads)
    if bandwidth is None:
        sizes = needed_sizes([stage.different for stage in stages.values()])
        measured = measure_roofs(count, dtype, Policy(repeats, warmup, max_spread), sizes)
        roofs, origin = measured.roofs, measured.to_json()
    else:
        roofs = given_roofs(bandwidth, peak, barrier)
        origin = {"threads": None, "dtype": dtype, "roofs": roofs.to_json()}
    floors = token_floors(stages, roofs)
    misses = {} if calibrate is None else read_misses(calibrate)
    predicted = {name: floor.seconds * misses.get(name, 1.0) for name, floor in floors.items()}
    data = {
        "stages": {
            name: {
                "bytes": stages[name].bytes, "flops": stages[name].flops, "exchanges": stages[name].exchanges,
                "floor": floor.to_json(), "predicted_seconds": predicted[name],
            }
            for name, floor in floors.items()
        },
        "floor_seconds": sum(floor.seconds for floor in floors.values()) + roofs.wake,
        "predicted_seconds": sum(predicted.values()) + roofs.wake if misses else None,
        "memory": {
            "weights": weight_bytes(shape.config, dtype),
            "kv_cache": cache_bytes(shape.config, dtype, rows, asked.last),
            "modulations": head_bytes(shape.config, rows, steps),
        },
        "roofs": origin,
    }  # fmt: skip
    settings = {
        "model": shape.name, "dtype": dtype, **asked.settings(), "threads": None if bandwidth else count,
        "repeats": repeats, "max_spread": max_spread, "calibrated": calibrate is not None,
    }  # fmt: skip
    o.Ending(out, False, allow_unsteady)("plan", settings, data)


def given_roofs(bandwidth: float, peak: float | None, barrier: float) -> Roofs:
    """Roofs as the user states them: one bandwidth at every size. Raises `InvalidRequest`."""
    if peak is None:
        raise InvalidRequest("--bandwidth needs --peak, GFLOP/s in this dtype, or leave both out to measure them")
    for flag, value in (("--bandwidth", bandwidth), ("--peak", peak)):
        if not 0 < value < 1e9:
            raise InvalidRequest(f"{flag} is {value:g}: it must be above 0, in billions a second")
    if not 0 <= barrier < 1e6:
        raise InvalidRequest(f"--barrier is {barrier:g}: give microseconds, 0 or more")
    return Roofs(((last_cache(), 1e9 * bandwidth),), 1e9 * peak, 1e-6 * barrier, llc=last_cache())


def read_misses(path: Path) -> dict[str, float]:
    """How many times its floor each stage took in a result of `decode`; what is unsteady there is left out."""
    record: dict[str, Any] = read(path)
    if record["command"] != "decode":
        raise InvalidRequest(f"--calibrate {path} is a result of {record['command']}: give one of `decode`")
    if record["data"]["floor_seconds"] is None:
        raise InvalidRequest(f"--calibrate {path} claims no floor: measure it again on a quieter machine")
    found = {}
    for name, stage in record["data"]["stages"].items():
        seconds, floor = stage["seconds"], stage["floor"]
        if seconds and floor and seconds["median"] and floor["seconds"]:
            found[name] = seconds["median"] / floor["seconds"]
    if not found:
        raise InvalidRequest(f"--calibrate {path} has no steady stage with a floor: measure it again")
    return found
