"""Random weights of any shape, so that speed can be measured without a checkpoint."""

from __future__ import annotations

import json
from typing import Any

import torch

from nextstep_rt import ModelConfig
from nextstep_rt.reference import expected_shapes

# The 14B is the released model; "200m" is the shape this project's CPU targets are stated at; "tiny" is for tests.
SHAPES: dict[str, dict[str, Any]] = {
    "200m": {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 4, "fm_head_dim": 768, "fm_head_layers": 8,
    },
    "14b": {
        "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40,
        "num_key_value_heads": 8, "fm_head_dim": 1536, "fm_head_layers": 12,
    },
    "tiny": {
        "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "fm_head_dim": 64, "fm_head_layers": 2,
    },
}  # fmt: skip
COMMON: dict[str, Any] = {
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "vocab_size": 1024, "max_position_embeddings": 8192,
    "attention_bias": True, "o_attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "latent_size": 32, "latent_patch_size": 2, "latent_channels": 16, "boi": 1, "eoi": 2, "image_placeholder_id": 3,
    "pad_token_id_added": 0,
}  # fmt: skip


def config_of(shape: str, **changes: Any) -> ModelConfig:
    """The configuration of a named shape."""
    return ModelConfig.from_json(json.dumps(COMMON | SHAPES[shape] | changes))


def random_weights(config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> dict[str, torch.Tensor]:
    """Normal weights scaled by 1/sqrt(fan in), by the released names; norms are ones, biases small."""
    generator = torch.Generator().manual_seed(seed)
    out: dict[str, torch.Tensor] = {}
    for name, shape in expected_shapes(config).items():
        if name.endswith(("norm.weight", "in_ln.weight")):
            out[name] = torch.ones(shape, dtype=dtype)
        else:
            scale = shape[1] ** -0.5 if len(shape) == 2 else 0.02
            out[name] = (torch.randn(shape, generator=generator) * scale).to(dtype)
    return out


def shared_weights(shape: str, dtype: torch.dtype, layers: int, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Like random_weights, but all backbone layers are the same arrays: little to make, little host memory.

    The FM head's blocks stay different ones: together they may fit in a cache that a layer of the backbone does not.
    """
    made = random_weights(config_of(shape, num_hidden_layers=1), dtype)
    made = {name: tensor.to(device) for name, tensor in made.items()}
    layer = {name.removeprefix("layers.0."): t for name, t in made.items() if name.startswith("layers.0.")}
    out = {name: tensor for name, tensor in made.items() if not name.startswith("layers.0.")}
    for i in range(layers):
        out |= {f"layers.{i}.{name}": tensor for name, tensor in layer.items()}
    return out
