"""The native engine with random weights: time per token along each axis, uploads, a whole image."""

from __future__ import annotations

import gc
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from ..synthetic import config_of, keys_of
from .figures import Figures, differences, spread, token_bytes
from .smi import CLOCKS, ask

DTYPE = "bfloat16"
SIDE_512 = 1024  # image tokens of 512x512 pixels
BRANCHES = {1: 1, 2: 2, 3: 3, 4: 2, 8: 2}  # of so many rows


@dataclass(frozen=True)
class Case:
    """One measurement. `positions`: prompt and image tokens at the last token timed."""

    rows: int = 2
    steps: int = 28
    positions: int = 256

    @property
    def name(self) -> str:
        """As it stands in tables."""
        return f"{self.rows} rows, {self.steps} steps, {self.positions} positions"


@dataclass(frozen=True)
class Axes:
    """What is varied, one thing at a time, around `default`; and how long each measurement is."""

    default: Case = Case()
    rows: tuple[int, ...] = (1, 3, 4, 8)
    positions: tuple[int, ...] = (1024,)
    steps: tuple[int, int] = (20, 50)
    warm_up: int = 8
    tokens: int = 64
    prompt: int = 64  # of the whole image
    image: int = SIDE_512

    def cases(self) -> list[Case]:
        """The default first, and once more at the end: how far the two differ is what the others may be off."""
        d = self.default
        around = [replace(d, rows=n) for n in self.rows]
        around += [replace(d, positions=n) for n in self.positions]
        return [d, *around, *(replace(d, steps=n) for n in self.steps), d]


def axes_of(shape: str) -> Axes:
    """Of a shape's name; "tiny" is what an emulated device can do."""
    if shape == "tiny":
        return Axes(Case(2, 2, 16), rows=(1,), positions=(24,), steps=(1, 3), warm_up=1, tokens=2, prompt=4, image=4)
    return Axes()


def token_times(engine: Any, case: Case, tokens: int, warm_up: int) -> tuple[float, list[float]]:
    """Seconds of the prefill, and of each token after the warm-up, as the caller of the engine sees them."""
    from nextstep_rt import SamplingParams

    width, branches = case.positions - tokens - warm_up, BRANCHES[case.rows]
    embeds = np.random.default_rng(0).standard_normal((case.rows, width, engine.config.hidden_size))
    begin = time.perf_counter()
    engine.prefill(embeds.astype(np.float32), max_new_tokens=tokens + warm_up)
    prefill = time.perf_counter() - begin
    params = SamplingParams(
        num_tokens=tokens + warm_up, num_inference_steps=case.steps, guidance_scale=3.0, branches=branches
    )
    stamps = [time.perf_counter()]
    engine.decode(params, seeds=range(case.rows // branches), callback=lambda *_: stamps.append(time.perf_counter()))
    return prefill, [b - a for a, b in pairwise(stamps)][warm_up:]


def measure_case(engine: Any, case: Case, axes: Axes) -> dict[str, Any]:
    """A row of the table: ms per token, the bytes it must read, ms of the prefill."""
    prefill, seconds = token_times(engine, case, axes.tokens, axes.warm_up)
    size = token_bytes(engine.config, DTYPE, case.rows, case.steps, case.positions - axes.tokens // 2)
    return {
        "rows": case.rows, "steps": case.steps, "positions": case.positions, **spread(seconds),
        "prefill_ms": round(1e3 * prefill, 2), "bytes": size,
    }  # fmt: skip


def made_weights(shape: str, layers: int) -> dict[str, Any]:
    """Random bfloat16 weights by name, made on the device where there is one, in host memory; all layers are one."""
    from nextstep_rt import ModelConfig
    from nextstep_rt.reference import expected_shapes

    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)

    def made(name: str, of: tuple[int, ...]) -> torch.Tensor:
        if name.endswith(("norm.weight", "in_ln.weight")):
            return torch.ones(of, dtype=torch.bfloat16)
        scale = of[1] ** -0.5 if len(of) == 2 else 0.02
        numbers = torch.randn(of, generator=generator, device=device, dtype=torch.bfloat16)
        return (numbers * scale).cpu()

    one = ModelConfig.from_json(json.dumps(keys_of(shape) | {"num_hidden_layers": 1}))
    weights = {name: made(name, tuple(of)) for name, of in expected_shapes(one).items()}
    first = "layers.0."
    layer = {name.removeprefix(first): weights.pop(name) for name in list(weights) if name.startswith(first)}
    return weights | {f"layers.{i}.{name}": tensor for i in range(layers) for name, tensor in layer.items()}


def upload(shape: str, layers: int) -> tuple[Any, dict[str, Any]]:
    """An engine of the shape with so many layers, and how long its weights took."""
    from nextstep_rt import Engine

    begin = time.perf_counter()
    weights = made_weights(shape, layers)
    made = time.perf_counter()
    engine = Engine(config_of(shape, num_hidden_layers=layers), weights, dtype=DTYPE, device="cuda")
    seconds, size = time.perf_counter() - made, engine.memory()["weights"]
    return engine, {
        "gb": round(size / 1e9, 3),
        "seconds": round(seconds, 3),
        "gbs": round(size / seconds / 1e9, 2),
        "seconds_to_make_them": round(made - begin, 2),
        "read_from": "one layer's arrays for all layers: the host reads most of them from its caches, not from memory",
    }


def whole_image(engine: Any, axes: Axes) -> dict[str, Any]:
    """Prefill and all tokens of an image in seconds; without text encoding and VAE."""
    case = replace(axes.default, positions=axes.prompt + axes.image)
    prefill, seconds = token_times(engine, case, axes.image, 0)
    return {
        "what": f"prefill of {axes.prompt} positions and {axes.image} tokens, {case.rows} rows, {case.steps} steps; "
        "no tokenizer, no VAE",
        "tokens": axes.image,
        "seconds": round(prefill + sum(seconds), 3),
        "prefill_seconds": round(prefill, 4),
        "ms_per_token": round(1e3 * statistics.fmean(seconds), 4),
    }


def measure(figures: Figures, shape: str, left: Callable[[], float]) -> None:
    """All of the engine's figures; `left` says how many seconds remain."""
    axes, layers = axes_of(shape), config_of(shape).num_hidden_layers
    engine, figures_of_upload = upload(shape, layers)
    figures.put("shape", shape)
    figures.put("backend", engine.backend)
    figures.put("upload", figures_of_upload)
    rows: list[dict[str, Any]] = []
    for case in axes.cases():
        rows.append(measure_case(engine, case, axes))
        figures.put("cases", rows)
        if len(rows) == 1:
            figures.put("clocks_under_load", ask(CLOCKS))
            figures.put("memory", engine.memory())
    expected = rows[-1]["ms"] * axes.image / 1e3
    if left() > 2 * expected + 15:
        figures.put("image", whole_image(engine, axes))
    else:
        figures.put("image_left_out", f"about {expected:.0f} s were needed, {left():.0f} s were left")
    del engine
    gc.collect()
    shallow, _ = upload(shape, layers // 2)
    half = measure_case(shallow, axes.default, axes)
    figures.put("half_the_layers", half)
    default = statistics.fmean([rows[0]["ms"], rows[-1]["ms"]])
    few, many = (row["ms"] for row in rows[-3:-1])
    times = {"default": default, "few": few, "many": many, "shallow": half["ms"]}
    steps = (axes.steps[0], axes.default.steps, axes.steps[1])
    figures.put("stages", differences(times, (layers // 2, layers), steps))
