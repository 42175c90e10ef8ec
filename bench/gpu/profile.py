"""Where a token's time goes, kernel by kernel, by torch's profiler (CUPTI), which sees the kernels of a graph."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .engine import DTYPE, axes_of, upload
from .figures import Figures, token_bytes

TOKENS = 6
LAST, HIDDEN, CONDITION = "fm_head_kernel", "take_hidden_kernel", "condition_rows_kernel"


def kernel_name(name: str) -> str:
    """Without namespaces, template arguments and parameters."""
    found = re.search(r"\w+_kernel", name)
    return found[0] if found else name[:60]


def tokens_of(trace: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """The kernels of a Chrome trace in order of their start, cut into tokens: each ends with the FM head's kernel."""
    kernels = [e for e in trace["traceEvents"] if e.get("cat") == "kernel"]
    tokens: list[list[dict[str, Any]]] = [[]]
    for event in sorted(kernels, key=lambda e: float(e["ts"])):
        begin = float(event["ts"])
        name = kernel_name(event["name"])
        tokens[-1].append({"name": name, "begin": begin, "end": begin + float(event["dur"])})
        if name == LAST:
            tokens.append([])
    return tokens[:-1]


def stages_of(token: list[dict[str, Any]]) -> dict[str, float]:
    """Microseconds of a token's stages, each from the end of the one before it: kernels overlap."""
    names = [kernel["name"] for kernel in token]
    hidden, condition = names.index(HIDDEN), names.index(CONDITION) + 1  # a copy of rows, then the product
    ends = [token[0]["begin"], *(token[i]["end"] for i in (hidden, condition, -2, -1))]
    stages = ("backbone", "condition", "modulations", "fm_head")
    return {stage: ends[i + 1] - ends[i] for i, stage in enumerate(stages)}


def summary(trace: Mapping[str, Any]) -> dict[str, Any]:
    """Medians over the trace's tokens but the first, in ms; calls and mean microseconds of each kind of kernel."""
    tokens = tokens_of(trace)[1:]
    if not tokens:
        raise RuntimeError("the profiler saw no kernels of the recorded token")
    stages = [stages_of(token) for token in tokens]
    kinds: dict[str, list[float]] = {}
    for kernel in (k for token in tokens for k in token):
        kinds.setdefault(kernel["name"], []).append(kernel["end"] - kernel["begin"])
    pauses = [after[0]["begin"] - before[-1]["end"] for before, after in pairwise(tokens)]
    return {
        "method": "CUPTI through torch.profiler; a stage lasts from the end of the one before to its own end",
        "tokens": len(tokens),
        "kernels_per_token": len(tokens[0]),
        "stages_ms": {name: round(statistics.median(s[name] for s in stages) / 1e3, 4) for name in stages[0]},
        "between_tokens_ms": round(statistics.median(pauses) / 1e3, 4) if pauses else None,
        "kernels": {
            name: {"calls": round(len(us) / len(tokens), 1), "us": round(statistics.fmean(us), 2)}
            for name, us in sorted(kinds.items())
        },
    }


def stage_bytes(config: Any, rows: int, steps: int, positions: int) -> dict[str, int]:
    """What each of the stages must read, as figures.token_bytes counts; cond_embed runs with the modulations."""
    size = token_bytes(config, DTYPE, rows, steps, positions)
    cond = 2 * config.fm_head_dim * config.hidden_size
    return {
        "backbone": size["backbone"] + size["kv"],
        "condition": size["condition"] - cond,
        "modulations": size["fm_modulation"] + cond,
        "fm_head": size["fm_steps"],
    }


def measure(figures: Figures, shape: str, layers: int) -> None:
    """Profiles a few tokens of the default case."""
    from nextstep_rt import SamplingParams

    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds):  # CUPTI is there before the graph is made
        torch.zeros(1, device="cuda").add_(1)
    case = axes_of(shape).default
    engine, _ = upload(shape, layers)
    embeds = np.random.default_rng(0).standard_normal((case.rows, case.positions - TOKENS, engine.config.hidden_size))
    engine.prefill(embeds.astype(np.float32), max_new_tokens=2 * TOKENS)
    params = SamplingParams(
        num_tokens=2 * TOKENS, num_inference_steps=case.steps, guidance_scale=3.0, branches=case.rows
    )
    engine.decode(params, TOKENS, seeds=[0])
    with torch.profiler.profile(activities=kinds) as profiler:
        engine.decode(params, TOKENS, seeds=[0])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        trace = json.loads(path.read_text(encoding="utf-8"))
    figures.update(summary(trace))
    figures.put("stage_bytes", stage_bytes(engine.config, case.rows, case.steps, case.positions))
    figures.put("case", case.name)
