"""torch on the same GPU, in the same run: the eager reference, and one token as a CUDA graph."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from nextstep_rt import SamplingParams
from nextstep_rt.reference import ReferenceEngine

from ..synthetic import config_of, shared_weights
from ..torch_graph import GraphToken
from .engine import axes_of
from .figures import Figures, relative_error, spread

EAGER_TOKENS, GRAPH_TOKENS, CHECKED = 6, 24, 4
FLOAT32_TOLERANCE = 1e-3
Timed = tuple[np.ndarray, list[float]]  # tokens, and seconds of each
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def inputs(config: Any, params: Any, rows: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings [rows, width, hidden_size] and noise [tokens, 1 + steps, images, token_dim]."""
    rng = np.random.default_rng(0)
    embeds = rng.standard_normal((rows, width, config.hidden_size)).astype(np.float32)
    shape = (params.num_tokens, 1 + params.num_inference_steps, rows // params.branches, config.token_dim)
    return embeds, rng.standard_normal(shape).astype(np.float32)


def sampling(tokens: int, steps: int) -> SamplingParams:
    """One guided image's."""
    return SamplingParams(num_tokens=tokens, num_inference_steps=steps, guidance_scale=3.0, branches=2)


def eager(engine: ReferenceEngine, params: Any, embeds: np.ndarray, noise: np.ndarray) -> Timed:
    """Tokens [images, count, token_dim] of as many tokens as `noise` has, and seconds of each."""
    engine.prefill(embeds, max_new_tokens=params.num_tokens)
    stamps = [time.perf_counter()]
    tokens = engine.decode(params, len(noise), noise=noise, callback=lambda *_: stamps.append(time.perf_counter()))
    return tokens, [b - a for a, b in pairwise(stamps)]


def graph(token: GraphToken, noise: torch.Tensor, capture: bool) -> Timed:
    """The same by GraphToken; every token is brought to the host, as the eager loop does."""
    tokens, stamps = [token.first(noise[0]).cpu()], []
    if capture:
        token.capture()
    stamps.append(time.perf_counter())
    for each in noise[1:]:
        tokens.append(token.next(each).cpu())
        stamps.append(time.perf_counter())
    return torch.stack(tokens, dim=1).numpy(), [b - a for a, b in pairwise(stamps)]


@torch.no_grad()
def compare(shape: str, dtype: str, device: str, steps: int, width: int) -> float:
    """Relative difference of the two baselines' first tokens with the same noise."""
    config, kind = config_of(shape), DTYPES[dtype]
    weights = shared_weights(shape, kind, config.num_hidden_layers, device)
    params = sampling(CHECKED, steps)
    embeds, noise = inputs(config, params, 2, width)
    expected, _ = eager(ReferenceEngine(config, weights, dtype=dtype, device=device), params, embeds, noise)
    token = GraphToken(config, weights, params, torch.tensor(embeds, device=device).to(kind), CHECKED)
    actual, _ = graph(token, torch.tensor(noise, device=device), device != "cpu")
    return relative_error(actual, expected)


@torch.no_grad()
def measure(figures: Figures, shape: str) -> None:
    """Times of a token of both at the default case, and how far they are apart."""
    error = compare("tiny", "float32", "cuda", 5, 12)
    figures.put("graph_against_eager_float32_tiny", error)
    if not error < FLOAT32_TOLERANCE:
        raise RuntimeError(f"the graph's tokens differ from the eager ones by {error:.2g} in float32: it is wrong")
    case, config = axes_of(shape).default, config_of(shape)
    weights = shared_weights(shape, torch.bfloat16, config.num_hidden_layers, "cuda")
    width = max(1, case.positions - GRAPH_TOKENS)
    params = sampling(GRAPH_TOKENS, case.steps)
    embeds, noise = inputs(config, params, case.rows, width)
    engine = ReferenceEngine(config, weights, dtype="bfloat16", device="cuda")
    expected, seconds = eager(engine, params, embeds, noise[:EAGER_TOKENS])
    figures.put("case", case.name)
    figures.put("eager", spread(seconds[2:]))
    del engine
    device = torch.tensor(embeds, device="cuda").to(torch.bfloat16)
    token = GraphToken(config, weights, params, device, GRAPH_TOKENS)
    actual, seconds = graph(token, torch.tensor(noise, device="cuda"), True)
    figures.put("graph", spread(seconds[2:]))
    figures.put("graph_against_eager_bfloat16", relative_error(actual[:, :CHECKED], expected[:, :CHECKED]))
