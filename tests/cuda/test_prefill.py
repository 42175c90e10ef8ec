"""Prefill's two ways: many rows through a library's products, and chunks of rows through the linear kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.compare import assert_close, assert_same_bits, norm_tolerance
from kit.models import config_of, generate, random_weights, request, sampling, stored_as
from kit.stages import Setup, compare

from nextstep_rt import Engine, InvalidRequest

VARIABLE = "NSRT_PREFILL_ROWS"
LIBRARY, CHUNKS = "1", "1000000"  # rows from which a library does the products
SIZES = {"hidden_size": 72, "intermediate_size": 104, "latent_channels": 6, "fm_head_dim": 56, "fm_head_mlp_ratio": 1.0}
BIASED = {"o_attention_bias": True, "mlp_bias": True}


def make(dtype: str = "bfloat16", **changes: Any) -> Engine:
    config = config_of(**{**SIZES, **changes})
    return Engine(config, stored_as(random_weights(config), dtype), dtype=dtype, device="cuda")


@pytest.mark.parametrize("config", [{"head_dim": 40}, {"head_dim": 64, **BIASED}, {"head_dim": 128}], ids=str)
@pytest.mark.parametrize("rows_from", [LIBRARY, CHUNKS])
def test_every_stage_against_the_oracle(
    monkeypatch: pytest.MonkeyPatch, rows_from: str, config: dict[str, Any]
) -> None:
    monkeypatch.setenv(VARIABLE, rows_from)
    compare(Setup({**SIZES, **config}, {"branches": 2}, 1, 100, 1, 3, "cuda"), "bfloat16")


def test_both_ways_agree_and_decode_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    params, hidden, tokens = sampling(branches=2), [], []
    for rows_from in (LIBRARY, CHUNKS, ""):
        monkeypatch.setenv(VARIABLE, rows_from)
        engine = make()
        given = request(engine.config, params, 2, 90)
        engine.prefill(*given[:2], max_new_tokens=3)
        hidden.append(engine.state("hidden"))
        tokens.append(engine.decode(params, noise=given[2]))
    assert_close(hidden[0], hidden[1], norm_tolerance(16, "bfloat16"), what="hidden")
    assert_close(tokens[0], tokens[1], norm_tolerance(64, "bfloat16"), what="tokens")
    assert_same_bits(tokens[2], tokens[0])  # more rows than a chunk: a library's, unless told otherwise
    assert np.any(tokens[0] != tokens[1]), "one way was taken twice"


def test_a_repeated_run_is_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, LIBRARY)
    engine, params = make(), sampling(branches=3)
    given = request(engine.config, params, 1, 70)
    first = generate(engine, params, given)
    generate(engine, params, request(engine.config, params, 2, 40, seed=1))
    assert_same_bits(generate(engine, params, given), first)
    assert_same_bits(generate(make(), params, given), first)


def test_the_order_of_threads_does_not_change_a_bit(monkeypatch: pytest.MonkeyPatch, emulator: Any) -> None:
    """In race mode races are failures, too."""
    monkeypatch.setenv(VARIABLE, LIBRARY)
    engine, params = make(num_hidden_layers=1), sampling(branches=2, num_tokens=1, num_inference_steps=1)
    given, results = request(engine.config, params, 1, 12), []
    for seed in range(4):
        emulator.set_seed(seed)
        results.append(generate(engine, params, given))
    for other in results[1:]:
        assert_same_bits(other, results[0])


def test_more_rows_than_a_pass_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second pass reads what the first left in the cache; a prompt's end may come in either."""
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 1, "num_key_value_heads": 1,
             "head_dim": 64, "num_hidden_layers": 1}  # fmt: skip
    hidden, seen = [], []
    for rows_from in (LIBRARY, CHUNKS):
        monkeypatch.setenv(VARIABLE, rows_from)
        engine, done = make(**sizes), []
        embeds = np.random.default_rng(0).standard_normal((2, 560, 16)).astype(np.float32)
        engine.prefill(embeds, max_new_tokens=1, progress=lambda n, _, done=done: done.append(n))
        hidden.append(engine.state("hidden"))
        seen.append(done)
    assert seen == [[1024, 1120]] * 2
    assert_close(hidden[0], hidden[1], norm_tolerance(8, "bfloat16"), what="hidden")


def test_what_is_launched(monkeypatch: pytest.MonkeyPatch, emulator: Any) -> None:
    """Nine kernels a layer, four of them the library's; no library for float32, nor for a few rows."""
    embeds = np.zeros((1, 65, 72), np.float32)

    def launches(engine: Engine, rows: int) -> tuple[int, int]:
        emulator.reset_launches()
        engine.prefill(embeds[:, :rows], max_new_tokens=1)
        names = emulator.launches()
        return sum(names.values()), sum(n for name, n in names.items() if "gemm" in name)

    monkeypatch.delenv(VARIABLE, raising=False)
    assert launches(make(), 65) == (9 * 2 + 1, 4 * 2)
    assert launches(make(), 64)[1] == 0
    assert launches(make("float32"), 65)[1] == 0
    monkeypatch.setenv(VARIABLE, "2")
    assert launches(make(), 2)[1] == 4 * 2


def test_memory_is_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows_from in (LIBRARY, CHUNKS):
        monkeypatch.setenv(VARIABLE, rows_from)
        engine, params = make(), sampling(branches=1)
        given = request(engine.config, params, 1, 80)
        generate(engine, params, given)
        planned = engine.plan(1, 80 + 3, params.num_inference_steps)
        held = engine.memory()
        assert held["kv_cache"] <= planned["kv_cache"]
        assert held["scratch"] <= planned["scratch"]


@pytest.mark.parametrize("rows_from", ["0", "-3", "many", "64rows"])
def test_a_number_of_rows_that_is_none(monkeypatch: pytest.MonkeyPatch, rows_from: str) -> None:
    monkeypatch.setenv(VARIABLE, rows_from)
    with pytest.raises(InvalidRequest, match=f"{VARIABLE} is '{rows_from}'; it must be a number of rows"):
        make()
    make("float32")  # which has no choice
