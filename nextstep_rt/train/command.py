"""The training command: image tokenizer, then generator, then evaluation, in one folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Error

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

# Chosen on prompts of the training split; docs/findings.md compares.
GENERATION = {"num_inference_steps": 28, "guidance_scale": 3.0}


@app.command()
def train(
    folder: Annotated[Path, typer.Option(help="Where runs, checkpoints, plots and the model go.")] = Path(
        "build/train"
    ),
    steps: Annotated[
        float, typer.Option(min=0.0001, max=100, help="Times the steps of the recipe, to try it out.")
    ] = 1.0,
) -> None:
    """Train the embedded model from nothing, or go on from where FOLDER stands.

    FOLDER/vae and FOLDER/generator hold each run's checkpoint, log and loss plot; FOLDER/model is the model.
    """
    from dataclasses import replace

    from .generator import GeneratorTraining, train_generator
    from .vae import VaeTraining, train_vae

    def scaled(count: int) -> int:
        return max(1, round(count * steps))

    vae, generator = VaeTraining(), GeneratorTraining()
    vae = replace(vae, phases=tuple(replace(phase, steps=scaled(phase.steps)) for phase in vae.phases))
    generator = replace(generator, steps=scaled(generator.steps))
    model = folder / "model"
    try:
        train_vae(vae, folder / "vae", model / "vae")
        train_generator(generator, folder / "generator", folder / "latents", model)
    except Error as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None
    (model / "generation_config.json").write_text(json.dumps(GENERATION, indent=1) + "\n")
    typer.echo(f"the model is in {model}: score it with `nextstep-rt eval {model}`")
