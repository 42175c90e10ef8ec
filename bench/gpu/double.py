"""The fused ops in numpy's float64, written as docs/model.md says them: what the GPU's kernels are held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

NORM_EPS = 1e-6  # of the FM head's LayerNorms and of the tokens
UPDATE, HEUN_PREDICT, HEUN_CORRECT = 0, 1, 2


def silu(x: Any) -> Any:
    """The sigmoid-weighted linear unit."""
    return x / (1 + np.exp(-x))


def rms_norm(x: Any, weight: Any, eps: float) -> Any:
    """Of every row."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def normalized(x: Any) -> Any:
    """LayerNorm of every row, without weights."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + NORM_EPS)


def rotated(heads: Any, cos: Any, sin: Any) -> Any:
    """Half-split rotary embedding of heads [rows, h, d] by tables [rows, d / 2]."""
    low, high = np.split(heads, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=-1)


def qkv(x: Any, weights: Sequence[Any], biases: Sequence[Any], tables: Sequence[Any], places: Any, d: int) -> Any:
    """Queries, keys and values of rows, [rows, h, d] each."""
    heads = [(x @ w.T + b).reshape(len(x), -1, d) for w, b in zip(weights, biases, strict=True)]
    cos, sin = (table[places[:, 1]] for table in tables)
    return rotated(heads[0], cos, sin) / np.sqrt(d), rotated(heads[1], cos, sin), heads[2]


def attention(q: Any, k: Any, v: Any, places: Any, starts: Any) -> Any:
    """[rows, h_q, d] over caches [sequences, h_kv, capacity, d]; zeros for a row that sees no position."""
    out = np.zeros(q.shape)
    group = q.shape[1] // k.shape[1]
    for r, (sequence, position) in enumerate(places):
        seen = slice(starts[r], position + 1)
        for h in range(q.shape[1]):
            keys, values = k[sequence, h // group, seen], v[sequence, h // group, seen]
            if len(keys):
                scores = np.exp((p := keys @ q[r, h]) - p.max())
                out[r, h] = scores @ values / scores.sum()
    return out


def modulations(condition: Any, times: Any, cond: Sequence[Any], weights: Sequence[Any]) -> Any:
    """[times * rows, n] of the FM head's adaLN matrices."""
    inputs = silu((condition @ cond[0].T + cond[1])[None] + times[:, None])
    return inputs.reshape(-1, inputs.shape[-1]) @ weights[0].T + weights[1]


def velocity(weights: Sequence[Any], modulation: Any, x: Any) -> Any:
    """The FM head's network of rows x [rows, d_tok]; modulation [rows, (3 layers + 2) d]."""
    d = weights[0].shape[0]
    parts = np.split(modulation, modulation.shape[1] // d, axis=1)
    h = x @ weights[0].T + weights[1]
    for block in range((len(weights) - 4) // 6):
        norm_weight, norm_bias, fc1, fc1_bias, fc2, fc2_bias = weights[4 + 6 * block : 10 + 6 * block]
        shift, scale, gate = parts[3 * block : 3 * block + 3]
        inner = (normalized(h) * norm_weight + norm_bias) * (1 + scale) + shift
        h = h + gate * (silu(inner @ fc1.T + fc1_bias) @ fc2.T + fc2_bias)
    shift, scale = parts[-2:]
    return (normalized(h) * (1 + scale) + shift) @ weights[2].T + weights[3]


def guided(v: Any, scale: float, image_scale: float, renorm: bool) -> Any:
    """One velocity an image of [branches, images, d_tok]: condition, (image only,) none."""
    if len(v) == 1:
        return v[0]
    middle = v[1] if len(v) == 3 else v[-1]
    mixed = v[-1] + image_scale * (middle - v[-1]) + scale * (v[0] - middle)
    if not renorm:
        return mixed
    lengths = [np.linalg.norm(rows, axis=-1, keepdims=True) for rows in (v[0], mixed)]
    return mixed * np.minimum(1, lengths[0] / (lengths[1] + 1e-6))


def fm_head(head: dict[str, Any], made: Any) -> tuple[Any, Any]:
    """Tokens and embeddings of ops.fm_head's arguments `head` with modulations `made`."""
    noise, branches = head["noise"], head["branches"]
    images = noise.shape[1]
    x, kept_x, kept_v = noise[0].copy(), noise[0], noise[0]
    by_time = made.reshape(-1, branches * images, made.shape[1])
    for kind, time, draw, cx, cv, ce in np.reshape(head["plan"], (-1, 6)):
        v = velocity(head["weights"], by_time[int(time)], np.tile(x, (branches, 1)))
        v = guided(v.reshape(branches, images, -1), head["guidance"], head["image_guidance"], head["renorm"])
        if kind == HEUN_PREDICT:
            kept_x, kept_v, x = x, v, x + cv * v
        elif kind == HEUN_CORRECT:
            x = kept_x + cv * (kept_v + v)
        else:
            x = cx * x + cv * v + (ce * noise[int(draw)] if draw >= 0 else 0)
    tokens = normalized(x)
    return tokens, np.tile(tokens @ head["image_in"][0].T + head["image_in"][1], (branches, 1))
