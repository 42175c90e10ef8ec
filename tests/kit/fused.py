"""Random arguments for the fused ops of nextstep_rt.ops, as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from nextstep_rt import SamplingParams, ops


def normal(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> Any:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def matrix(rng: np.random.Generator, n: int, k: int) -> Any:
    return normal(rng, n, k, scale=k**-0.5)


def linear_case(rng: np.random.Generator, b: int, n: int, k: int) -> dict[str, Any]:
    """Of linear()."""
    return {
        "x": normal(rng, b, k),
        "weight": matrix(rng, n, k),
        "bias": normal(rng, n),
        "residual": normal(rng, b, n),
        "norm_weight": normal(rng, k),
    }


def places(rng: np.random.Generator, b: int, sequences: int, capacity: int) -> Any:
    """Each row's sequence and position, no two the same."""
    chosen = rng.choice(sequences * capacity, b, replace=False)
    return np.stack([chosen // capacity, chosen % capacity], axis=1).astype(np.int32)


def qkv_case(rng: np.random.Generator, b: int, k: int, h_q: int, h_kv: int, d: int) -> dict[str, Any]:
    """Of qkv_linear()."""
    heads = (h_q, h_kv, h_kv)
    sequences, capacity = 3, 19
    cache = (sequences, h_kv, capacity, d)
    return {
        "x": normal(rng, b, k),
        "weights": [matrix(rng, h * d, k) for h in heads],
        "biases": [normal(rng, h * d) for h in heads],
        "tables": list(ops.rope_tables(capacity, d, theta=10000.0)),
        "places": places(rng, b, sequences, capacity),
        "k_cache": normal(rng, *cache),
        "v_cache": normal(rng, *cache),
        "norm_weight": normal(rng, k),
    }


def attn_case(rng: np.random.Generator, b: int, h_q: int, h_kv: int, d: int, capacity: int) -> dict[str, Any]:
    """Of attn_decode()."""
    where = places(rng, b, 2, capacity)
    return {
        "q": normal(rng, b, h_q, d, scale=d**-0.5),
        "k_cache": normal(rng, 2, h_kv, capacity, d),
        "v_cache": normal(rng, 2, h_kv, capacity, d),
        "places": where,
        "starts": (rng.random(b) * (where[:, 1] + 1)).astype(np.int32),
    }


def fm_case(rng: np.random.Generator, params: SamplingParams, branches: int, images: int, d_model: int) -> Any:
    """(Of fm_modulations(), of fm_head() but for the modulations)."""
    d, d_mlp, d_tok, layers = 56, 80, 24, 2
    plan = ops.fm_plan(params)
    times, draws = int(max(plan[1::6])) + 1, params.num_inference_steps + 1
    modulations = {
        "condition": normal(rng, branches * images, d_model),
        "times": normal(rng, times, d),
        "cond_weight": matrix(rng, d, d_model),
        "cond_bias": normal(rng, d),
        "weight": matrix(rng, (3 * layers + 2) * d, d),
        "bias": normal(rng, (3 * layers + 2) * d),
    }
    weights = [matrix(rng, d, d_tok), normal(rng, d), matrix(rng, d_tok, d), normal(rng, d_tok)]
    for _ in range(layers):
        weights += [1 + normal(rng, d, scale=0.1), normal(rng, d, scale=0.1), matrix(rng, d_mlp, d), normal(rng, d_mlp)]
        weights += [matrix(rng, d, d_mlp), normal(rng, d)]
    head = {
        "weights": weights,
        "noise": normal(rng, draws, images, d_tok),
        "plan": plan,
        "branches": branches,
        "guidance": 2.5,
        "image_guidance": 1.5,
        "renorm": branches > 1,
        "image_in": [matrix(rng, d_model, d_tok), normal(rng, d_model)],
    }
    return modulations, head
