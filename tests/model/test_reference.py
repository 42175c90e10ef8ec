"""The oracle against the golden results and against an independent loop."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kit.golden import ALL, load_case, load_config, load_tensors, relative_error
from kit.toy import random_request, random_tensors, sampling, small_config, started

from nextstep_rt.reference import (
    ReferenceEngine,
    lm_logits,
    sinusoid,
)

# By norm over the whole free-running image. float64 compares with goldens rounded to float32 (6e-8).
TOLERANCE = {"float64": 1e-6, "float32": 1e-5, "bfloat16": 4e-2}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("checkpoint", "name"), ALL)
def test_golden(checkpoint: str, name: str, dtype: str) -> None:
    case, config = load_case(checkpoint, name), load_config(checkpoint)
    engine = ReferenceEngine(config, load_tensors(checkpoint), dtype=dtype, trace=True)
    embeds = case.embeds(engine, config.image_placeholder_id)
    engine.prefill(embeds, case["attention_mask"], max_new_tokens=case.num_tokens)
    tokens = engine.decode(SimpleNamespace(**case.sampling()), noise=case["noise"])
    assert tokens.dtype == np.float32
    assert relative_error(tokens, case["tokens"]) <= TOLERANCE[dtype]
    assert engine.trace is not None
    conds = torch.stack(engine.trace["cond"]).to(torch.float64)
    assert relative_error(conds, case["conds"]) <= TOLERANCE[dtype]


# ---- the backbone against a loop that shares no code with it


def naive_hidden(config: SimpleNamespace, weights: dict[str, np.ndarray], embeds: np.ndarray) -> np.ndarray:
    """One row without padding, no cache, one position and one head at a time. embeds [s, d_model] -> [s, d_model]."""

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[name + ".weight"].T + weights.get(name + ".bias", 0.0)

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * weights[name + ".weight"]

    def rotate(x: np.ndarray, position: int) -> np.ndarray:
        half = config.head_dim // 2
        out = np.empty_like(x)
        for i in range(half):
            angle = position * config.rope_theta ** (-2 * i / config.head_dim)
            z = complex(x[i], x[i + half]) * complex(math.cos(angle), math.sin(angle))
            out[i], out[i + half] = z.real, z.imag
        return out

    x, d, group = embeds, config.head_dim, config.num_attention_heads // config.num_key_value_heads
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}."
        y = norm(name + "input_layernorm", x)
        q, k, v = (dense(f"{name}self_attn.{p}_proj", y).reshape(len(x), -1, d) for p in "qkv")
        mixed = np.zeros((len(x), config.num_attention_heads, d))
        for i in range(len(x)):
            for h in range(config.num_attention_heads):
                query = rotate(q[i, h], i)
                scores = np.array([query @ rotate(k[j, h // group], j) / math.sqrt(d) for j in range(i + 1)])
                share = np.exp(scores - scores.max())
                mixed[i, h] = (share / share.sum()) @ v[: i + 1, h // group]
        x = x + dense(name + "self_attn.o_proj", mixed.reshape(len(x), -1))
        y = norm(name + "post_attention_layernorm", x)
        gate = dense(name + "mlp.gate_proj", y)
        x = x + dense(name + "mlp.down_proj", gate / (1 + np.exp(-gate)) * dense(name + "mlp.up_proj", y))
    return norm("norm", x)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_bias": False, "o_attention_bias": False, "mlp_bias": False},
        {"attention_bias": False, "num_key_value_heads": 6},
        {"o_attention_bias": False, "num_key_value_heads": 1},
    ],
)
def test_backbone_equals_a_naive_loop(changes: dict[str, Any]) -> None:
    config, params = small_config(**changes), sampling()
    tensors = random_tensors(config)
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    embeds, noise = random_request(config, 2, 5, params)
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    engine = started(config, tensors, embeds, mask, trace=True)
    tokens = engine.decode(params, noise=noise)
    assert engine.trace is not None
    for row, pads in enumerate((0, 2)):
        fed = weights["image_in_projector.bias"] + tokens[row, :-1] @ weights["image_in_projector.weight"].T
        expected = naive_hidden(config, weights, np.concatenate([embeds[row, pads:], fed]))[4 - pads :]
        actual = torch.stack(engine.trace["hidden"])[:, row]
        assert relative_error(actual, expected) < 1e-6  # tokens were rounded to float32


def test_fm_head_equals_a_naive_loop() -> None:
    config, params = small_config(), sampling(solver="euler", num_inference_steps=1, num_tokens=1)
    tensors = random_tensors(config)
    w = {name.removeprefix("image_head.net."): tensor.numpy() for name, tensor in tensors.items()}
    embeds, noise = random_request(config, 1, 3, params)
    engine = started(config, tensors, embeds, trace=True)
    engine.decode(params, noise=noise)

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return w[name + ".weight"] @ x + w[name + ".bias"]

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-6)

    cond = dense("image_out_projector", engine.trace["hidden"][0][0].numpy())  # type: ignore[index]
    waves = np.concatenate([np.ones(128), np.zeros(128)])  # at t = 0
    y = silu(dense("time_embed.mlp.2", silu(dense("time_embed.mlp.0", waves))) + dense("cond_embed", cond))
    h = dense("input_proj", noise[0, 0, 0].astype(np.float64))
    for i in range(config.fm_head_layers):
        shift, scale, gate = np.split(dense(f"res_blocks.{i}.adaLN_modulation.1", y), 3)
        inner = norm(h) * w[f"res_blocks.{i}.in_ln.weight"] + w[f"res_blocks.{i}.in_ln.bias"]
        inner = dense(f"res_blocks.{i}.mlp.2", silu(dense(f"res_blocks.{i}.mlp.0", inner * (1 + scale) + shift)))
        h = h + gate * inner
    shift, scale = np.split(dense("final_layer.adaLN_modulation.1", y), 2)
    expected = dense("final_layer.linear", norm(h) * (1 + scale) + shift)
    assert relative_error(engine.trace["velocity"][0][0][0], expected) < 1e-12  # type: ignore[index]


def test_sinusoid_has_cosines_first_and_unscaled_time() -> None:
    waves = sinusoid(torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert waves.shape == (2, 256)
    assert torch.equal(waves[0], torch.cat([torch.ones(128), torch.zeros(128)]).double())
    assert waves[1, 0].item() == pytest.approx(math.cos(0.5))
    assert waves[1, 128 + 127].item() == pytest.approx(math.sin(0.5 * 10000 ** (-127 / 128)))


def test_logits_use_the_tied_embedding() -> None:
    config = small_config(tie_word_embeddings=True)
    tensors = random_tensors(config)
    hidden = torch.ones(1, config.hidden_size, dtype=torch.float64)
    assert torch.allclose(lm_logits(tensors, config, hidden)[0], tensors["embed_tokens.weight"].sum(-1))
    config.tie_word_embeddings = False
    tensors["lm_head.weight"] = torch.zeros(config.vocab_size, config.hidden_size, dtype=torch.float64)
    assert not lm_logits(tensors, config, hidden).any()
