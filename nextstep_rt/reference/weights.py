"""From a checkpoint's tensors to the oracle's: checked names and shapes, one dtype, one device."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.dlpack import from_dlpack

from ..errors import CheckpointError
from .types import ModelShape

Shape = tuple[int, ...]

# Stored by some releases, not needed here: rotations, the tied or text-only head, an unused position table.
OPTIONAL = re.compile(r"lm_head\.weight|gen_pos_embed|(.*\.)?rotary_emb\.inv_freq")


def expected_shapes(config: ModelShape) -> dict[str, Shape]:
    """Every tensor the mathematics reads, by released name."""
    c, d = config, config.hidden_size
    shapes: dict[str, Shape] = {"embed_tokens.weight": (c.vocab_size, d), "norm.weight": (d,)}

    def dense(name: str, rows: int, columns: int, bias: bool = True) -> None:
        shapes[name + ".weight"] = (rows, columns)
        if bias:
            shapes[name + ".bias"] = (rows,)

    q_dim, kv_dim = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    for i in range(c.num_hidden_layers):
        layer = f"layers.{i}."
        shapes[layer + "input_layernorm.weight"] = shapes[layer + "post_attention_layernorm.weight"] = (d,)
        dense(layer + "self_attn.q_proj", q_dim, d, c.attention_bias)
        dense(layer + "self_attn.k_proj", kv_dim, d, c.attention_bias)
        dense(layer + "self_attn.v_proj", kv_dim, d, c.attention_bias)
        dense(layer + "self_attn.o_proj", d, q_dim, c.o_attention_bias)
        dense(layer + "mlp.gate_proj", c.intermediate_size, d, c.mlp_bias)
        dense(layer + "mlp.up_proj", c.intermediate_size, d, c.mlp_bias)
        dense(layer + "mlp.down_proj", d, c.intermediate_size, c.mlp_bias)
    dense("image_in_projector", d, c.token_dim)
    dense("image_out_projector", d, d)

    f = c.fm_head_dim
    dense("image_head.net.time_embed.mlp.0", f, 256)
    dense("image_head.net.time_embed.mlp.2", f, f)
    dense("image_head.net.cond_embed", f, d)
    dense("image_head.net.input_proj", f, c.token_dim)
    for i in range(c.fm_head_layers):
        res_block = f"image_head.net.res_blocks.{i}."
        shapes[res_block + "in_ln.weight"] = shapes[res_block + "in_ln.bias"] = (f,)
        dense(res_block + "mlp.0", c.fm_mlp_dim, f)
        dense(res_block + "mlp.2", f, c.fm_mlp_dim)
        dense(res_block + "adaLN_modulation.1", 3 * f, f)
    dense("image_head.net.final_layer.adaLN_modulation.1", 2 * f, f)
    dense("image_head.net.final_layer.linear", c.token_dim, f)
    return shapes


def as_torch(value: Any) -> torch.Tensor:
    """A torch tensor, a numpy array or anything with __dlpack__, without a copy where that is possible."""
    if isinstance(value, torch.Tensor):
        return value
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value if value.flags.writeable else value.copy())
    tensor: torch.Tensor = from_dlpack(value)
    return tensor


def load_weights(
    config: ModelShape, tensors: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> tuple[dict[str, torch.Tensor], int]:
    """The weights in `dtype`, and how many of their bytes had to be converted.

    Raises CheckpointError naming what is missing, unknown or misshapen.
    """
    shapes = expected_shapes(config)
    for name in ("lm_head.weight", "gen_pos_embed"):
        if name in tensors:
            shapes[name] = tuple(tensors[name].shape)
    missing = sorted(name for name in shapes if name not in tensors)
    if config.use_gen_pos_embed and "gen_pos_embed" not in tensors:
        missing.append("gen_pos_embed (config.json sets use_gen_pos_embed)")
    # An unread tensor would mean a model other than the one computed here.
    unknown = sorted(name for name in tensors if name not in shapes and not OPTIONAL.fullmatch(name))
    if missing or unknown:
        raise CheckpointError(f"tensors missing: {missing or 'none'}; tensors unknown: {unknown or 'none'}")
    loaded: dict[str, torch.Tensor] = {}
    converted = 0
    for name, shape in shapes.items():
        source = as_torch(tensors[name])
        if tuple(source.shape) != shape:
            raise CheckpointError(f"{name} has shape {tuple(source.shape)}, config.json asks for {shape}")
        loaded[name] = source.to(device=device, dtype=dtype)
        if source.dtype != dtype:
            converted += loaded[name].numel() * loaded[name].element_size()
    return loaded, converted
