"""The roofs: figures that could be true, whatever the machine's load, and refusals."""

from __future__ import annotations

import pytest

from nextstep_rt import InvalidRequest, _core

roofs = _core.roofs
THREADS = (1, 2, 3)


@pytest.mark.parametrize("threads", THREADS)
def test_reading_takes_time_in_proportion_to_the_bytes(threads: int) -> None:
    few, many = (min(roofs.read_seconds(size, threads) for _ in range(3)) for size in (1 << 14, 1 << 25))
    assert few > 0
    assert (1 << 25) / many < 1e13  # no machine reads 10 TB/s: the loop was not optimised away
    assert many > 20 * few  # 2,048 times the bytes


def test_copying_is_no_faster_than_reading() -> None:
    size = 1 << 26
    read, copy = (min(f(size, 1) for _ in range(3)) for f in (roofs.read_seconds, roofs.copy_seconds))
    assert copy > 0.8 * read


def test_operations() -> None:
    floats = max(roofs.peak_flops("float32", 1) for _ in range(3))
    assert 1e8 < floats < 1e13
    if not _core.isa().endswith("_bf16"):
        with pytest.raises(InvalidRequest, match=f"{_core.isa()} has no dot product of bfloat16; ask for float32"):
            roofs.peak_flops("bfloat16", 1)
    else:
        assert 1e8 < roofs.peak_flops("bfloat16", 1) < 1e14


@pytest.mark.parametrize("threads", THREADS)
def test_meeting_costs_something(threads: int) -> None:
    assert 0 < roofs.barrier_seconds(threads) < 1
    assert 0 < roofs.pool_wake_seconds(threads) < 1


def test_refusals() -> None:
    with pytest.raises(InvalidRequest, match="threads is 0; at least 1"):
        roofs.barrier_seconds(0)
    with pytest.raises(InvalidRequest, match="threads is 5000"):
        roofs.pool_wake_seconds(5000)
    with pytest.raises(InvalidRequest, match="1000 bytes is too small for 2 threads; give it at least 1024"):
        roofs.read_seconds(1000, 2)
    with pytest.raises(InvalidRequest, match="-1 bytes"):
        roofs.copy_seconds(-1, 1)
    with pytest.raises(InvalidRequest, match="float8"):
        roofs.peak_flops("float8", 1)
    with pytest.raises(InvalidRequest, match="does not fit"):
        roofs.read_seconds(1 << 60, 1)
