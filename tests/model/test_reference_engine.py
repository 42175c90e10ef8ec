"""The oracle's engine: pieces, padding, seeds, callbacks, refusals."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import torch
from kit.golden import relative_error
from kit.toy import random_request, random_tensors, sampling, small_config, started

from nextstep_rt.errors import Cancelled, CheckpointError, Error, InvalidRequest
from nextstep_rt.reference import (
    ReferenceEngine,
    normalize_token,
)

# ---- the engine


def test_tokens_in_pieces_are_the_same_bits() -> None:
    config, params = small_config(), sampling(branches=2)
    tensors = random_tensors(config)
    embeds, noise = random_request(config, 4, 5, params)
    whole = started(config, tensors, embeds).decode(params, noise=noise)
    engine = started(config, tensors, embeds)
    pieces = [engine.decode(params, n, noise=noise[a : a + n]) for a, n in ((0, 1), (1, 0), (1, 2), (3, 1))]
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    assert engine.position == 4
    assert engine.rows == 4
    assert engine.decode(params, noise=noise[:0]).shape == (2, 0, config.token_dim)
    with pytest.raises(InvalidRequest, match="1 tokens asked for; 0 remain"):
        engine.decode(params, 1, noise=noise[:1])


def test_padding_changes_nothing() -> None:
    config, params = small_config(), sampling()
    tensors = random_tensors(config)
    embeds, noise = random_request(config, 1, 4, params)
    expected = started(config, tensors, embeds).decode(params, noise=noise)
    rng = np.random.default_rng(3)
    padded = rng.standard_normal((2, 7, config.hidden_size)).astype(np.float32)
    mask = np.zeros((2, 7), bool)
    mask[0], mask[1, [0, 2, 3, 6]] = True, True  # beside a longer row, with padding anywhere
    padded[1, mask[1]] = embeds[0]
    both = started(config, tensors, padded, mask).decode(params, noise=np.repeat(noise, 2, axis=2))
    assert relative_error(both[1], expected[0]) < 1e-6


def test_seeds_draw_by_absolute_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(seed: int, token: int, draw: int, n: int) -> np.ndarray:
        return np.random.default_rng([seed, token, draw]).standard_normal(n).astype(np.float32)

    monkeypatch.setattr(importlib.import_module("nextstep_rt._core"), "normal_noise", fake, raising=False)
    config, params = small_config(), sampling()
    tensors = random_tensors(config)
    embeds, _ = random_request(config, 2, 5, params)
    noise = np.array(
        [[[fake(seed, s, k, config.token_dim) for seed in (7, 9)] for k in range(4)] for s in range(params.num_tokens)]
    )
    expected = started(config, tensors, embeds).decode(params, noise=noise)
    engine = started(config, tensors, embeds)
    pieces = [engine.decode(params, 2, seeds=[7, 9]), engine.decode(params, seeds=[7, 9])]
    assert np.array_equal(np.concatenate(pieces, axis=1), expected)


def test_callback_sees_each_token_and_stops() -> None:
    config, params = small_config(), sampling()
    embeds, noise = random_request(config, 1, 3, params)
    engine = started(config, random_tensors(config), embeds)
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def callback(position: int, total: int, tokens: np.ndarray) -> bool | None:
        seen.append((position, total, tokens.shape))
        return False if position == 2 else None

    tokens = engine.decode(params, noise=noise, callback=callback)
    assert seen == [(1, 4, (1, 1, config.token_dim)), (2, 4, (1, 2, config.token_dim))]
    assert tokens.shape == (1, 2, config.token_dim)
    assert engine.position == 2


def test_prefill_progress_can_stop() -> None:
    config = small_config()
    embeds, _ = random_request(config, 1, 3, sampling())
    engine = ReferenceEngine(config, random_tensors(config))
    seen: list[tuple[int, int]] = []
    engine.prefill(embeds, max_new_tokens=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 3)]
    assert engine.rows == 1
    with pytest.raises(Cancelled):
        engine.prefill(embeds, max_new_tokens=1, progress=lambda *_: False)
    assert engine.rows == 0


def test_gen_pos_embed() -> None:
    config, params = small_config(use_gen_pos_embed=True), sampling()
    tensors = random_tensors(config)
    embeds, noise = random_request(config, 1, 3, params)
    with pytest.raises(CheckpointError, match="gen_pos_embed"):
        ReferenceEngine(config, tensors)
    plain = small_config()
    first = started(plain, tensors, embeds).state("hidden")
    table = torch.randn(4, config.hidden_size, dtype=torch.float64)
    results = []
    for stored in (table, table[None]):
        engine = started(config, {**tensors, "gen_pos_embed": stored}, embeds)
        assert np.allclose(engine.state("hidden"), first + table[0].numpy(), atol=1e-6)
        results.append(engine.decode(params, noise=noise))
    assert np.array_equal(*results)
    assert np.array_equal(
        started(plain, {**tensors, "gen_pos_embed": table}, embeds).decode(params, noise=noise),
        started(plain, tensors, embeds).decode(params, noise=noise),
    )
    short = started(config, {**tensors, "gen_pos_embed": table[:3]}, embeds)
    with pytest.raises(InvalidRequest, match="image token 3 is past the 3"):
        short.decode(params, noise=noise)
    assert short.decode(params, 3, noise=noise[:3]).shape[1] == 3


def test_not_finite_names_token_and_image() -> None:
    config, params = small_config(), sampling()
    embeds, noise = random_request(config, 2, 3, params)
    noise[2, 0, 1, 0] = np.nan
    engine = started(config, random_tensors(config), embeds)
    with pytest.raises(Error, match=r"finite at image token 2 of image 1; .*info --verify.*guidance_scale"):
        engine.decode(params, noise=noise)
    assert (engine.rows, engine.position) == (0, 0)
    with pytest.raises(InvalidRequest, match="prefill first"):
        engine.decode(params, 1, noise=noise[:1])


def test_states_and_trace() -> None:
    config, params = small_config(), sampling(branches=2, solver="heun")
    embeds, noise = random_request(config, 4, 3, params)
    engine = ReferenceEngine(config, random_tensors(config), dtype="float32", trace=True)
    with pytest.raises(Error, match="call prefill first"):
        engine.state("hidden")
    engine.prefill(embeds, max_new_tokens=4)
    with pytest.raises(Error, match="call decode first"):
        engine.state("cond")
    with pytest.raises(InvalidRequest, match="logits"):
        engine.state("logits")
    tokens = engine.decode(params, noise=noise)
    assert engine.trace is not None
    shapes = {name: engine.state(name).shape for name in ("hidden", "cond", "modulation", "velocity", "latent")}
    assert shapes == {"hidden": (4, 24), "cond": (4, 24), "modulation": (12, 128), "velocity": (4, 8), "latent": (2, 8)}
    normalized = normalize_token(torch.from_numpy(engine.state("latent"))).numpy()
    assert np.allclose(normalized, tokens[:, -1], atol=1e-6)
    assert len(engine.trace["layers"]) == 4  # the prefill and three steps: the last token's is not run
    assert [len(v) for v in engine.trace["velocity"]] == [5] * 4
    assert [len(x) for x in engine.trace["x"]] == [4] * 4
    engine.reset()
    assert engine.rows == 0
    assert engine.position == 0
    assert not engine.trace


def test_bytes() -> None:
    config = small_config()
    tensors = random_tensors(config)
    numbers = sum(t.numel() for t in tensors.values())
    engine = ReferenceEngine(config, tensors, dtype="bfloat16")
    assert engine.memory() == {"weights": 2 * numbers, "converted": 2 * numbers, "kv_cache": 0, "scratch": 0}
    embeds, noise = random_request(config, 2, 5, sampling())
    engine.prefill(embeds, max_new_tokens=4)
    engine.decode(sampling(), 1, noise=noise[:1])
    assert engine.memory() == engine.plan(2, 5, 3)
    assert ReferenceEngine(config, tensors, dtype="float64").memory()["converted"] == 0


def test_weights_may_be_anything_with_dlpack() -> None:
    class View:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor, self.shape = tensor, tuple(tensor.shape)

        def __dlpack__(self, **kw: Any) -> Any:
            return self.tensor.__dlpack__(**kw)

        def __dlpack_device__(self) -> Any:
            return self.tensor.__dlpack_device__()

    config, params = small_config(), sampling()
    tensors = random_tensors(config)
    arrays = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    for array in arrays.values():
        array.flags.writeable = False
    embeds, noise = random_request(config, 1, 3, params)
    results = [
        started(config, given, embeds).decode(params, noise=noise)
        for given in (tensors, arrays, {name: View(tensor) for name, tensor in tensors.items()})
    ]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_bad_checkpoints() -> None:
    config = small_config()
    tensors = random_tensors(config)
    missing = {name: tensor for name, tensor in tensors.items() if name != "layers.1.mlp.up_proj.bias"}
    with pytest.raises(CheckpointError, match=r"missing: \['layers.1.mlp.up_proj.bias'\]"):
        ReferenceEngine(config, missing)
    with pytest.raises(CheckpointError, match=r"unknown: \['layers.0.self_attn.q_norm.weight'\]"):
        ReferenceEngine(config, {**tensors, "layers.0.self_attn.q_norm.weight": torch.ones(8)})
    with pytest.raises(CheckpointError, match=r"norm.weight has shape \(3,\), config.json asks for \(24,\)"):
        ReferenceEngine(config, {**tensors, "norm.weight": torch.ones(3)})


def test_threads_are_put_back() -> None:
    config, params = small_config(), sampling()
    before = torch.get_num_threads()
    embeds, noise = random_request(config, 1, 3, params)
    engine = started(config, random_tensors(config), embeds, threads=1)
    engine.decode(params, noise=noise)
    assert engine.threads == 1
    assert torch.get_num_threads() == before
