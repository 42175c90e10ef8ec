"""The options commands share. None means "not given", so that a checkpoint's own defaults hold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_MODEL, _SAMPLING, _OUT = "Model", "Sampling", "Output"

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="demo, a checkpoint folder, or a Hugging Face repo id.", rich_help_panel=_MODEL),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the repo.", rich_help_panel=_MODEL)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:i.", rich_help_panel=_MODEL)]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=_MODEL)]
Backend = Annotated[str, typer.Option(help="native or reference.", rich_help_panel=_MODEL)]
Threads = Annotated[int | None, typer.Option(help="Worker threads of the CPU engine.", rich_help_panel=_MODEL)]

Negative = Annotated[
    str | None, typer.Option("--negative", help="What guidance leads away from.", rich_help_panel=_SAMPLING)
]
Positive = Annotated[
    str | None, typer.Option("--positive", help="Appended to every prompt.", rich_help_panel=_SAMPLING)
]
Height = Annotated[
    int | None, typer.Option(help="Pixels; the model's native size by default.", rich_help_panel=_SAMPLING)
]
Width = Annotated[
    int | None, typer.Option(help="Pixels; the model's native size by default.", rich_help_panel=_SAMPLING)
]
Count = Annotated[
    int | None, typer.Option("--num-images", "-n", help="Images of each prompt.", rich_help_panel=_SAMPLING)
]
Steps = Annotated[
    int | None, typer.Option("--steps", help="Solver steps of an image token.", rich_help_panel=_SAMPLING)
]
Guidance = Annotated[
    float | None, typer.Option("--guidance", help="Guidance scale; 1 is off.", rich_help_panel=_SAMPLING)
]
ImageGuidance = Annotated[
    float | None,
    typer.Option("--image-guidance", help="Guidance by the input image; 1 is off.", rich_help_panel=_SAMPLING),
]
Schedule = Annotated[
    str | None, typer.Option("--schedule", help="constant or linear guidance.", rich_help_panel=_SAMPLING)
]
Renorm = Annotated[
    bool | None,
    typer.Option("--renorm/--no-renorm", help="Renormalize the guided velocity.", rich_help_panel=_SAMPLING),
]
Shift = Annotated[
    float | None, typer.Option("--timestep-shift", help="Shift of the time grid.", rich_help_panel=_SAMPLING)
]
Solver = Annotated[
    str | None, typer.Option(help="sde, sde-final-ode, euler, heun, flow-sde or flow-cps.", rich_help_panel=_SAMPLING)
]
NoiseLevel = Annotated[float | None, typer.Option(help="For flow-sde and flow-cps.", rich_help_panel=_SAMPLING)]
LastStep = Annotated[
    float | None, typer.Option("--last-step-size", help="For sde-final-ode.", rich_help_panel=_SAMPLING)
]
Normalize = Annotated[
    bool | None,
    typer.Option("--normalize/--no-normalize", help="Normalize each image token.", rich_help_panel=_SAMPLING),
]
Seed = Annotated[
    int | None, typer.Option(help="Image i uses seed + i; drawn when left out.", rich_help_panel=_SAMPLING)
]

Output = Annotated[
    Path, typer.Option("--output", "-o", help="A .png; several images get -0001, -0002, ...", rich_help_panel=_OUT)
]
Preview = Annotated[
    bool,
    typer.Option("--preview", help="Rewrite the PNG whenever a row of the image is complete.", rich_help_panel=_OUT),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the paths.", rich_help_panel=_OUT)]
