"""The one place where time is taken: repeats, their spread, pairs, and the refusal to claim what is not steady.

All times are seconds. A figure is a median; it is claimed only where the spread, (p90 - p10) / median, is within a
limit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nextstep_rt import Error, InvalidRequest

MAX_SPREAD = 0.25  # the limit unless --max-spread says otherwise
MINOR = 0.01  # of the whole: what is shorter may be unsteady without the run being so
MAX_CALLS = 1 << 20  # of one repeat


class Unsteady(Error):  # noqa: N818 - says what the times are
    """Times spread too widely for a figure; the message names what and how widely."""


def quantile(values: Sequence[float], q: float) -> float:
    """The q-quantile, linear between neighbours. Raises `InvalidRequest` for no values, or q outside 0..1."""
    if not values or not 0 <= q <= 1:
        raise InvalidRequest(f"no {q:g}-quantile of {len(values)} values")
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@dataclass(frozen=True)
class Sample:
    """Repeats of one measurement, in seconds (or ratios of two), and the widest spread that still gives a figure."""

    values: tuple[float, ...]
    max_spread: float = MAX_SPREAD

    @property
    def median(self) -> float:
        """Of all repeats, steady or not; see `figure`."""
        return quantile(self.values, 0.5)

    @property
    def spread(self) -> float:
        """(p90 - p10) / median; infinite where the median is not positive."""
        if self.median <= 0:
            return float("inf")
        return (quantile(self.values, 0.9) - quantile(self.values, 0.1)) / self.median

    @property
    def steady(self) -> bool:
        """Whether a figure may be claimed."""
        return self.spread <= self.max_spread

    @property
    def figure(self) -> float | None:
        """The median, or None where the repeats are unsteady."""
        return self.median if self.steady else None

    def claim(self, what: str) -> float:
        """The median. Raises `Unsteady` naming `what` and the spread."""
        if not self.steady:
            raise Unsteady(f"{what} is unsteady: its spread is {self.spread:.2f}, more than {self.max_spread:g}")
        return self.median

    def part_of(self, whole: Sample) -> dict[str, Any]:
        """As to_json, and "minor" where it is so small a part of `whole` that its spread matters to nobody."""
        return {**self.to_json(), **({"minor": True} if self.median < MINOR * whole.median else {})}

    def to_json(self) -> dict[str, Any]:
        """What results keep: the median is null where it is not claimed."""
        return {
            "median": self.figure,
            "min": min(self.values),
            "max": max(self.values),
            "spread": round(self.spread, 4) if self.median > 0 else None,
            "steady": self.steady,
            "samples": list(self.values),
        }


@dataclass(frozen=True)
class Policy:
    """How a command measures: repeats of everything, runs before the clock counts, the widest spread."""

    repeats: int = 5
    warmup: int = 1
    max_spread: float = MAX_SPREAD

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.warmup < 0:
            raise InvalidRequest(f"--repeats is {self.repeats} and --warmup {self.warmup}: at least 1 and 0")
        if not self.max_spread > 0:
            raise InvalidRequest(f"--max-spread is {self.max_spread:g}: it must be above 0, e.g. 0.25")

    @property
    def runs(self) -> int:
        """Warm-ups and repeats."""
        return self.warmup + self.repeats

    def collect(self, timed: Callable[[], float]) -> Sample:
        """Repeats of a function that takes the time itself and returns it in seconds."""
        for _ in range(self.warmup):
            timed()
        return Sample(tuple(timed() for _ in range(self.repeats)), self.max_spread)

    def measure(
        self, run: Callable[[], Any], min_seconds: float = 0.0, clock: Callable[[], float] = time.perf_counter
    ) -> Sample:
        """Seconds of one call of `run`; each repeat calls it as often as fills `min_seconds`."""
        return measure(run, self.warmup, self.repeats, min_seconds, self.max_spread, clock)


def measure(
    run: Callable[[], Any],
    warmup: int = 1,
    repeats: int = 5,
    min_seconds: float = 0.0,
    max_spread: float = MAX_SPREAD,
    clock: Callable[[], float] = time.perf_counter,
) -> Sample:
    """Seconds of one call of `run`, `repeats` times.

    A repeat is one call, or as many as fill `min_seconds` by the time of the calls before it: what is shorter than the
    clock can tell is averaged over them. Raises `InvalidRequest` for fewer than one repeat.
    """
    if repeats < 1:
        raise InvalidRequest(f"{repeats} repeats: there must be one at least")

    def timed(calls: int) -> float:
        begin = clock()
        for _ in range(calls):
            run()
        return clock() - begin

    for _ in range(warmup):
        run()
    calls = 1
    if min_seconds > 0:
        taken = timed(1)
        while taken < min_seconds and calls < MAX_CALLS:
            grown = 10 * calls if taken <= 0 else int(1.2 * calls * min_seconds / taken) + 1
            calls = min(MAX_CALLS, max(calls + 1, min(grown, 10 * calls)))
            taken = timed(calls)
    return Sample(tuple(timed(calls) / calls for _ in range(repeats)), max_spread)


@dataclass(frozen=True)
class Paired:
    """Two things measured in turn, and the ratio b / a of each turn: above 1 where `a` is faster."""

    a: Sample
    b: Sample
    ratio: Sample

    def to_json(self) -> dict[str, Any]:
        """What results keep."""
        return {"a": self.a.to_json(), "b": self.b.to_json(), "ratio": self.ratio.to_json()}


def paired(
    a: Callable[[], float], b: Callable[[], float], repeats: int = 5, max_spread: float = MAX_SPREAD, warmup: int = 0
) -> Paired:
    """Alternates two functions that return their own seconds; who goes first alternates too.

    What else the machine does meets both, so that ratios hold where times alone would not. Raises `InvalidRequest` for
    fewer than one repeat.
    """
    if repeats < 1:
        raise InvalidRequest(f"{repeats} repeats: there must be one at least")
    for _ in range(warmup):
        a(), b()
    pairs = []
    for turn in range(repeats):
        if turn % 2:
            second, first = b(), a()
        else:
            first, second = a(), b()
        pairs.append((first, second))
    columns = tuple(zip(*pairs, strict=True))
    ratios = tuple(second / first for first, second in pairs)
    return Paired(*(Sample(values, max_spread) for values in (*columns, ratios)))
