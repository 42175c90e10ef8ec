"""The options commands share. None means "not given", so that a checkpoint's own defaults hold."""

from __future__ import annotations

from typing import Annotated

import typer

_MODEL, _SAMPLING, _OUT = "Model", "Sampling", "Output"
_OWN = "unless the checkpoint says otherwise."

Model = Annotated[
    str,
    typer.Option("--model", "-m", help="demo, a checkpoint folder, or a Hugging Face repo id.", rich_help_panel=_MODEL),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the repo.", rich_help_panel=_MODEL)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:i.", rich_help_panel=_MODEL)]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.", rich_help_panel=_MODEL)]
Backend = Annotated[str, typer.Option(help="native or reference.", rich_help_panel=_MODEL)]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Worker threads of the CPU engine, 1 to 1024; default all cores this process may use.",
        rich_help_panel=_MODEL,
    ),
]

Negative = Annotated[
    str | None,
    typer.Option(
        "--negative", help=f"What guidance leads away from; default nothing {_OWN}", rich_help_panel=_SAMPLING
    ),
]
Positive = Annotated[
    str | None,
    typer.Option("--positive", help=f"Appended to every prompt; default nothing {_OWN}", rich_help_panel=_SAMPLING),
]
Height = Annotated[
    int | None, typer.Option(help="Pixels; default the model's native height.", rich_help_panel=_SAMPLING)
]
Width = Annotated[int | None, typer.Option(help="Pixels; default the model's native width.", rich_help_panel=_SAMPLING)]
_AT_RATIO = "default what keeps the picture's ratio, at the model's native area when neither side is given."
EditHeight = Annotated[int | None, typer.Option("--height", help=f"Pixels; {_AT_RATIO}", rich_help_panel=_SAMPLING)]
EditWidth = Annotated[int | None, typer.Option("--width", help=f"Pixels; {_AT_RATIO}", rich_help_panel=_SAMPLING)]
Count = Annotated[
    int | None,
    typer.Option(
        "--num-images", "-n", help="Images of each prompt, 1 to 1024 in all; default 1.", rich_help_panel=_SAMPLING
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(
        "--steps", help=f"Solver steps of an image token, 1 to 1000; default 28 {_OWN}", rich_help_panel=_SAMPLING
    ),
]
Guidance = Annotated[
    float | None,
    typer.Option(
        "--guidance", help=f"Guidance scale, -1000 to 1000, 1 is off; default 7.5 {_OWN}", rich_help_panel=_SAMPLING
    ),
]
ImageGuidance = Annotated[
    float | None,
    typer.Option(
        "--image-guidance",
        help=f"Guidance by the input image, -1000 to 1000, 1 is off; default 1 {_OWN}",
        rich_help_panel=_SAMPLING,
    ),
]
Schedule = Annotated[
    str | None,
    typer.Option("--schedule", help=f"constant or linear guidance; default constant {_OWN}", rich_help_panel=_SAMPLING),
]
Renorm = Annotated[
    bool | None,
    typer.Option(
        "--renorm/--no-renorm",
        help=f"Renormalize the guided velocity; default --no-renorm {_OWN}",
        rich_help_panel=_SAMPLING,
    ),
]
Shift = Annotated[
    float | None,
    typer.Option(
        "--timestep-shift", help=f"Shift of the time grid, 0.001 to 1000; default 1 {_OWN}", rich_help_panel=_SAMPLING
    ),
]
Solver = Annotated[
    str | None,
    typer.Option(
        help=f"sde, sde-final-ode, euler, heun, flow-sde or flow-cps; default sde {_OWN}", rich_help_panel=_SAMPLING
    ),
]
NoiseLevel = Annotated[
    float | None,
    typer.Option(help=f"For flow-sde and flow-cps, 0 to 1; default 0.8 {_OWN}", rich_help_panel=_SAMPLING),
]
LastStep = Annotated[
    float | None,
    typer.Option(
        "--last-step-size",
        help=f"For sde-final-ode, between 0 and 1; default 0.04 {_OWN}",
        rich_help_panel=_SAMPLING,
    ),
]
Normalize = Annotated[
    bool | None,
    typer.Option(
        "--normalize/--no-normalize",
        help=f"Normalize each image token; default --normalize {_OWN}",
        rich_help_panel=_SAMPLING,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(help="0 to 2^64 - 1; image i uses seed + i; default drawn at random.", rich_help_panel=_SAMPLING),
]

Output = Annotated[
    str,
    typer.Option(
        "--output", "-o", metavar="FILE.png", help="A .png; several images get -0001, -0002, ...", rich_help_panel=_OUT
    ),
]
Preview = Annotated[
    bool,
    typer.Option("--preview", help="Rewrite the PNG whenever a row of the image is complete.", rich_help_panel=_OUT),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the paths.", rich_help_panel=_OUT)]
