"""Time per image token of the native loop and of the torch reference, in one run."""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from nextstep_rt import Engine, SamplingParams, _core
from nextstep_rt.reference import ReferenceEngine

from .synthetic import config_of, random_weights

PROMPT = 32  # positions prefilled
WARM_UP = 2  # tokens before the clock counts


def token_times(engine: Any, rows: int, steps: int, tokens: int) -> list[float]:
    """Seconds of each token after the warm-up; two branches when rows is even, else one."""
    embeds = np.random.default_rng(0).standard_normal((rows, PROMPT, engine.config.hidden_size)).astype(np.float32)
    engine.prefill(embeds, max_new_tokens=WARM_UP + tokens)
    branches = 2 if rows % 2 == 0 else 1
    params = SamplingParams(
        num_tokens=WARM_UP + tokens, num_inference_steps=steps, guidance_scale=3.0, branches=branches
    )
    stamps = [time.perf_counter()]
    engine.decode(params, seeds=range(rows // branches), callback=lambda *_: stamps.append(time.perf_counter()))
    return [b - a for a, b in pairwise(stamps)][WARM_UP:]


def measure(
    shape: str, dtype: str, rows: int, steps: int, tokens: int, repeats: int, threads: int | None
) -> dict[str, Any]:
    """Alternates native and reference `repeats` times; medians in ms, and the ratio of each pair."""
    config = config_of(shape)
    weights = random_weights(config, torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    native = Engine(config, weights, dtype=dtype, threads=threads)
    reference = ReferenceEngine(config, weights, dtype=dtype, threads=native.threads)
    pairs = []
    for _ in range(repeats):
        fast = statistics.median(token_times(native, rows, steps, 3 * tokens))
        pairs.append((fast, statistics.median(token_times(reference, rows, steps, tokens))))
    cost = _core.token_cost(config, dtype, rows, steps, PROMPT + tokens)
    best = min(p[0] for p in pairs)
    return {
        "shape": shape, "dtype": dtype, "rows": rows, "steps": steps, "threads": native.threads,
        "backend": native.backend,
        "native_ms": round(1e3 * statistics.median(p[0] for p in pairs), 2),
        "native_ms_min": round(1e3 * best, 2),
        "reference_ms": round(1e3 * statistics.median(p[1] for p in pairs), 2),
        "ratio": round(statistics.median(p[1] / p[0] for p in pairs), 2),
        "ratios": [round(p[1] / p[0], 2) for p in pairs],
        "bytes_per_token": cost,
    }  # fmt: skip


def environment() -> dict[str, str]:
    """What the figures were measured on."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    model = "unknown"
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    return {
        "command": " ".join(["python -m bench", *sys.argv[1:]]),
        "commit": commit,
        "cpu": model,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "version": _core.build_info()["version"],
        "compiler": _core.build_info()["compiler"],
    }
