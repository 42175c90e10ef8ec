"""The training command: image tokenizer, then generator, in one folder; and the command that ships the result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..cli.errors import guarded

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# What the shipped model is scored with; docs/findings.md compares others.
GENERATION = {"num_inference_steps": 28, "guidance_scale": 1.5, "solver": "flow-cps"}
DEMO = Path(__file__).parents[1] / "demo"
COURSES = 3  # of the generator

Folder = Annotated[Path, typer.Option(help="Where runs, plots and the model are.")]


@app.callback(invoke_without_command=True)
@guarded
def train(
    context: typer.Context,
    folder: Folder = Path("build/train"),
    steps: Annotated[float, typer.Option(min=1e-4, max=100, help="Times the recipe's steps, to try it out.")] = 1.0,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", help="Train the generator further than this shipped model (demo, or a folder); its VAE is kept."
        ),
    ] = None,
    courses: Annotated[
        int | None,
        typer.Option(
            min=1,
            help=f"Of the generator, each after the first a gentler one. Default: {COURSES}, or 1 more with --from.",
        ),
    ] = None,
) -> None:
    """Train the embedded model from nothing or from another, or go on from where FOLDER stands.

    FOLDER/vae, FOLDER/generator, FOLDER/generator-2 and so on hold each run's checkpoint, log and loss plot;
    FOLDER/model is the model.
    """
    if context.invoked_subcommand is not None:
        return
    from ..checkpoint import resolve_model
    from .generator import GeneratorTraining, train_generator
    from .history import begin_from, check_begun_here, course_folder
    from .vae import VaeTraining, train_vae

    model, done = folder / "model", 0
    begin = None
    if start is None:
        check_begun_here(folder)
        train_vae(VaeTraining().scaled(steps), folder / "vae", model / "vae")
    else:
        begin = Path(resolve_model(start))
        done = begin_from(begin, folder)
    for course in range(1, (courses or (COURSES if start is None else 1)) + 1):
        number = done + course
        settings = GeneratorTraining() if number == 1 else GeneratorTraining().going_on(number)
        train_generator(settings.scaled(steps), course_folder(folder, course), folder / "latents", model, begin)
        begin = model
    (model / "generation_config.json").write_text(json.dumps(GENERATION, indent=1) + "\n")
    typer.echo(f"the model is in {model}: score it with `nextstep-rt eval {model}`")


@app.command()
@guarded
def ship(
    report: Annotated[Path, typer.Argument(help="ShapeEval's report.json of the model in FOLDER.", exists=True)],
    folder: Folder = Path("build/train"),
    to: Annotated[Path, typer.Option(help="Where the model and its card go.")] = DEMO,
    reference: Annotated[
        Path | None, typer.Option(help="ShapeEval's report.json of the reference backend.", exists=True)
    ] = None,
    commit: Annotated[str | None, typer.Option(help="What trained the model, where its runs kept no commit.")] = None,
) -> None:
    """Copy the trained model into the package, with a card that states its recipe and scores."""
    from ..vae.model import VAE
    from . import card
    from .history import PSNR
    from .refine import score_model
    from .report import Report
    from .vae import measure

    card.check(folder)
    refinements = score_model(folder / "model")
    counts = {"right": sum(item.right for item in refinements), "count": len(refinements)}
    (folder / "refinement.json").write_text(json.dumps(counts) + "\n")
    psnr = measure(VAE.from_folder(folder / "model" / "vae"))
    (folder / PSNR).write_text(json.dumps(psnr, indent=1) + "\n")

    def load(path: Path) -> Report:
        return Report.from_json(json.loads(path.read_text()))

    other = None if reference is None else load(reference)
    card.ship(folder, load(report), to, reference=other, commit=commit)
    typer.echo(f"shipped to {to}")
