"""The hot kernels alone at the shape's sizes: bandwidth of the products by either path, and of attention."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..synthetic import config_of
from .figures import Figures
from .roofs import best_ms, graph_of

PATHS = ("tensor", "fma")
ROWS = (1, 2, 3, 4)
MORE_ROWS = (8, 16)  # by tensor cores alone
POSITIONS = (256, 1024)


def products(config: Any) -> dict[str, tuple[int, int]]:
    """[n, k] of the products of a layer; gate and up as one."""
    d, heads = config.hidden_size, config.num_attention_heads + 2 * config.num_key_value_heads
    return {
        "qkv": (heads * config.head_dim, d),
        "o": (d, config.num_attention_heads * config.head_dim),
        "gate, up": (2 * config.intermediate_size, d),
        "down": (d, config.intermediate_size),
    }


def copies_of(size: int) -> int:
    """How many arrays of so many bytes, read in turn, leave nothing of one in L2 until it is read again."""
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    return max(2, -(-2 * l2 // size))


def product_times(n: int, k: int, seconds_left: Callable[[], float]) -> dict[str, dict[str, float]]:
    """GB/s of weights by path and number of rows."""
    from nextstep_rt.ops import cuda

    native, size = cuda.native(), 2 * n * k
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16) for _ in range(copies_of(size))]

    def multiply(path: str, x: torch.Tensor, w: torch.Tensor, out: torch.Tensor) -> None:
        native.linear_by(path, x, w, out, torch.cuda.current_stream().cuda_stream)

    found: dict[str, dict[str, float]] = {path: {} for path in PATHS}
    for rows in (*ROWS, *MORE_ROWS):
        x = torch.randn(rows, k, device="cuda", dtype=torch.bfloat16)
        out = torch.empty(rows, n, device="cuda")
        for path in PATHS if rows in ROWS else PATHS[:1]:
            if seconds_left() < 5:
                return found
            works = [partial(multiply, path, x, w, out) for w in weights]
            found[path][str(rows)] = round(len(works) * size / best_ms(graph_of(works).replay) / 1e6, 1)
    return found


def tensor_rows_from(gbs: dict[str, dict[str, dict[str, float]]], sizes: dict[str, tuple[int, int]]) -> int | None:
    """The fewest rows from which tensor cores take no longer for a layer's products; None: never measured so."""
    first = None
    for rows in reversed(ROWS):
        times: dict[str, float] = {}
        for path in PATHS:
            speeds = [gbs.get(name, {}).get(path, {}).get(str(rows)) for name in sizes]
            if not all(speeds):
                break
            times[path] = sum(n * k / speed for (n, k), speed in zip(sizes.values(), speeds, strict=True) if speed)
        if len(times) < len(PATHS):
            continue
        if times["tensor"] > times["fma"]:
            break
        first = rows
    return first


def attention_times(config: Any, positions: int, seconds_left: Callable[[], float]) -> dict[str, float]:
    """GB/s of the cache by number of rows, each of a sequence of its own."""
    from nextstep_rt import ops

    found: dict[str, float] = {}
    for rows in ROWS:
        if seconds_left() < 5:
            return found
        shape = (rows, config.num_key_value_heads, positions, config.head_dim)
        size = 2 * 2 * rows * config.num_key_value_heads * positions * config.head_dim
        caches = [torch.randn(2, *shape, device="cuda", dtype=torch.bfloat16) for _ in range(copies_of(size))]
        q = torch.randn(rows, config.num_attention_heads, config.head_dim, device="cuda", dtype=torch.bfloat16)
        out = torch.empty_like(q)
        places = torch.tensor([[r, positions - 1] for r in range(rows)], dtype=torch.int32, device="cuda")
        works = [partial(ops.attn_decode, q, c[0], c[1], places, out=out) for c in caches]
        found[str(rows)] = round(len(works) * size / best_ms(graph_of(works).replay) / 1e6, 1)
    return found


def measure(figures: Figures, shape: str, seconds_left: Callable[[], float]) -> None:
    """Each from memory, not from L2, in a graph of its own."""
    config = config_of(shape)
    gbs: dict[str, dict[str, dict[str, float]]] = {}
    for name, (n, k) in products(config).items():
        gbs[name] = product_times(n, k, seconds_left)
        figures.put("products_gbs", gbs)
    figures.put("tensor_rows_from", tensor_rows_from(gbs, products(config)))
    attention = {}
    for positions in POSITIONS:
        attention[str(positions)] = attention_times(config, positions, seconds_left)
        figures.put("attention_gbs", attention)
