"""`decode`: the whole loop, time per token and per stage against the floor of this machine."""

from __future__ import annotations

from typing import Any

from .. import native
from .. import options as o
from ..floor import Roofs, Stage, claimed_floor, token_floors
from ..loop import Load, stage_times, token_seconds
from ..measure import MAX_SPREAD, Policy, Sample
from ..pinning import pinned, threads_of
from ..roofs import beside, needed_sizes
from ..subject import Subject, check_dtype, find, load


def decode(
    synthetic: o.Synthetic = None,
    model: o.Model = None,
    dtype: o.Dtype = "bfloat16",
    rows: o.Rows = 2,
    steps: o.Steps = 20,
    positions: o.Positions = 32,
    tokens: o.Tokens = 16,
    threads: o.Threads = None,
    repeats: o.Repeats = 7,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    pin: o.Pin = True,
    out: o.Out = None,
    plot: o.Plot = False,
) -> None:
    """Milliseconds per image token, split by stage, beside what this machine's roofs allow at least."""
    asked, policy = Load(rows, steps, positions, tokens), Policy(repeats, warmup, max_spread)
    shape, count = find(synthetic or (), model), o.thread_count(threads)
    asked.fits(shape.config)
    subject = load(shape, check_dtype(dtype))
    data = measure(subject, asked, count, policy, pin)
    settings = {
        "model": subject.name, "dtype": dtype, **asked.settings(), "threads": count, "repeats": repeats,
        "max_spread": max_spread, "pin": pin,
    }  # fmt: skip
    o.Ending(out, plot, allow_unsteady)("decode", settings, data)


def measure(subject: Subject, asked: Load, threads: int, policy: Policy, pin: bool) -> dict[str, Any]:
    """The figures of one load. The stages come from runs of their own: their clock costs a little."""
    engine, workers = threads_of(lambda: subject.engine(threads))
    stages = native.stages(subject.config, subject.dtype, asked.rows, asked.steps, asked.middle)
    sizes = needed_sizes([stage.different for stage in stages.values()])

    def work() -> tuple[Sample, Sample, dict[str, Sample], bool]:
        with pinned(workers, pin) as done:
            for _ in range(policy.warmup):
                token_seconds(engine, asked)
            plain, clocked = [], []
            for _ in range(policy.repeats):  # in turn: what else the machine does meets both
                plain.append(token_seconds(engine, asked))
                clocked.append(stage_times(engine, asked))
            return (
                Sample(tuple(plain), policy.max_spread),
                Sample(tuple(sum(times.values()) for times in clocked), policy.max_spread),
                {name: Sample(tuple(times[name] for times in clocked), policy.max_spread) for name in clocked[0]},
                done,
            )

    (token, sum_of_stages, times, done), measured = beside(threads, subject.dtype, policy, sizes, work)
    return {
        "backend": engine.backend,
        "weights": subject.what,
        "pinned": done,
        "token": token.to_json(),
        "clocked": sum_of_stages.to_json(),
        "stages": stage_figures(times, stages, measured.roofs, sum_of_stages),
        "floor_seconds": claimed_floor(stages, measured.roofs, min(token.values)),
        "roofs": measured.to_json(),
        "memory": dict(engine.memory()),
    }


def stage_figures(times: dict[str, Sample], stages: dict[str, Stage], roofs: Roofs, whole: Sample) -> dict[str, Any]:
    """Every stage's time beside its cost and floor; a stage the cost model has none for, e.g. a rest, has no floor."""
    floors = token_floors(stages, roofs)
    return {
        name: {
            "seconds": times[name].part_of(whole) if name in times else None,
            "bytes": stages[name].bytes if name in stages else None,
            "flops": stages[name].flops if name in stages else None,
            "exchanges": stages[name].exchanges if name in stages else None,
            "floor": floors[name].to_json() if name in stages else None,
        }
        for name in dict.fromkeys([*times, *stages])
    }
