"""Trains the image tokenizer: the released autoencoder at small width, with perturbed, token-wise normalized latents.

The decoder is trained on z~ = Norm(z) + a * eps with a ~ U[0, gamma], one a per image (NextStep-1, section on the
image tokenizer): what it can read it can read from tokens that a generator got slightly wrong.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..vae.config import VaeConfig
from ..vae.layers import ResnetBlock
from ..vae.model import VAE
from . import world
from .digest import world_digest
from .files import save_weights
from .optim import make_optimizers
from .run import Metrics, compile_modules, pick_device, scaled, train


@dataclass(frozen=True)
class Phase:
    """Some steps on pictures of one size: crops cost a quarter, so four times as many fit the same time.

    aimed: the crops are centred near a thing, since nearly all of the error lies along outlines.
    """

    steps: int
    side: int
    batch: int
    aimed: bool = False


@dataclass(frozen=True)
class VaeTraining:
    """Everything that decides the image tokenizer."""

    ch: int = 32
    ch_mult: tuple[int, ...] = (1, 2, 3, 4)  # width is cheap where pictures are small
    num_res_blocks: int = 1
    z_channels: int = 16
    gamma: float = 0.4
    phases: tuple[Phase, ...] = (
        Phase(1600, 64, 10, aimed=True),
        Phase(1000, world.CANVAS, 4),
    )
    lr: float = 4e-3
    ema: float = 0.99
    edge_weight: float = 1.0  # L1 of the differences between neighbouring pixels
    mse_weight: float = 5.0
    seed: int = 0

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def scaled(self, factor: float) -> VaeTraining:
        """The same with `factor` times the steps."""
        return replace(self, phases=tuple(replace(phase, steps=scaled(phase.steps, factor)) for phase in self.phases))

    def phase(self, step: int) -> Phase:
        """The phase that step number `step`, from 1, belongs to."""
        for phase in self.phases:
            if step <= phase.steps:
                return phase
            step -= phase.steps
        raise IndexError(f"step {step} past the last phase")

    def config(self) -> VaeConfig:
        """The shape, in the released config's terms."""
        return VaeConfig(
            resolution=world.CANVAS,
            ch=self.ch,
            ch_mult=self.ch_mult,
            num_res_blocks=self.num_res_blocks,
            z_channels=self.z_channels,
            scaling_factor=1.0,
            shift_factor=0.0,
            deterministic=True,
            encoder_norm=True,
            psz=2,
        )


def pixels(scenes: list[world.Scene]) -> Tensor:
    """Scenes as float32 [N, 3, 128, 128] in -1..1."""
    images = np.stack([world.render(scene) for scene in scenes])
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def scattered(rng: random.Random) -> world.Scene:
    """Things anywhere, overlapping or cut by the edge: more than captions speak of, for a general tokenizer."""
    return world.Scene(
        "scattered",
        rng.choice(list(world.BACKGROUNDS)),
        tuple(
            world.Thing(
                rng.choice(world.SHAPES),
                rng.choice(list(world.COLOURS)),
                rng.uniform(8, 120),
                rng.uniform(8, 120),
                rng.uniform(9, 34),
            )
            for _ in range(rng.randint(1, 4))
        ),
    )


def crop(rng: random.Random, scene: world.Scene, phase: Phase) -> Tensor:
    """A square part of a scene's picture, [1, 3, side, side]."""
    room = world.CANVAS - phase.side
    left, top = rng.randint(0, room), rng.randint(0, room)
    if phase.aimed:
        thing = rng.choice(scene.things)
        left, top = (
            min(max(round(centre - phase.side / 2 + rng.uniform(-1, 1) * thing.r), 0), room)
            for centre in (thing.x, thing.y)
        )
    return pixels([scene])[..., top : top + phase.side, left : left + phase.side]


def start_linear(vae: VAE) -> None:
    """Initial weights for a fast start: the skeleton keeps its variance, the residual branches hardly speak.

    So the first steps train a linear autoencoder; from torch's own initialization a hundred times as many steps pass
    before the first shape appears.
    """
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            if weight.ndim > 1:
                weight.mul_(3**0.5)  # from torch's gain of 1/sqrt(3) to 1
            if name.endswith(("conv2.weight", "proj_out.weight")):
                weight.mul_(0.1)


