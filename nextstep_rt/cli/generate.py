"""`generate` and `edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .errors import guarded

Prompt = Annotated[str | None, typer.Argument(help="What to draw.")]
PromptsFile = Annotated[
    Path | None, typer.Option("--prompts-file", help="A text file, one prompt a line; empty lines are skipped.")
]


@guarded
def generate(
    prompt: Prompt = None,
    prompts_file: PromptsFile = None,
    output: o.Output = Path("out.png"),
    seed: o.Seed = None,
    num_images: o.Count = None,
    height: o.Height = None,
    width: o.Width = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    schedule: o.Schedule = None,
    renorm: o.Renorm = None,
    solver: o.Solver = None,
    timestep_shift: o.Shift = None,
    noise_level: o.NoiseLevel = None,
    last_step_size: o.LastStep = None,
    normalize: o.Normalize = None,
    negative: o.Negative = None,
    positive: o.Positive = None,
    preview: o.Preview = False,
    quiet: o.Quiet = False,
    model: o.Model = "demo",
    revision: o.Revision = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    backend: o.Backend = "native",
    threads: o.Threads = None,
) -> None:
    """Draw images from a prompt, or from each line of a file."""
    from .draw import draw, read_prompts

    draw(
        prompts=read_prompts(prompt, prompts_file),
        output=output,
        preview=preview,
        quiet=quiet,
        model=_model(model, revision, device, dtype, backend, threads),
        settings=_settings(locals()),
    )


@guarded
def edit(
    image: Annotated[Path, typer.Argument(help="The picture to edit.", show_default=False)],
    prompt: Annotated[
        str, typer.Argument(help="What to change; '<image>' in it says where the picture is read.", show_default=False)
    ],
    output: o.Output = Path("out.png"),
    seed: o.Seed = None,
    num_images: o.Count = None,
    height: o.Height = None,
    width: o.Width = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    image_guidance: o.ImageGuidance = None,
    schedule: o.Schedule = None,
    renorm: o.Renorm = None,
    solver: o.Solver = None,
    timestep_shift: o.Shift = None,
    noise_level: o.NoiseLevel = None,
    last_step_size: o.LastStep = None,
    normalize: o.Normalize = None,
    negative: o.Negative = None,
    positive: o.Positive = None,
    preview: o.Preview = False,
    quiet: o.Quiet = False,
    model: o.Model = "demo",
    revision: o.Revision = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    backend: o.Backend = "native",
    threads: o.Threads = None,
) -> None:
    """Change a picture by a prompt."""
    from ..tokenizer import IMAGE_MARKER
    from .draw import draw

    draw(
        prompts=[prompt if IMAGE_MARKER in prompt else f"{IMAGE_MARKER}{prompt}"],
        output=output,
        preview=preview,
        quiet=quiet,
        model=_model(model, revision, device, dtype, backend, threads),
        settings={**_settings(locals()), "image": str(image)},
    )


_API_NAMES = {
    "seed": "seed",
    "num_images": "num_images_per_prompt",
    "height": "height",
    "width": "width",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "image_guidance": "image_guidance_scale",
    "schedule": "guidance_schedule",
    "renorm": "guidance_renorm",
    "solver": "solver",
    "timestep_shift": "timestep_shift",
    "noise_level": "noise_level",
    "last_step_size": "last_step_size",
    "normalize": "normalize_tokens",
    "negative": "negative_prompt",
    "positive": "positive_prompt",
}


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, in the API's names."""
    return {api: given[name] for name, api in _API_NAMES.items() if given.get(name) is not None}


def _model(
    model: str, revision: str | None, device: str, dtype: str, backend: str, threads: int | None
) -> dict[str, Any]:
    return {
        "model": model,
        "revision": revision,
        "device": device,
        "dtype": dtype,
        "backend": backend,
        "threads": threads,
    }
