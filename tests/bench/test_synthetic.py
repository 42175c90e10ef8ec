"""Shapes by name and key, and what is done where memory is short."""

from __future__ import annotations

import pytest
import torch

from bench import subject
from bench.subject import cache_bytes, find, load, named, weight_bytes
from bench.synthetic import NAMES, config_of, parse
from nextstep_rt import CheckpointError, InvalidRequest


def test_a_name_and_keys_make_a_shape() -> None:
    name, keys = parse(["200m num_hidden_layers=8", "hidden_size=2048,attention_bias=false"])
    assert name == "200m attention_bias=False hidden_size=2048 num_hidden_layers=8"
    assert (keys["num_hidden_layers"], keys["hidden_size"], keys["attention_bias"]) == (8, 2048, False)
    assert keys["fm_head_dim"] == 768
    assert parse(["num_hidden_layers=3"])[1]["hidden_size"] == 1024  # of the 200m
    assert parse(["14B"])[0] == "14b"
    for shape in NAMES:
        assert find([shape]).config.num_hidden_layers == config_of(shape).num_hidden_layers


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["20m"], r"unknown shape '20m': give one of 200m, 1b, 14b, tiny, demo, .*; did you mean '200m'"),
        (["200m 14b"], "names the shapes 200m and 14b"),
        (["hiden_size=3"], r"unknown key 'hiden_size': known are .*did you mean 'hidden_size'"),
        (["hidden_size=big"], "'big' is no number"),
        (["hidden_size=1", "hidden_size=2"], "hidden_size twice"),
        (["demo hidden_size=512"], "states head_dim 32: give head_dim"),
    ],
)
def test_what_makes_no_shape_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        parse(words)


def test_a_value_the_model_cannot_have_is_named() -> None:
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        find(["tiny num_hidden_layers=-1"])
    with pytest.raises(InvalidRequest, match="both given"):
        find(["tiny"], "demo")


def test_the_demo_is_the_embedded_model() -> None:
    checkpoint = find((), "demo")
    assert checkpoint.keys is None
    assert find(["demo"]).config.hidden_size == checkpoint.config.hidden_size
    assert load(checkpoint, "bfloat16").what == "checkpoint"


def test_layers_are_shared_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "last_cache", lambda: 1000)
    shape = find(["tiny num_hidden_layers=6"])
    whole = weight_bytes(shape.config, "float32")
    assert load(shape, "float32").what == "own layers"
    shared = load(shape, "float32", available=int(1.2 * whole))
    assert shared.what == "one layer shared by all"
    assert shared.weights["layers.0.mlp.up_proj.weight"] is shared.weights["layers.5.mlp.up_proj.weight"]
    assert shared.weights["layers.0.mlp.up_proj.weight"].dtype == torch.float32
    assert shared.engine(1).memory()["weights"] > 0
    with pytest.raises(InvalidRequest, match=r"needs .* of weights .* even one layer and the head need"):
        load(shape, "float32", available=whole // 10)
    monkeypatch.setattr(subject, "last_cache", lambda: 1 << 30)
    with pytest.raises(InvalidRequest, match="would stay in the last cache"):
        load(shape, "float32", available=int(1.2 * whole))


def test_a_14b_that_does_not_fit_says_so() -> None:
    with pytest.raises(InvalidRequest, match=r"14b in bfloat16 needs 2.* GB"):
        load(named("14b"), "bfloat16", available=1 << 30)
    with pytest.raises(InvalidRequest, match="--dtype is 'int8': give bfloat16 or float32"):
        load(named("tiny"), "int8")


def test_the_cost_of_memory_is_the_engine_s() -> None:
    engine = load(named("tiny"), "bfloat16").engine(1)
    plan = engine.plan(3, 50, 20)
    config = config_of("tiny")
    assert plan["weights"] == weight_bytes(config, "bfloat16")
    assert plan["kv_cache"] == pytest.approx(cache_bytes(config, "bfloat16", 3, 50), rel=0.5)  # it rounds positions up
