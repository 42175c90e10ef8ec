"""Short trainings from scratch for the parts that compare models, and what is measured of each."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from ..._core import ModelConfig
from ...pipeline import Pipeline
from ...tokenizer import PromptTokenizer
from ...vae.model import VAE
from .. import world
from ..batches import Sampler
from ..generator import Generator, GeneratorTraining, train_generator
from ..latents import BATCH, Dataset, encode
from ..run import pick_device, read_log
from .numbers import Floats
from .work import Drawing, Values, draw

# Drawings only, and fewer of them: enough to tell recipes apart, not to make a good model.
SHORT = GeneratorTraining(steps=900, scenes=8192, batch=36, edits=0, edit_batch=0)


@dataclass(frozen=True)
class HeldOut:
    """The scenes of the test split that the loss is measured on."""

    scenes: int = 256
    seed: int = 0

    def draw(self) -> list[world.Scene]:
        """The scenes, the same for a seed whatever their number."""
        return [world.sample_split(random.Random(f"loss {self.seed} {i}"), held_out=True) for i in range(self.scenes)]


# Below this score hardly any picture shows anything: that none differs says nothing then.
FLOOR = 0.1


def too_poor(rows: Mapping[str, Values]) -> str:
    """The verdict where no model of a result's points draws well enough to compare pictures; else empty."""
    best = max(float(row["scores"]["overall"]["value"]) for row in rows.values())
    if best >= FLOOR:
        return ""
    return f"**Cannot tell.** No model scores {FLOOR:g} or more (the best {best:.3f}): they need longer trainings."


@torch.no_grad()
def velocity_losses(model: Path, held_out: HeldOut, settings: GeneratorTraining) -> Floats:
    """The velocity's mean squared error of each held-out scene [scenes], under a caption of it.

    Every model sees the same captions, noise and times, so that losses pair scene by scene.
    """
    config = ModelConfig.from_json((model / "config.json").read_text(encoding="utf-8"))
    prompts = PromptTokenizer(model, config)
    generator = Generator(config, settings.draws)
    for name, tensor in load_file(model / "model.safetensors").items():
        generator.weights[name].copy_(tensor)
    generator.to(pick_device())
    vae = VAE.from_folder(model / "vae").to(pick_device())
    scenes = held_out.draw()
    tokens = torch.cat([encode(vae, scenes[i : i + BATCH]) for i in range(0, len(scenes), BATCH)]).bfloat16()
    # One scene a batch, for a loss of its own; nothing dropped and nothing perturbed.
    one = replace(settings, batch=1, edit_batch=0, drop=0.0, input_noise=0.0, drowned_drawings=0.0, seed=held_out.seed)
    losses = []
    for i, scene in enumerate(scenes):
        alone = Dataset([scene], tokens[i : i + 1], [], tokens.new_empty(0, 2, *tokens.shape[1:]))
        (batch,) = Sampler(one, alone, prompts).batches(i)
        losses.append(generator(batch.to(pick_device()))[1].item())
    return np.array(losses)


def trained(settings: GeneratorTraining, folder: Path, latents: Path, drawing: Drawing, held_out: HeldOut) -> Values:
    """Trains a generator on the VAE at `folder`/model/vae, or goes on, then measures it.

    Gives ShapeEval's report, the held-out losses [scenes], and the last line of the training's log.
    """
    run, model = folder / "generator", folder / "model"
    train_generator(settings, run, latents, model)
    stated = {"num_inference_steps": drawing.num_inference_steps, "guidance_scale": drawing.guidance_scale}
    (model / "generation_config.json").write_text(json.dumps(stated, indent=1) + "\n")
    losses = velocity_losses(model, held_out, settings)
    report = draw(Pipeline.from_pretrained(model), drawing)
    return {"report": report.to_json(), "losses": np.round(losses, 6).tolist(), "log": read_log(run)[-1]}
