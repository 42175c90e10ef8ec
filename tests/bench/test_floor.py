"""What a floor is, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from bench.floor import Roofs, Stage, claimed_floor, op_floor, stage_floor, token_floor, token_floors
from nextstep_rt import InvalidRequest

MIB = 1 << 20
# 100 GB/s from 1 MiB, 40 GB/s from 16 MiB, 10 GB/s from 256 MiB; 1 TFLOP/s; 1 µs a barrier; a cache of 32 MiB.
ROOFS = Roofs(((MIB, 100e9), (16 * MIB, 40e9), (256 * MIB, 10e9)), 1e12, 1e-6, 5e-6, 32 * MIB)


def test_bandwidth_is_log_linear_and_flat_beyond_what_was_measured() -> None:
    assert ROOFS.bandwidth(1) == ROOFS.bandwidth(MIB) == 100e9
    assert ROOFS.bandwidth(4 * MIB) == pytest.approx(math.sqrt(100e9 * 40e9))
    assert ROOFS.bandwidth(16 * MIB) == pytest.approx(40e9)
    assert ROOFS.bandwidth(1 << 40) == ROOFS.memory == 10e9
    assert Roofs(ROOFS.reads[::-1], 1.0).reads == ROOFS.reads


def test_weights_read_once_stream_from_memory() -> None:
    floor = stage_floor(Stage(bytes=320 * MIB, flops=10**9, exchanges=7), ROOFS, 400 * MIB)
    assert (floor.bound, floor.seconds) == ("memory", pytest.approx(320 * MIB / 10e9))


def test_weights_read_in_every_step_live_in_the_cache() -> None:
    """16 MiB in 20 steps: the first time from memory, 19 times at the bandwidth of 16 MiB."""
    stage = Stage(bytes=20 * 16 * MIB, unique=16 * MIB)
    floor = stage_floor(stage, ROOFS, 400 * MIB)
    assert floor.seconds == pytest.approx(16 * MIB / 10e9 + 19 * 16 * MIB / 40e9)
    assert floor.bound == "cache"
    # Where the whole token fits in the cache, nothing comes from memory.
    small = stage_floor(stage, ROOFS, 16 * MIB)
    assert (small.bound, small.seconds) == ("cache", pytest.approx(20 * 16 * MIB / 40e9))
    assert stage_floor(Stage(bytes=MIB), ROOFS, MIB).bound == "cache"


def test_arithmetic_or_exchanges_may_bind() -> None:
    assert stage_floor(Stage(bytes=MIB, flops=10**12), ROOFS, MIB).bound == "compute"
    floor = stage_floor(Stage(bytes=100, flops=100, exchanges=500), ROOFS, MIB)
    assert (floor.bound, floor.seconds) == ("exchange", pytest.approx(500e-6))
    assert floor.to_json()["bounds"]["exchange"] == pytest.approx(500e-6)


def test_a_token_is_the_sum_of_its_stages_and_a_wake() -> None:
    stages = {"backbone": Stage(bytes=256 * MIB), "fm": Stage(bytes=4 * MIB, unique=MIB), "none": Stage()}
    floors = token_floors(stages, ROOFS)
    first = ROOFS.bandwidth(257 * MIB)
    assert floors["backbone"].seconds == pytest.approx(256 * MIB / first)
    assert floors["fm"].seconds == pytest.approx(MIB / first + 3 * MIB / 100e9)
    assert floors["none"].seconds == 0
    assert token_floor(stages, ROOFS) == pytest.approx(sum(f.seconds for f in floors.values()) + 5e-6)


def test_a_floor_that_a_token_went_below_is_not_claimed() -> None:
    stages = {"backbone": Stage(bytes=256 * MIB)}
    floor = token_floor(stages, ROOFS)
    assert claimed_floor(stages, ROOFS, 2 * floor) == claimed_floor(stages, ROOFS, floor) == floor
    assert claimed_floor(stages, ROOFS, 0.9 * floor) is None
    assert claimed_floor(stages, replace(ROOFS, steady=False), 2 * floor) is None


def test_an_op_is_held_against_where_its_arrays_live() -> None:
    assert op_floor(MIB, 1000, ROOFS) == pytest.approx(MIB / 100e9)
    assert op_floor(MIB, 1000, ROOFS, resident=256 * MIB) == pytest.approx(MIB / 10e9)
    assert op_floor(MIB, 10**12, ROOFS) == 1


def test_roofs_survive_a_file() -> None:
    assert Roofs.from_json(ROOFS.to_json()) == ROOFS
    for damage in ({"flops": None}, {"reads": []}, {"reads": [{"bytes": 1}]}, {"flops": -1.0}):
        with pytest.raises(InvalidRequest, match="roofs"):
            Roofs.from_json({**ROOFS.to_json(), **damage})


@pytest.mark.parametrize("wrong", [((), 1.0), (((0, 1.0),), 1.0), (((1, -1.0),), 1.0), (((1, 1.0),), 0.0)])
def test_roofs_that_are_none_are_refused(wrong: tuple[Any, float]) -> None:
    with pytest.raises(InvalidRequest, match="above 0"):
        Roofs(*wrong)
