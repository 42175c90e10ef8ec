"""Prefill both ways, a library's products and the linear kernels in chunks, from how many rows on which is faster."""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from .engine import upload
from .figures import Figures

# csrc/cuda/prefill.cc: rows from which the library is used; read when an engine is made.
ROWS_FROM = "NSRT_PREFILL_ROWS"
WAYS = {"library": "1", "kernels": str(1 << 30)}
LENGTHS = (16, 64, 128, 256, 512, 1024)
EMULATED_LENGTHS = (4, 9)
LAYERS, REPEATS = 4, 5


def times(engine: Any, lengths: tuple[int, ...], left: Callable[[], float]) -> dict[str, float]:
    """Median ms of the prefill of one row of so many positions, by their number, until no time is left."""
    rng, out = np.random.default_rng(0), {}
    for length in lengths:
        if left() < 5:
            break
        embeds = rng.standard_normal((1, length, engine.config.hidden_size)).astype(np.float32)
        samples = []
        for _ in range(1 + REPEATS):
            begin = time.perf_counter()
            engine.prefill(embeds, max_new_tokens=1)
            samples.append(1e3 * (time.perf_counter() - begin))
        out[str(length)] = round(statistics.median(samples[1:]), 4)
    return out


def faster_from(ms: dict[str, dict[str, float]]) -> int | None:
    """The fewest rows from which the library is faster at every number measured; None: at none."""
    both = sorted((int(n) for n in ms["library"] if n in ms["kernels"]), reverse=True)
    first = None
    for length in both:
        if ms["library"][str(length)] >= ms["kernels"][str(length)]:
            break
        first = length
    return first


def measure(figures: Figures, shape: str, left: Callable[[], float]) -> None:
    """Both ways' times with a few layers of the shape, and from where on the library pays."""
    from nextstep_rt import _core

    figures.put("products", _core.build_info()["cuda_prefill"])
    lengths = EMULATED_LENGTHS if shape == "tiny" else LENGTHS
    layers = 1 if shape == "tiny" else LAYERS
    figures.put("layers", layers)
    before = os.environ.get(ROWS_FROM)
    ms: dict[str, dict[str, float]] = {}
    try:
        for way, rows_from in WAYS.items():
            os.environ[ROWS_FROM] = rows_from
            engine, _ = upload(shape, layers)
            ms[way] = times(engine, lengths, left)
            figures.put("ms", ms)
            del engine
            gc.collect()
    finally:
        os.environ.pop(ROWS_FROM)
        if before is not None:
            os.environ[ROWS_FROM] = before
    figures.put("library_is_faster_from", faster_from(ms))
