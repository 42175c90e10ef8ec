"""Several loads of the decode loop in one run, as `scaling` and `sweep` measure them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import native
from .floor import claimed_floor
from .loop import Load, runs_after_prefill
from .measure import Policy, Sample
from .pinning import pinned, threads_of
from .roofs import beside, needed_sizes
from .subject import Subject, cache_bytes, head_bytes, weight_bytes


def memory_of(subject: Subject, asked: Load) -> int:
    """Bytes the cost model counts: weights, keys and values, the head's modulations."""
    return (
        weight_bytes(subject.config, subject.dtype)
        + cache_bytes(subject.config, subject.dtype, asked.rows, asked.last)
        + head_bytes(subject.config, asked.rows, asked.steps)
    )


def measure_points(
    subject: Subject, loads: Sequence[Load], threads: int, policy: Policy, pin: bool
) -> list[dict[str, Any]]:
    """Each load's time per token, floor and memory, on one engine; the roofs are measured beside all of them.

    A load's `runs` are the policy's warm-ups and repeats.
    """
    engine, workers = threads_of(lambda: subject.engine(threads))
    stages = [native.stages(subject.config, subject.dtype, x.rows, x.steps, x.middle) for x in loads]
    largest = max(stages, key=lambda one: sum(stage.different for stage in one.values()))
    sizes = needed_sizes([stage.different for stage in largest.values()])

    def work() -> list[tuple[Sample, dict[str, int]]]:
        done = []
        with pinned(workers, pin):
            for asked in loads:
                sample = policy.collect(runs_after_prefill(engine, asked))
                done.append((sample, engine.plan(asked.rows, asked.last, asked.steps)))
        return done

    samples, measured = beside(threads, subject.dtype, policy, sizes, work)
    roofs = measured.roofs
    return [
        {
            "settings": {"model": subject.name, "dtype": subject.dtype, "threads": threads, **asked.settings()},
            "token": sample.to_json(),
            "floor_seconds": claimed_floor(one, roofs, min(sample.values)),
            "bytes": sum(stage.bytes for stage in one.values()),
            "memory_bytes": sum(used[key] for key in ("weights", "converted", "kv_cache", "scratch")),
            "model_bytes": memory_of(subject, asked),
            "memory_bandwidth": roofs.memory if roofs.steady else None,
        }
        for asked, one, (sample, used) in zip(loads, stages, samples, strict=True)
    ]
