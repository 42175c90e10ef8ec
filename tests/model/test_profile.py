"""The clock of the stages: it changes no bit, counts what the cost model counts, and loses no time."""

from __future__ import annotations

import time

import numpy as np
import pytest
from kit.compare import assert_same_bits
from kit.models import config_of, generate, random_weights, request, sampling

from nextstep_rt import Engine, InvalidRequest, _core

TOKENS = 4
STAGES = (
    "noise", "image_in", "norm_qkv", "rope_append", "attention", "attn_out", "mlp", "condition", "fm_modulation",
    "fm_steps", "finish", "other",
)  # fmt: skip


def engine(threads: int) -> Engine:
    config = config_of()
    return Engine(config, random_weights(config), dtype="float32", threads=threads)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("solver", ["euler", "heun", "sde"])
def test_profiling_changes_no_bit_and_counts_as_the_cost_model(threads: int, solver: str) -> None:
    made = engine(threads)
    params = sampling(num_tokens=TOKENS, solver=solver, num_inference_steps=3, branches=2, guidance_scale=2.0)
    given = request(made.config, params, images=1)
    plain = generate(made, params, given)
    made.profile(True)
    begin = time.perf_counter()
    profiled = generate(made, params, given)
    wall = time.perf_counter() - begin
    assert_same_bits(profiled, plain)

    seconds, barriers = made.stage_seconds(), made.stage_barriers()
    assert set(seconds) == set(barriers) == set(STAGES)
    assert all(value >= 0 for value in seconds.values())
    assert 0 < sum(seconds.values()) <= wall
    assert seconds["fm_steps"] > 0
    assert seconds["mlp"] > 0
    evaluations = {"euler": 3, "heun": 5, "sde": 3}[solver]
    cost = _core.stage_cost(made.config, "float32", 2, evaluations, 8)
    backbone = ("image_in", "norm_qkv", "rope_append", "attention", "attn_out", "mlp")
    for name in STAGES:  # the first token needs no pass of the backbone
        assert barriers[name] == cost[name]["barriers"] * (TOKENS - 1 if name in backbone else TOKENS), name


def test_profiling_starts_from_zero_and_ends() -> None:
    made = engine(1)
    params = sampling(num_tokens=TOKENS, num_inference_steps=2)
    given = request(made.config, params, images=1)
    generate(made, params, given)
    assert not any(made.stage_seconds().values())
    made.profile(True)
    generate(made, params, given)
    first = made.stage_barriers()
    generate(made, params, given)
    assert made.stage_barriers() == {name: 2 * count for name, count in first.items()}
    made.profile(True)
    assert not any(made.stage_seconds().values())
    made.profile(False)
    generate(made, params, given)
    assert not any(made.stage_seconds().values())


def test_noise_that_is_given_takes_no_time() -> None:
    made = engine(2)
    params = sampling(num_tokens=TOKENS, num_inference_steps=2)
    embeds = np.zeros((1, 3, made.config.hidden_size), np.float32)
    noise = np.zeros((TOKENS, 3, 1, made.config.token_dim), np.float32)
    made.profile(True)
    made.prefill(embeds, max_new_tokens=TOKENS)
    made.decode(params, noise=noise)
    assert made.stage_seconds()["noise"] == 0
    made.prefill(embeds, max_new_tokens=TOKENS)
    made.decode(params, seeds=[1])
    assert made.stage_seconds()["noise"] > 0


def test_a_stages_costs_add_up_to_the_tokens() -> None:
    config = config_of()
    total = _core.token_cost(config, "bfloat16", 2, 5, 16)["total"]
    stages = _core.stage_cost(config, "bfloat16", 2, 5, 16)
    assert sum(stage["bytes"] for stage in stages.values()) == total
    assert stages["fm_steps"]["flops"] == stages["fm_steps"]["bytes"] * 2  # bf16: a weight's 2 bytes, 2 rows, 2 each
    with pytest.raises(InvalidRequest, match="rows is 17"):
        _core.stage_cost(config, "bfloat16", 17, 5, 16)
