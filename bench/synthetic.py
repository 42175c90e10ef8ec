"""Random weights of any shape, so that speed can be measured without a checkpoint."""

from __future__ import annotations

import json
from typing import Any

import torch

from nextstep_rt import ModelConfig

# The 14B is the released model; "200m" is the shape this project's CPU targets are stated at.
SHAPES: dict[str, dict[str, Any]] = {
    "200m": {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 4, "fm_head_dim": 768, "fm_head_layers": 8,
    },
    "14b": {
        "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40,
        "num_key_value_heads": 8, "fm_head_dim": 1536, "fm_head_layers": 12,
    },
}  # fmt: skip
COMMON: dict[str, Any] = {
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "vocab_size": 1024, "max_position_embeddings": 8192,
    "attention_bias": True, "o_attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "latent_size": 32, "latent_patch_size": 2, "latent_channels": 16, "boi": 1, "eoi": 2, "image_placeholder_id": 3,
    "pad_token_id_added": 0,
}  # fmt: skip


def config_of(shape: str) -> ModelConfig:
    """The configuration of a named shape."""
    return ModelConfig.from_json(json.dumps(COMMON | SHAPES[shape]))


def random_weights(config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> dict[str, torch.Tensor]:
    """Normal weights scaled by 1/sqrt(fan in), by the released names; norms are ones."""
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, torch.Tensor] = {}

    def linear(name: str, rows: int, cols: int, bias: bool = True) -> None:
        out[f"{name}.weight"] = (torch.randn(rows, cols, generator=generator) * cols**-0.5).to(dtype)
        if bias:
            out[f"{name}.bias"] = (torch.randn(rows, generator=generator) * 0.02).to(dtype)

    d, ff, f, tok = config.hidden_size, config.intermediate_size, config.fm_head_dim, config.token_dim
    q, kv = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    linear("embed_tokens", config.vocab_size, d, bias=False)
    out["norm.weight"] = torch.ones(d, dtype=dtype)
    for i in range(config.num_hidden_layers):
        layer = f"layers.{i}."
        for name, rows, cols in (("q", q, d), ("k", kv, d), ("v", kv, d), ("o", d, q)):
            bias = config.o_attention_bias if name == "o" else config.attention_bias
            linear(f"{layer}self_attn.{name}_proj", rows, cols, bias)
        for name, rows, cols in (("gate", ff, d), ("up", ff, d), ("down", d, ff)):
            linear(f"{layer}mlp.{name}_proj", rows, cols, config.mlp_bias)
        for name in ("input", "post_attention"):
            out[f"{layer}{name}_layernorm.weight"] = torch.ones(d, dtype=dtype)
    linear("image_in_projector", d, tok)
    linear("image_out_projector", d, d)
    net = "image_head.net."
    for name, rows, cols in (("time_embed.mlp.0", f, 256), ("time_embed.mlp.2", f, f), ("cond_embed", f, d)):
        linear(net + name, rows, cols)
    linear(net + "input_proj", f, tok)
    for i in range(config.fm_head_layers):
        block = f"{net}res_blocks.{i}."
        linear(block + "mlp.0", config.fm_mlp_dim, f)
        linear(block + "mlp.2", f, config.fm_mlp_dim)
        linear(block + "adaLN_modulation.1", 3 * f, f)
        out[block + "in_ln.weight"], out[block + "in_ln.bias"] = torch.ones(f, dtype=dtype), torch.zeros(f, dtype=dtype)
    linear(net + "final_layer.adaLN_modulation.1", 2 * f, f)
    linear(net + "final_layer.linear", tok, f)
    return out
