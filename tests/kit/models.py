"""Small random models, requests to them, and the native engine and the oracle over the same weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from nextstep_rt import Engine, ModelConfig, SamplingParams
from nextstep_rt.reference import expected_shapes

# As odd as a model may be: no size is a multiple of a vector, head_dim is not hidden / heads, GQA, a wide FM MLP.
SMALL: dict[str, Any] = {
    "hidden_size": 44,
    "intermediate_size": 70,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 40,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "vocab_size": 50,
    "max_position_embeddings": 2048,
    "attention_bias": True,
    "o_attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "latent_size": 8,
    "latent_patch_size": 2,
    "latent_channels": 3,
    "use_gen_pos_embed": False,
    "boi": 1,
    "eoi": 2,
    "image_placeholder_id": 3,
    "pad_token_id_added": 0,
    "fm_head_dim": 36,
    "fm_head_layers": 2,
    "fm_head_mlp_ratio": 1.5,
}


def config_of(**changes: Any) -> ModelConfig:
    return ModelConfig.from_json(json.dumps({**SMALL, **changes}))


def random_weights(config: ModelConfig, seed: int = 0, positions: int = 64) -> dict[str, torch.Tensor]:
    """float32 weights that are bfloat16 numbers, so that both dtypes mean the same model.

    Matrices keep the size of what goes through them; norm weights lie around 1, biases are small.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = dict(expected_shapes(config))
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, config.hidden_size)
    if config.use_gen_pos_embed:
        shapes["gen_pos_embed"] = (positions, config.hidden_size)
    out = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator)
        if name.endswith(("norm.weight", "ln.weight")):
            values = 1 + 0.2 * values
        elif name.endswith("bias"):
            values = 0.2 * values
        elif name not in ("embed_tokens.weight", "gen_pos_embed"):
            values = values / math.sqrt(shape[-1])
        out[name] = values.to(torch.bfloat16).float()
    return out


def stored_as(weights: Mapping[str, torch.Tensor], dtype: str) -> dict[str, Any]:
    """The weights as numpy float32 or torch.bfloat16."""
    if dtype == "bfloat16":
        return {name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}
    return {name: tensor.numpy() for name, tensor in weights.items()}


def write_checkpoint(folder: Path, weights: Mapping[str, torch.Tensor], prefix: str = "", **changes: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({**SMALL, **changes}))
    save_file({prefix + name: tensor.contiguous() for name, tensor in weights.items()}, folder / "model.safetensors")
    return folder


def sampling(**changes: Any) -> SamplingParams:
    return SamplingParams(**{"num_tokens": 3, "num_inference_steps": 3, "guidance_scale": 2.0, **changes})


def request(
    config: ModelConfig, params: SamplingParams, images: int, width: int = 6, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings [rows, width, hidden_size] and a ragged mask of rows = images * branches, noise for all tokens."""
    rng = np.random.default_rng([seed, images, width])
    rows = images * params.branches
    embeds = rng.standard_normal((rows, width, config.hidden_size)).astype(np.float32)
    mask = np.arange(width)[None, :] >= rng.integers(0, width, (rows, 1))
    shape = (params.num_tokens, 1 + params.num_inference_steps, images, config.token_dim)
    return embeds, mask, rng.standard_normal(shape).astype(np.float32)


def small_engine(dtype: str = "float32", threads: int = 2, seed: int = 0, **changes: Any) -> Engine:
    config = config_of(**changes)
    return Engine(config, stored_as(random_weights(config, seed), dtype), dtype=dtype, threads=threads)


def generate(engine: Any, params: Any, given: tuple[np.ndarray, np.ndarray, np.ndarray], **options: Any) -> np.ndarray:
    embeds, mask, noise = given
    engine.prefill(embeds, mask, max_new_tokens=params.num_tokens)
    tokens: np.ndarray = engine.decode(params, noise=noise, **options)
    return tokens
