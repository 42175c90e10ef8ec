"""The causal transformer (Qwen2 shape): norms, rotations, grouped-query attention with a KV cache, gated MLP.

Shapes: b rows, s new columns, t all columns so far. Rows are left padded; a column that is padding is kept in the
cache and masked out of attention. Positions count from 0 at each row's first real column.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from .types import ModelShape, Weights, linear, wide


@dataclass
class Sequences:
    """The rows seen so far: which columns are real [b, t], and each layer's keys and values [b, h_kv, t, d_head]."""

    keep: torch.Tensor
    keys: list[torch.Tensor] = field(default_factory=list)
    values: list[torch.Tensor] = field(default_factory=list)

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends columns k, v [b, h_kv, s, d_head] to a layer; returns all of that layer's columns."""
        if layer == len(self.keys):
            self.keys.append(k)
            self.values.append(v)
        else:
            self.keys[layer] = torch.cat([self.keys[layer], k], dim=2)
            self.values[layer] = torch.cat([self.values[layer], v], dim=2)
        return self.keys[layer], self.values[layer]


@dataclass(frozen=True)
class Columns:
    """What the last s of t columns need besides their embeddings, the same in every layer.

    rope: cosines and sines of :func:`rope_tables`. mask [b, 1, s, t], added to the scores: 0 where a query may look,
    -inf where not.
    """

    rope: tuple[torch.Tensor, ...]
    mask: torch.Tensor

    @classmethod
    def of(cls, config: ModelShape, keep: torch.Tensor, s: int, dtype: torch.dtype) -> Columns:
        """For the last s columns of keep [b, t], computed in the wide type of `dtype`."""
        t = keep.shape[1]
        positions = (keep.cumsum(dim=1) - 1).clamp(min=0)[:, t - s :]
        query = torch.arange(t - s, t, device=keep.device)[:, None]
        key = torch.arange(t, device=keep.device)[None, :]
        # A padding query sees itself: its result is never read, but a softmax over nothing would be NaN.
        visible = (((key <= query) & keep[:, None, :]) | (key == query))[:, None]
        mask = torch.zeros(visible.shape, dtype=wide(dtype), device=keep.device).masked_fill(~visible, -torch.inf)
        return cls(rope_tables(positions, config.head_dim, config.rope_theta, dtype), mask)


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """Divides x by its root mean square over the last axis, rounded back before the weight applies."""
    x_wide = x.to(wide(x.dtype))
    scale = torch.rsqrt(x_wide.pow(2).mean(-1, keepdim=True) + eps)
    return (x_wide * scale).to(x.dtype) * weight


def rope_tables(positions: torch.Tensor, head_dim: int, theta: float, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Cosines and sines [b, 1, s, d_head / 2] of positions [b, s], in the wide type of `dtype`."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    angle = positions[:, None, :, None].to(torch.float64) * theta**-exponent
    return angle.cos().to(wide(dtype)), angle.sin().to(wide(dtype))


def apply_rope(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotates x [b, h, s, d_head], pairing dimension i with i + d_head / 2; rounded once, at the end."""
    first, second = x.to(cos.dtype).chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def attention(
    weights: Weights,
    config: ModelShape,
    layer: int,
    x: torch.Tensor,
    columns: Columns,
    sequences: Sequences,
) -> torch.Tensor:
    """Self-attention, x [b, s, d_model] -> [b, s, d_model]."""
    name = f"layers.{layer}.self_attn."
    b, s, _ = x.shape

    def heads(projection: str, count: int) -> torch.Tensor:
        return linear(weights, name + projection, x).view(b, s, count, config.head_dim).transpose(1, 2)

    q = apply_rope(heads("q_proj", config.num_attention_heads), *columns.rope)
    k = apply_rope(heads("k_proj", config.num_key_value_heads), *columns.rope)
    k, v = sequences.extend(layer, k, heads("v_proj", config.num_key_value_heads))
    group = config.num_attention_heads // config.num_key_value_heads
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)

    scores = q.to(wide(x.dtype)) @ k.to(wide(x.dtype)).transpose(-1, -2) * config.head_dim**-0.5
    probabilities = (scores + columns.mask).softmax(dim=-1)
    mixed = (probabilities @ v.to(probabilities.dtype)).to(x.dtype)
    return linear(weights, name + "o_proj", mixed.transpose(1, 2).reshape(b, s, -1))


def mlp(weights: Weights, layer: int, x: torch.Tensor) -> torch.Tensor:
    """Gated MLP, x [..., d_model] -> [..., d_model]: down(silu(gate(x)) * up(x))."""
    name = f"layers.{layer}.mlp."
    return linear(
        weights,
        name + "down_proj",
        functional.silu(linear(weights, name + "gate_proj", x)) * linear(weights, name + "up_proj", x),
    )


def block(
    weights: Weights,
    config: ModelShape,
    layer: int,
    x: torch.Tensor,
    columns: Columns,
    sequences: Sequences,
) -> torch.Tensor:
    """One pre-norm transformer block over x [b, s, d_model]."""
    normed = rms_norm(x, weights[f"layers.{layer}.input_layernorm.weight"], config.rms_norm_eps)
    x = x + attention(weights, config, layer, normed, columns, sequences)
    normed = rms_norm(x, weights[f"layers.{layer}.post_attention_layernorm.weight"], config.rms_norm_eps)
    return x + mlp(weights, layer, normed)


def run_backbone(
    weights: Weights,
    config: ModelShape,
    embeds: torch.Tensor,
    sequences: Sequences,
    columns: Columns | None = None,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Runs the last s columns of `sequences` (whose `keep` covers them already, whose cache does not).

    embeds [b, s, d_model] -> (hidden [b, s, d_model] after the final norm, every block's output likewise). columns:
    `Columns.of` them where the caller has it.
    """
    columns = columns or Columns.of(config, sequences.keep, embeds.shape[1], embeds.dtype)
    x, outputs = embeds, []
    for layer in range(config.num_hidden_layers):
        x = block(weights, config, layer, x, columns, sequences)
        outputs.append(x)
    return rms_norm(x, weights["norm.weight"], config.rms_norm_eps), outputs


def lm_logits(weights: Weights, config: ModelShape, hidden: torch.Tensor) -> torch.Tensor:
    """Text logits [..., vocab_size] of hidden [..., d_model]; not needed while image tokens are made."""
    head = "embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    return functional.linear(hidden, weights[head])
