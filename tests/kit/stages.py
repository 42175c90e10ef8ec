"""The native engine against the oracle in float64, stage by stage, on a device.

After every token the oracle is handed the native token, so that each token is compared from equal pasts and rounding
does not pile up over an image; every stage's buffer is compared, not only the token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kit.compare import assert_close, norm_tolerance
from kit.models import SMALL, config_of, random_weights, request, sampling, stored_as
from nextstep_rt import Engine
from nextstep_rt.reference import ReferenceEngine, normalize_token

DEFAULTS = {"guidance_scale": 2.0, "image_guidance_scale": 1.0, "num_inference_steps": 3}
STATES = ("hidden", "cond", "modulation", "velocity", "latent")


@dataclass(frozen=True)
class Setup:
    """A model, a request to it, and how the native side gets both."""

    config: dict[str, Any]
    sampling: dict[str, Any]
    images: int
    width: int
    threads: int
    seed: int
    device: str = "cpu"


def tolerances(setup: Setup, dtype: str) -> dict[str, float]:
    """Relative, by norm. Each stage adds its roundings to those before it; guidance multiplies what it is handed.

    float32: a product of length k rounds k / 8 times in each lane. bfloat16: a product's input and the KV cache are
    rounded once, beside which the sums' own rounding is nothing.
    """
    c, s = {**SMALL, **setup.config}, {**DEFAULTS, **setup.sampling}
    wide = {
        "backbone": max(c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * c["head_dim"]),
        "head": max(c["hidden_size"], c["fm_head_dim"] * c["fm_head_mlp_ratio"], 256),
    }
    each = {part: 1 + k / 8 if dtype == "float32" else 1.0 for part, k in wide.items()}
    # Per layer: q k v's input, keys, values, the scores (softmax makes their error relative), o's input, gate and up's
    # input, down's input.
    backbone = 8 * c["num_hidden_layers"] * each["backbone"] + setup.width / 8 * (dtype == "float32")
    cond = backbone + each["backbone"]
    modulation = cond + 4 * each["head"]
    evaluation = modulation + (3 * c["fm_head_layers"] + 2) * each["head"]
    g, gi = s["guidance_scale"], s["image_guidance_scale"]
    gain = {1: 1.0, 2: abs(g) + abs(1 - g), 3: abs(g) + abs(gi - g) + abs(1 - gi)}[s["branches"]]
    trajectory = norm_tolerance(evaluation, dtype) * max(gain, 1.0)
    return {
        "hidden": norm_tolerance(backbone, dtype),
        "cond": norm_tolerance(cond, dtype),
        "modulation": norm_tolerance(modulation, dtype),
        "velocity": trajectory * math.sqrt(s["num_inference_steps"]),
        "latent": trajectory * math.sqrt(s["num_inference_steps"]),
    }


def compare(setup: Setup, dtype: str) -> None:
    config, params = config_of(**setup.config), sampling(**setup.sampling)
    weights = random_weights(config, setup.seed)
    embeds, mask, noise = request(config, params, setup.images, setup.width, setup.seed)
    native = Engine(config, stored_as(weights, dtype), dtype=dtype, threads=setup.threads, device=setup.device)
    oracle = ReferenceEngine(config, weights, dtype="float64", threads=1)
    allowed = tolerances(setup, dtype)
    for engine in (native, oracle):
        engine.prefill(embeds, mask, max_new_tokens=params.num_tokens)
    for s in range(params.num_tokens):
        got, _ = (engine.decode(params, 1, noise=noise[s : s + 1]) for engine in (native, oracle))
        for state in STATES:
            if state == "hidden" and config.use_gen_pos_embed:
                continue  # see test_hidden_with_gen_pos_embed
            assert_close(native.state(state), oracle.state(state), allowed[state], what=f"token {s}, {state}")
        token = torch.from_numpy(native.state("latent").astype(np.float64))
        if params.normalize_tokens:
            spread = token.std(dim=-1, correction=0).min()
            token = normalize_token(token)
            amplified = 1 + float(np.abs(native.state("latent")).max() / spread)
            assert_close(got[:, 0], token, norm_tolerance(8) * amplified, what=f"token {s}, normalised")
        else:
            assert np.array_equal(got[:, 0], native.state("latent"))
        oracle._pending = torch.from_numpy(got[:, 0].astype(np.float64))