def edges(image: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring pixels along both axes."""
    return image.diff(dim=-1), image.diff(dim=-2)


class VaeTask:
    """One step: reconstruct a batch of scenes from their perturbed latents."""

    def __init__(self, settings: VaeTraining, device: torch.device) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.device = settings, device
        model = VAE(settings.config()).to(device)
        self.model: VAE = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        start_linear(self.model)
        # The first and last layers speak pixels: not maps between features.
        not_matrices = ("encoder.conv_in", "decoder.conv_out")
        self.optimizers = make_optimizers(dict(self.model.named_parameters()), settings.lr, not_matrices)
        # One graph a block. Of the whole autoencoder torch 2.13's compiler makes, on CPUs and in bfloat16, a backward
        # pass that loses the gradient on its way through the decoder.
        self.is_compiled = compile_modules(self.model, ResnetBlock)

    def _reconstruct(self, images: Tensor, noise: Tensor) -> Tensor:
        decoded: Tensor = self.model.decoder(self.model.moments(images)[0] + noise)
        return decoded

    def loss(self, step: int) -> tuple[Tensor, Metrics]:
        """L1 + edges + MSE between a scene and its reconstruction."""
        s = self.settings
        rng = random.Random(f"vae {s.seed} {step}")
        phase = s.phase(step)
        side, batch = phase.side, phase.batch
        scenes = [scattered(rng) if rng.random() < 0.1 else world.sample_scene(rng) for _ in range(batch)]
        images = torch.cat([crop(rng, scene, phase) for scene in scenes])
        images = images.to(self.device).contiguous(memory_format=torch.channels_last)
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        amplitude = s.gamma * torch.rand(batch, 1, 1, 1, generator=generator)
        latent = side // s.config().down_factor
        noise = amplitude * torch.randn(batch, s.z_channels, latent, latent, generator=generator)
        with torch.autocast(self.device.type, torch.bfloat16):
            output = self._reconstruct(images, noise.to(self.device)).float()
        l1, mse = (output - images).abs().mean(), (output - images).square().mean()
        edge = sum((a - b).abs().mean() for a, b in zip(edges(output), edges(images), strict=True))
        loss = l1 + s.edge_weight * edge + s.mse_weight * mse
        return loss, {"l1": l1.item(), "mse": mse.item()}


def psnr(vae: VAE, scenes: list[world.Scene]) -> Tensor:
    """Peak signal to noise of each scene's clean reconstruction, in dB, as the runtime would save it."""
    values = []
    for i in range(0, len(scenes), 16):
        images = pixels(scenes[i : i + 16])
        output = vae.decode(vae.encode(images)).clamp(-1, 1).cpu()
        values.append(-10 * ((output - images) / 2).square().mean((1, 2, 3)).log10())
    return torch.cat(values)


def measure(vae: VAE, count: int = 240, seed: int = 1) -> dict[str, float]:
    """Mean PSNR on fresh scenes of the test split, over all and by background, in dB.

    The autoencoder trains on scenes of both splits, none of them twice: the split is of words, for the generator.
    """
    rng = random.Random(f"psnr {seed}")
    scenes = [world.sample_split(rng, held_out=True) for _ in range(count)]
    values = psnr(vae, scenes)
    table = {"mean": values.mean().item(), "worst image": values.min().item()}
    for background in world.BACKGROUNDS:
        chosen = [i for i, scene in enumerate(scenes) if scene.background == background]
        table[background] = values[chosen].mean().item()
    return {name: round(value, 2) for name, value in table.items()}


def train_vae(settings: VaeTraining, run: Path, out: Path) -> None:
    """Trains in folder `run`, then writes the autoencoder in the released layout, in bfloat16, to `out`."""
    task = VaeTask(settings, pick_device())
    stated: dict[str, object] = {**asdict(settings), "world": world_digest()}
    average = train(task, run, steps=settings.steps, ema=settings.ema, settings=stated, title="VAE")
    save_vae(settings, average.weights, out)
    (run / "psnr.json").write_text(json.dumps(measure(VAE.from_folder(out)), indent=1) + "\n")


def save_vae(settings: VaeTraining, weights: dict[str, Tensor], out: Path) -> None:
    """Writes config.json and model.safetensors."""
    out.mkdir(parents=True, exist_ok=True)
    save_weights(weights, out / "model.safetensors")
    config = asdict(settings.config()) | {"ch_mult": list(settings.ch_mult)}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
