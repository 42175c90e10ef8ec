"""`generate` and `edit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from . import options as o
from .errors import guarded
from .names import API_NAMES

Prompt = Annotated[str | None, typer.Argument(help="What to draw.")]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts-file", help="A text file, one prompt a line, 1 MB at most; - is stdin; empty lines are skipped."
    ),
]


@guarded
def generate(
    prompt: Prompt = None,
    prompts_file: PromptsFile = None,
    output: o.Output = "out.png",
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
    from .draw import draw
    from .files import read_prompts

    prompts = read_prompts(prompt, prompts_file)
    _refuse_marker([*prompts, positive or ""])
    draw(
        prompts=prompts,
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
        str,
        typer.Argument(
            help="What to change; '<image>' in it says where the picture goes; without it, before the prompt.",
            show_default=False,
        ),
    ],
    output: o.Output = "out.png",
    seed: o.Seed = None,
    num_images: o.Count = None,
    height: o.EditHeight = None,
    width: o.EditWidth = None,
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


def _refuse_marker(texts: list[str]) -> None:
    from ..config import show
    from ..errors import InvalidRequest
    from ..tokenizer import IMAGE_MARKER

    for text in texts:
        if IMAGE_MARKER in text:
            raise InvalidRequest(
                f"the prompt {show(text)} has the marker {IMAGE_MARKER} but no image was given: to change a picture "
                "use `nextstep-rt edit PICTURE PROMPT`, else leave the marker out"
            )


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, in the API's names."""
    return {api: given[name] for name, api in API_NAMES.items() if given.get(name) is not None}


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
