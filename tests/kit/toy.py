"""A toy model with every feature, and requests for it."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from kit.golden import SAMPLING_DEFAULTS, load_config
from nextstep_rt.reference import (
    ReferenceEngine,
    expected_shapes,
)


def sampling(**changes: Any) -> SimpleNamespace:
    """A small request, by the names of SamplingParams."""
    small = {"num_tokens": 4, "num_inference_steps": 3, "guidance_scale": 3.0, "branches": 1}
    return SimpleNamespace(**{**SAMPLING_DEFAULTS, **small, **changes})


def small_config(**changes: Any) -> SimpleNamespace:
    """As many features as fit in a toy: a head_dim that is not hidden / heads, GQA, every bias, a wide FM MLP."""
    values = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 11,
        "attention_bias": True,
        "o_attention_bias": True,
        "mlp_bias": True,
        "latent_channels": 2,
        "fm_head_dim": 16,
        "fm_head_layers": 2,
        "fm_head_mlp_ratio": 1.5,
    }
    return load_config("tiny", **{**values, **changes})


def random_tensors(config: SimpleNamespace, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[-1])
        for name, shape in expected_shapes(config).items()
    }


def random_request(config: SimpleNamespace, rows: int, width: int, params: SimpleNamespace, seed: int = 1) -> tuple:
    rng = np.random.default_rng(seed)
    embeds = rng.standard_normal((rows, width, config.hidden_size)).astype(np.float32)
    shape = (params.num_tokens, 1 + params.num_inference_steps, rows // params.branches, config.token_dim)
    return embeds, rng.standard_normal(shape).astype(np.float32)


def started(config: SimpleNamespace, tensors: Any, embeds: np.ndarray, mask: Any = None, **kw: Any) -> ReferenceEngine:
    engine = ReferenceEngine(config, tensors, dtype=kw.pop("dtype", "float64"), **kw)
    engine.prefill(embeds, mask, max_new_tokens=8)
    return engine
