"""What the native module measures is of the right kind; how fast it is, no test says."""

from __future__ import annotations

from bench import native
from bench.floor import token_floor
from bench.loop import Load, stage_times, token_seconds
from bench.measure import Policy
from bench.roofs import beside, measure_roofs, needed_sizes, sizes
from bench.subject import load, named
from bench.synthetic import config_of
from nextstep_rt import _core

ONCE = Policy(repeats=2, warmup=0, max_spread=1e9)


def test_roofs_are_measured() -> None:
    measured = measure_roofs(2, "bfloat16", ONCE, [1 << 16, 1 << 20])
    roofs = measured.roofs
    assert [size for size, _ in roofs.reads] == [1 << 16, 1 << 20]
    assert 1e8 < roofs.memory < 1e14
    assert 1e8 < roofs.flops < 1e16
    assert roofs.barrier > 0
    assert roofs.wake > 0
    assert native.copy_seconds(1 << 16, 1) > 0
    done, both = beside(1, "float32", ONCE, [1 << 16], lambda: "done")
    assert done == "done"
    assert len(both.flops.values) == len(both.reads[1 << 16].values) == 4
    assert both.roofs.flops == max(both.flops.values)


def test_sizes_reach_from_the_first_cache_to_memory() -> None:
    assert sizes(1, 1 << 30)[-1] == 1 << 30
    assert sizes(4, 1 << 30) == sorted(sizes(4, 1 << 30))
    assert needed_sizes([100, 1 << 20], 1 << 24) == [16 << 10, 1 << 20, (1 << 20) + 100, 1 << 24]


def test_stages_have_the_costs_of_the_token() -> None:
    config = config_of("14b")
    stages = native.stages(config, "bfloat16", 2, 28, 256)
    assert sum(stage.bytes for stage in stages.values()) == _core.token_cost(config, "bfloat16", 2, 28, 256)["total"]
    steps = stages["fm_steps"]
    assert steps.bytes == 28 * steps.different
    assert steps.exchanges % 28 == 0
    assert all(stage.bytes == stage.different for name, stage in stages.items() if name != "fm_steps")


def test_the_stages_clocked_are_those_of_the_cost_model() -> None:
    subject, asked = load(named("tiny"), "float32"), Load(2, 3, 8, 4)
    engine = subject.engine(1)
    times = stage_times(engine, asked)
    stages = native.stages(subject.config, "float32", asked.rows, asked.steps, asked.middle)
    assert set(times) == set(stages)
    assert all(seconds >= 0 for seconds in times.values())
    assert sum(times.values()) > 0
    roofs = measure_roofs(1, "float32", ONCE, needed_sizes([s.different for s in stages.values()], 1 << 20)).roofs
    assert token_floor(stages, roofs) > 0
    assert token_seconds(engine, asked) > 0
