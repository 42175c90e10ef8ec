"""The flow-matching head: an MLP that predicts a velocity, modulated by the time and the backbone's condition.

The modulations depend on the time knots and the condition only, never on the sample: they are a stage of their own.
Layout of one modulation row: for every block shift, scale, gate, then the final layer's shift, scale; each d_fm.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from .types import ModelShape, Weights, linear, wide

NET = "image_head.net."
LN_EPS = 1e-6


def sinusoid(times: torch.Tensor) -> torch.Tensor:
    """Waves of times [n] in [0, 1] -> [n, 256]: 128 cosines, then 128 sines, of t * exp(-ln(10000) * i / 128)."""
    index = torch.arange(128, dtype=times.dtype, device=times.device)
    angle = times[:, None] * torch.exp(-math.log(10000.0) * index / 128)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def time_embedding(weights: Weights, times: torch.Tensor) -> torch.Tensor:
    """Embeds times [n] -> [n, d_fm] in the weights' dtype; the sinusoid itself is computed in float32 at least."""
    dtype = weights[NET + "input_proj.weight"].dtype
    waves = sinusoid(times.to(wide(dtype))).to(dtype)
    return linear(weights, NET + "time_embed.mlp.2", functional.silu(linear(weights, NET + "time_embed.mlp.0", waves)))


def modulations(weights: Weights, config: ModelShape, cond: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
    """Modulations of all knots: cond [b, d_model], times [steps] -> [steps, b, (3 * layers + 2) * d_fm]."""
    time = time_embedding(weights, times)[:, None, :]
    return modulate(weights, config, time + linear(weights, NET + "cond_embed", cond)[None])


def modulate(weights: Weights, config: ModelShape, y: torch.Tensor) -> torch.Tensor:
    """All layers' modulations of y [..., d_fm], the sum of embedded time and condition -> [..., (3*layers+2)*d_fm]."""
    y = functional.silu(y)
    layers = [f"res_blocks.{i}" for i in range(config.fm_head_layers)] + ["final_layer"]
    return torch.cat([linear(weights, f"{NET}{layer}.adaLN_modulation.1", y) for layer in layers], dim=-1)


def velocity(weights: Weights, config: ModelShape, x: torch.Tensor, modulation: torch.Tensor) -> torch.Tensor:
    """Evaluates the head: x [b, d_tok] and the modulations of one knot [b, (3 * layers + 2) * d_fm] -> v [b, d_tok]."""
    parts = modulation.reshape(len(modulation), -1, config.fm_head_dim).unbind(1)
    h = linear(weights, NET + "input_proj", x)
    for i in range(config.fm_head_layers):
        shift, scale, gate = parts[3 * i : 3 * i + 3]
        name = f"{NET}res_blocks.{i}."
        normed = functional.layer_norm(
            h, (config.fm_head_dim,), weights[name + "in_ln.weight"], weights[name + "in_ln.bias"], LN_EPS
        )
        inner = functional.silu(linear(weights, name + "mlp.0", normed * (1 + scale) + shift))
        h = h + gate * linear(weights, name + "mlp.2", inner)
    shift, scale = parts[-2:]
    normed = functional.layer_norm(h, (config.fm_head_dim,), eps=LN_EPS)
    return linear(weights, NET + "final_layer.linear", normed * (1 + scale) + shift)
