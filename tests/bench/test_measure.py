"""Statistics of times, the refusal, pairs, and threads on cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from bench.measure import MAX_CALLS, Policy, Sample, Unsteady, measure, paired, quantile
from bench.pinning import limited, pinned, threads_of, usable_cores
from nextstep_rt import Error, InvalidRequest


class Clock:
    """Time that passes only where something takes it."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, 0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.calls += 1


def test_quantiles_are_linear_between_neighbours() -> None:
    values = [4.0, 1.0, 3.0, 2.0, 5.0]
    assert [quantile(values, q) for q in (0, 0.1, 0.5, 0.9, 1)] == pytest.approx([1, 1.4, 3, 4.6, 5])
    assert quantile([7.0], 0.9) == 7
    for wrong in ([], [1.0]):
        with pytest.raises(InvalidRequest):
            quantile(wrong, 2 if wrong else 0.5)


def test_a_sample_claims_its_median_only_within_the_spread() -> None:
    steady = Sample((1.0, 1.01, 0.99, 1.02, 1.0))
    assert steady.steady
    assert steady.figure == steady.claim("it") == 1.0
    assert steady.to_json() == {
        "median": 1.0, "min": 0.99, "max": 1.02, "spread": round(steady.spread, 4), "steady": True,
        "samples": [1.0, 1.01, 0.99, 1.02, 1.0],
    }  # fmt: skip
    wild = Sample((1.0, 1.0, 1.0, 2.0, 3.0))
    assert wild.spread == pytest.approx(1.6)
    assert wild.figure is None
    told = wild.to_json()
    assert (told["median"], told["steady"], told["samples"]) == (None, False, [1.0, 1.0, 1.0, 2.0, 3.0])
    with pytest.raises(Unsteady, match=r"the read is unsteady: its spread is 1\.60, more than 0\.25"):
        wild.claim("the read")
    assert Sample(wild.values, max_spread=2.0).figure == 1.0
    assert not Sample((0.0, 0.0)).steady
    assert "minor" not in wild.part_of(Sample((50.0,)))
    assert wild.part_of(Sample((500.0,)))["minor"]
    assert issubclass(Unsteady, Error)


def test_short_calls_are_repeated_until_the_clock_can_tell() -> None:
    clock = Clock()
    sample = measure(lambda: clock.work(1e-4), warmup=2, repeats=3, min_seconds=0.01, clock=clock)
    assert sample.values == pytest.approx([1e-4] * 3)
    assert clock.calls > 300  # 100 calls a repeat, and what it took to learn that
    clock = Clock()
    assert measure(lambda: clock.work(1.0), 1, 4, clock=clock).values == (1, 1, 1, 1)
    assert clock.calls == 5
    frozen = Clock()
    measure(lambda: None, 0, 1, min_seconds=1e-3, clock=frozen)  # a clock that stands ends too
    assert MAX_CALLS >= 1000


def test_pairs_alternate_who_goes_first() -> None:
    order: list[str] = []

    def timed(name: str, values: Iterator[float]) -> float:
        order.append(name)
        return next(values)

    a, b = iter([1.0, 2.0, 1.0, 9.0]), iter([3.0, 6.0, 3.0, 9.0])
    pairs = paired(lambda: timed("a", a), lambda: timed("b", b), 3)
    assert "".join(order) == "abbaab"
    assert pairs.ratio.values == (3, 3, 3)
    assert pairs.a.values == (1, 2, 1)
    assert not pairs.a.steady  # the times move with the machine, the ratios do not
    assert pairs.ratio.figure == 3


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"warmup": -1}, {"max_spread": 0.0}, {"max_spread": float("nan")}])
def test_policies_that_measure_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequest, match="--"):
        Policy(**wrong)  # type: ignore[arg-type]
    for wrong_call in (lambda: measure(int, repeats=0), lambda: paired(float, float, 0)):
        with pytest.raises(InvalidRequest, match="0 repeats"):
            wrong_call()


needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")


@needs_affinity
def test_threads_are_pinned_and_given_back() -> None:
    stop = threading.Event()
    thread, workers = threads_of(lambda: threading.Thread(target=stop.wait))
    assert workers == ()
    _, workers = threads_of(thread.start)
    before = [os.sched_getaffinity(id) for id in (0, *workers)]
    assert len(workers) == 1
    with pinned(workers) as done:
        inside = [os.sched_getaffinity(id) for id in (0, *workers)]
    assert [os.sched_getaffinity(id) for id in (0, *workers)] == before
    if done:
        assert all(len(cores) == 1 for cores in inside)
        assert inside[0] != inside[1]
    with pinned(workers, on=False) as done:
        assert not done
    stop.set()
    thread.join()


@needs_affinity
def test_more_threads_than_cores_are_left_alone() -> None:
    before = os.sched_getaffinity(0)
    with pinned(range(1, 10_000)) as done:
        assert not done
        assert os.sched_getaffinity(0) == before
    with limited(1):
        assert len(os.sched_getaffinity(0)) == 1
    with limited(10_000):
        assert os.sched_getaffinity(0) == before
    assert set(usable_cores()) == before
