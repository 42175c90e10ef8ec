"""How weights reach the native engine: as arrays of any library, through a Checkpoint, and what is refused."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.compare import assert_same_bits
from kit.isolated import run_python
from kit.models import config_of, generate, random_weights, request, sampling, stored_as, write_checkpoint

from nextstep_rt import Checkpoint, CheckpointError, Engine, Error, InvalidRequest

CONFIG = config_of()
WEIGHTS = random_weights(CONFIG)
PARAMS = sampling(branches=2)
REQUEST = request(CONFIG, PARAMS, 2)


def tokens(weights: Any, dtype: str) -> np.ndarray:
    return generate(Engine(CONFIG, weights, dtype=dtype, threads=2), PARAMS, REQUEST)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_all_ways_give_the_same_bits(dtype: str, tmp_path: Path) -> None:
    """The weights are bfloat16 numbers: stored as that or as float32, the products are the same."""
    want = tokens(stored_as(WEIGHTS, "float32"), dtype)
    assert np.isfinite(want).all()
    half = stored_as(WEIGHTS, "bfloat16")
    strided = {name: torch.stack([t, t], dim=-1)[..., 0] for name, t in half.items()}
    read_only = {name: array.copy() for name, array in stored_as(WEIGHTS, "float32").items()}
    for array in read_only.values():
        array.flags.writeable = False
    (tmp_path / "half").mkdir()
    (tmp_path / "full").mkdir()
    ways = {
        "torch bfloat16": half,
        "torch float32": WEIGHTS,
        "torch strided": strided,
        "numpy read-only": read_only,
        "with model.": {"model." + name: t for name, t in half.items()},
        "some with model.": {("model." if i % 2 else "") + n: t for i, (n, t) in enumerate(half.items())},
        "each of another kind": {n: (WEIGHTS[n].numpy() if i % 2 else half[n]) for i, n in enumerate(half)},
        "checkpoint bfloat16": Checkpoint(str(write_checkpoint(tmp_path / "half", half))),
        "checkpoint float32": Checkpoint(str(write_checkpoint(tmp_path / "full", WEIGHTS, "model."))),
    }
    checkpoint = ways["checkpoint bfloat16"]
    ways["checkpoint's tensors"] = {name: checkpoint[name] for name in checkpoint}
    for way, weights in ways.items():
        assert_same_bits(tokens(weights, dtype), want, what=way)


def test_float32_weights_are_rounded_for_bfloat16() -> None:
    """And not otherwise: weights that are no bfloat16 numbers."""
    exact = {name: t + 1e-3 * torch.randn_like(t) for name, t in WEIGHTS.items()}
    rounded = {name: t.to(torch.bfloat16).float() if t.ndim == 2 else t for name, t in exact.items()}
    half = tokens(stored_as(exact, "float32"), "bfloat16")
    assert_same_bits(tokens(stored_as(rounded, "float32"), "bfloat16"), half)
    full = tokens(stored_as(exact, "float32"), "float32")
    assert not np.array_equal(tokens(stored_as(rounded, "float32"), "float32"), full)


def test_memory_tells_what_was_converted() -> None:
    matrices = sum(t.numel() for t in WEIGHTS.values() if t.ndim == 2 and t.shape[0] > 1)
    lm_head = WEIGHTS["lm_head.weight"].numel()
    for stored, dtype, converted in (
        ("bfloat16", "bfloat16", 0),
        ("bfloat16", "float32", 0),
        ("float32", "float32", 0),
        ("float32", "bfloat16", 2 * (matrices - lm_head)),
    ):
        engine = Engine(CONFIG, stored_as(WEIGHTS, stored), dtype=dtype, threads=1)
        assert engine.dtype == dtype
        assert engine.memory()["converted"] == converted
        assert engine.memory()["kv_cache"] == 0
        assert engine.plan(2, 10, 3)["kv_cache"] == 2 * 2 * 2 * 2 * 10 * 40 * (4 if dtype == "float32" else 2)


def test_weights_live_as_long_as_the_engine() -> None:
    weights = {name: t.clone() for name, t in stored_as(WEIGHTS, "bfloat16").items()}
    want = tokens(weights, "bfloat16")
    engine = Engine(CONFIG, weights, dtype="bfloat16", threads=1)
    del weights
    gc.collect()
    junk = [torch.full((1 << 16,), float("nan")) for _ in range(50)]
    assert_same_bits(generate(engine, PARAMS, REQUEST), want)
    del junk


def test_a_checkpoint_lives_as_long_as_the_engine(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(write_checkpoint(tmp_path, WEIGHTS)))
    config = checkpoint.config
    engine = Engine(config, checkpoint, dtype="float32", threads=1)
    del checkpoint, config
    gc.collect()
    (tmp_path / "model.safetensors").unlink()
    assert_same_bits(generate(engine, PARAMS, REQUEST), tokens(stored_as(WEIGHTS, "float32"), "float32"))
    assert engine.config.hidden_size == CONFIG.hidden_size


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in stored_as(WEIGHTS, "float32").items() if key != name}


def changed(**tensors: Any) -> dict[str, Any]:
    return {**stored_as(WEIGHTS, "float32"), **{name.replace("__", "."): value for name, value in tensors.items()}}


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_each_missing_tensor_is_named(name: str) -> None:
    if name == "lm_head.weight":
        assert np.isfinite(tokens(without(name), "float32")).all()  # image tokens do not need it
        return
    with pytest.raises(CheckpointError, match=rf"1 missing: \"{name}\""):
        tokens(without(name), "float32")


@pytest.mark.parametrize("name", sorted(WEIGHTS))
def test_each_misshapen_tensor_is_named(name: str) -> None:
    good = WEIGHTS[name].numpy()
    for wrong in (good[:-1], good[..., :-1], good[None], np.concatenate([good, good]), good.reshape(-1)[:0]):
        with pytest.raises(CheckpointError, match=name):
            tokens({**stored_as(WEIGHTS, "float32"), name: np.ascontiguousarray(wrong)}, "float32")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(layers__0__self_attn__q_norm__weight=np.ones(40, np.float32)), "1 unknown.*q_norm"),
        (changed(layers__2__mlp__up_proj__weight=np.ones((70, 44), np.float32)), r"unknown.*layers\.2"),
        (changed(layers__0__mlp__up_proj__bias=np.ones(70, np.float32)), r"unknown.*up_proj\.bias"),
        (changed(model__norm__weight=np.ones(44, np.float32)), "norm.weight.*twice"),
        ({}, "missing"),
        (changed(norm__weight=np.ones(44)), "norm.weight.*float64"),
        (changed(norm__weight=np.ones(44, np.float16)), "norm.weight.*float16"),
        (changed(norm__weight=np.ones(44, np.int64)), "norm.weight.*float32 or bfloat16"),
        (changed(norm__weight=[1.0] * 44), "norm.weight.*list"),
        (changed(norm__weight=None), "norm.weight.*None"),
        (changed(norm__weight=torch.ones(44, device="meta")), "norm.weight"),
    ],
)
def test_wrong_weights(weights: Any, message: str) -> None:
    with pytest.raises(Error, match=message):
        tokens(weights, "float32")


def test_what_is_no_mapping_of_tensors() -> None:
    for weights in (None, [], "weights", 3, {1: np.ones(3, np.float32)}):
        with pytest.raises((Error, TypeError)):
            Engine(CONFIG, weights)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "float16"),
        ({"dtype": "auto"}, "auto"),
        ({"threads": 0}, "threads is 0"),
        ({"threads": -3}, "threads is -3"),
        ({"threads": 100000}, "threads is 100000"),
        ({"device": "tpu"}, "tpu"),
        ({"device": "cuda:x"}, "cuda:x"),
        ({"device": "cuda:-1"}, "cuda:-1"),
        ({"device": ""}, "device"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        Engine(CONFIG, stored_as(WEIGHTS, "float32"), **options)


@pytest.mark.parametrize("kind", ["torch", "numpy", "temporary"])
def test_a_refused_engine_lets_go_of_its_weights(kind: str) -> None:
    """In a process of its own: the arrays' last owner may be the engine that never came to be."""
    code = """
    import gc, sys
    import numpy as np, torch
    from kit.models import config_of, random_weights, stored_as
    from nextstep_rt import Engine, Error

    config = config_of()
    weights = random_weights(config)

    class Temporaries(dict):
        def items(self):
            for name, tensor in super().items():
                yield name, tensor.numpy().T.copy().T

    for turn in range(20):
        for fault in ("missing", "unknown", "threads"):
            if sys.argv[1] == "torch":
                given = {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
            elif sys.argv[1] == "numpy":
                given = {name: tensor.numpy().copy() for name, tensor in weights.items()}
            else:
                given = Temporaries(weights)
            if fault == "missing":
                del given["norm.weight"]
            elif fault == "unknown":
                given["other"] = torch.ones(3)
            try:
                Engine(config, given, threads=100000 if fault == "threads" else 1)
            except Error as error:
                assert "norm.weight" in str(error) or "other" in str(error) or "threads" in str(error), error
            else:
                raise AssertionError("accepted")
            del given
            gc.collect()
    """
    run_python(code, kind)
