"""`image`: from a prompt to a PNG file, phase by phase."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import options as o
from ..measure import MAX_SPREAD, Policy, Sample
from ..memory import peak_bytes, reset_peak
from ..results import SEED

PHASES = ("load", "vae_load", "tokenize", "prefill", "loop", "vae", "png")
NAMES = {"load_s": "load", "vae_load_s": "vae_load", "tokenize_s": "tokenize", "prefill_s": "prefill",
         "decode_s": "loop", "vae_s": "vae"}  # fmt: skip
Prompt = Annotated[str, typer.Argument(help="What to draw.")]
Side = Annotated[int | None, typer.Option(help="Pixels; default the model's native size.")]
Dtype = Annotated[str, typer.Option(help="auto, bfloat16 or float32; auto is what the checkpoint holds.")]


def image(
    prompt: Prompt = "a red circle above a blue square",
    model: o.Model = "demo",
    dtype: Dtype = "auto",
    height: Side = None,
    width: Side = None,
    steps: o.Steps = 28,
    threads: o.Threads = None,
    repeats: o.Repeats = 7,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    out: o.Out = None,
    plot: o.Plot = False,
) -> None:
    """From a prompt to a PNG: load, prefill, loop, VAE, total, and the peak of memory. Needs a checkpoint."""
    policy, count = Policy(repeats, warmup, max_spread), o.thread_count(threads)
    name = model or "demo"
    options: dict[str, Any] = {"height": height, "width": width, "num_inference_steps": steps, "seed": SEED}
    options = {key: value for key, value in options.items() if value is not None}
    clear = reset_peak()
    for _ in range(policy.warmup):
        draw(prompt, name, dtype, count, options)
    runs = [draw(prompt, name, dtype, count, options) for _ in range(policy.repeats)]
    samples = {phase: Sample(tuple(run[phase] for run in runs), max_spread) for phase in (*PHASES, "total")}
    whole = samples["total"]
    figures = {
        "phases": {phase: samples[phase].part_of(whole) for phase in PHASES},
        "total": whole.to_json(),
        "peak_bytes": peak_bytes(),
        "peak_of_process": not clear,
        "image_tokens": runs[0]["tokens"],
    }
    settings = {
        "model": Path(name).name, "dtype": dtype, "prompt": prompt, "height": height, "width": width, "steps": steps,
        "threads": count, "repeats": repeats, "max_spread": max_spread,
    }  # fmt: skip
    o.Ending(out, plot, allow_unsteady)("image", settings, figures)


def draw(prompt: str, model: str, dtype: str, threads: int, options: dict[str, Any]) -> dict[str, Any]:
    """Seconds of every phase of one image by a pipeline of its own, its tokens, and the whole time."""
    from nextstep_rt import Pipeline

    begin = time.perf_counter()
    pipeline = Pipeline.from_pretrained(model, dtype=dtype, threads=threads, device="cpu")
    result = pipeline(prompt, **options)
    saved = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result.images[0].save(Path(folder) / "image.png")
        end = time.perf_counter()
    seconds = {name: result.timings.get(key, 0.0) for key, name in NAMES.items()}
    return {**seconds, "png": end - saved, "total": end - begin, "tokens": result.tokens_done[0]}
