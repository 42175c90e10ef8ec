"""The ops of :mod:`nextstep_rt.ops` that have a GPU kernel, registered with torch as ``torch.ops.nextstep_rt.*``.

Importing this module registers them. Each has a fake implementation, so that ``torch.compile`` and ``torch.export`` go
through, and on a GPU allocates only through torch and in stream order, so that it may be recorded in a CUDA graph.
Tensors on the CPU run the CPU backend (float32; weights bfloat16 too). Inference only: no gradients.

Arguments, shapes and errors are those of :mod:`nextstep_rt.ops`; here every argument is given by position or name as
the schema says, lists of weights are lists of tensors, and ``qkv_linear`` says that it writes to its caches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from . import ops

__all__ = [
    "add_position",
    "attn_decode",
    "fm_head",
    "fm_modulations",
    "gated_linear",
    "linear",
    "qkv_linear",
    "rms_norm",
]


def _tensor(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else torch.from_numpy(result)


def _plain(tensors: Any) -> Any:
    """Without a gradient's history, which DLPack refuses."""
    return (
        None if tensors is None else tensors.detach() if isinstance(tensors, Tensor) else [_plain(t) for t in tensors]
    )


def _like(x: Tensor, shape: Sequence[int | torch.SymInt], dtype: torch.dtype) -> Tensor:
    return x.new_empty(shape, dtype=dtype)


def _rows_dtype(x: Tensor, weight: Tensor, norm_weight: Tensor | None) -> torch.dtype:
    """Of a product's result: ops.linear says when it is bfloat16, which on the CPU it never is."""
    given = x if norm_weight is None else weight
    return torch.float32 if x.device.type == "cpu" else given.dtype


@torch.library.custom_op("nextstep_rt::linear", mutates_args=())
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    silu: bool = False,
    norm_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """``ops.linear``."""
    x, weight, bias, residual, norm_weight = _plain([x, weight, bias, residual, norm_weight])
    return _tensor(ops.linear(x, weight, bias, residual, silu=silu, norm_weight=norm_weight, eps=eps))


@linear.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    silu: bool = False,
    norm_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    dtype = torch.float32 if residual is not None else _rows_dtype(x, weight, norm_weight)
    return _like(x, (x.shape[0], weight.shape[0]), dtype)


@torch.library.custom_op("nextstep_rt::gated_linear", mutates_args=())
def gated_linear(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    norm_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """``ops.gated_linear``."""
    *given, norm_weight = _plain([x, gate, up, gate_bias, up_bias, norm_weight])
    return _tensor(ops.gated_linear(*given, norm_weight=norm_weight, eps=eps))


@gated_linear.register_fake
def _(
    x: Tensor,
    gate: Tensor,
    up: Tensor,
    gate_bias: Tensor | None = None,
    up_bias: Tensor | None = None,
    norm_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    return _like(x, (x.shape[0], gate.shape[0]), _rows_dtype(x, gate, norm_weight))


@torch.library.custom_op("nextstep_rt::qkv_linear", mutates_args=("k_cache", "v_cache"))
def qkv_linear(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    tables: Sequence[Tensor],
    places: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    norm_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """``ops.qkv_linear``."""
    *given, norm_weight = _plain([x, weights, biases, tables, places, k_cache, v_cache, norm_weight])
    if x.device.type == "cpu":
        given[5:7] = [cache.numpy() for cache in given[5:7]]
    return _tensor(ops.qkv_linear(*given, norm_weight=norm_weight, eps=eps))


@qkv_linear.register_fake
def _(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    tables: Sequence[Tensor],
    places: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    norm_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    d_head = k_cache.shape[3]
    return _like(x, (x.shape[0], weights[0].shape[0] // d_head, d_head), _rows_dtype(x, weights[0], norm_weight))


@torch.library.custom_op("nextstep_rt::attn_decode", mutates_args=())
def attn_decode(q: Tensor, k_cache: Tensor, v_cache: Tensor, places: Tensor, starts: Tensor | None = None) -> Tensor:
    """``ops.attn_decode``."""
    return _tensor(ops.attn_decode(*_plain([q, k_cache, v_cache, places, starts])))


@attn_decode.register_fake
def _(q: Tensor, k_cache: Tensor, v_cache: Tensor, places: Tensor, starts: Tensor | None = None) -> Tensor:
    return _like(q, q.shape, q.dtype)


@torch.library.custom_op("nextstep_rt::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """``ops.rms_norm``."""
    return _tensor(ops.rms_norm(*_plain([x, weight]), eps=eps))


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return _like(x, x.shape, torch.float32)


@torch.library.custom_op("nextstep_rt::add_position", mutates_args=())
def add_position(hidden: Tensor, position: Tensor | None = None, dtype: str = "float32") -> Tensor:
    """``ops.add_position``."""
    return _tensor(ops.add_position(*_plain([hidden, position]), dtype=dtype))


@add_position.register_fake
def _(hidden: Tensor, position: Tensor | None = None, dtype: str = "float32") -> Tensor:
    return _like(hidden, hidden.shape, getattr(torch, dtype))


@torch.library.custom_op("nextstep_rt::fm_modulations", mutates_args=())
def fm_modulations(
    condition: Tensor, times: Tensor, cond_weight: Tensor, cond_bias: Tensor, weight: Tensor, bias: Tensor
) -> Tensor:
    """``ops.fm_modulations``."""
    return _tensor(ops.fm_modulations(*_plain([condition, times, cond_weight, cond_bias, weight, bias])))


@fm_modulations.register_fake
def _(condition: Tensor, times: Tensor, cond_weight: Tensor, cond_bias: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return _like(condition, (times.shape[0] * condition.shape[0], weight.shape[0]), condition.dtype)


@torch.library.custom_op("nextstep_rt::fm_head", mutates_args=())
def fm_head(
    weights: Sequence[Tensor],
    modulations: Tensor,
    noise: Tensor,
    plan: Sequence[float],
    image_in: Sequence[Tensor],
    branches: int = 1,
    guidance: float = 1.0,
    image_guidance: float = 1.0,
    renorm: bool = False,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    """``ops.fm_head``; without image_in (an empty list) the embeddings are [0, 0]."""
    weights, modulations, noise, image_in = _plain([weights, modulations, noise, image_in])
    tokens, embeds = ops.fm_head(
        weights,
        modulations,
        noise,
        plan,
        branches=branches,
        guidance=guidance,
        image_guidance=image_guidance,
        renorm=renorm,
        normalize=normalize,
        image_in=image_in,
    )
    return _tensor(tokens), _like(noise, (0, 0), torch.float32) if embeds is None else _tensor(embeds)


@fm_head.register_fake
def _(
    weights: Sequence[Tensor],
    modulations: Tensor,
    noise: Tensor,
    plan: Sequence[float],
    image_in: Sequence[Tensor],
    branches: int = 1,
    guidance: float = 1.0,
    image_guidance: float = 1.0,
    renorm: bool = False,
    normalize: bool = True,
) -> tuple[Tensor, Tensor]:
    _, images, d_tok = noise.shape
    shape = (branches * images, image_in[0].shape[0]) if image_in else (0, 0)
    return _like(noise, (images, d_tok), torch.float32), _like(noise, shape, torch.float32)
