"""Training of the image tokenizer: its batches, its start, its steps and the folder that it leaves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nextstep_rt.train import run, vae, world
from nextstep_rt.train.vae import Phase, VaeTask, VaeTraining
from nextstep_rt.vae import VAE, VaeConfig

CPU = torch.device("cpu")
# As narrow as the norms' 32 groups allow.
PHASES = (Phase(5, 64, 2), Phase(1, world.CANVAS, 1))
TINY = VaeTraining(ch=32, ch_mult=(1, 1), z_channels=4, phases=PHASES, lr=1e-3)


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes longer than all steps here."""

    def unchanged(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(torch, "compile", unchanged)
    monkeypatch.setattr(run, "plot_log", lambda folder: None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The run's folder and the autoencoder's, of a run stopped once and resumed."""
    folder = tmp_path_factory.mktemp("vae")
    losses = VaeTask.loss

    def stopped(self: VaeTask, step: int) -> tuple[Tensor, run.Metrics]:
        if step == 4:
            raise KeyboardInterrupt
        return losses(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "compile", lambda function, **_: function)
        patch.setattr(run, "plot_log", lambda folder: None)
        patch.setattr(run, "SAVE_EVERY_S", -1.0)
        patch.setattr(vae, "measure", lambda model: {"mean": vae.psnr(model, scenes(2)).mean().item()})
        patch.setattr(VaeTask, "loss", stopped)
        with pytest.raises(KeyboardInterrupt):
            vae.train_vae(TINY, folder / "run", folder / "out")
        assert not (folder / "out").exists()
        patch.setattr(VaeTask, "loss", losses)
        vae.train_vae(TINY, folder / "run", folder / "out")
    return folder / "run", folder / "out"


def scenes(count: int) -> list[world.Scene]:
    rng = random.Random(7)
    return [world.sample_scene(rng) for _ in range(count)]


# ---- the run


def test_the_folder_loads_as_a_released_one(trained: tuple[Path, Path]) -> None:
    _, out = trained
    loaded = VAE.from_folder(out)
    assert loaded.config == TINY.config() == VaeConfig.from_folder(out)
    assert (loaded.config.deterministic, loaded.config.encoder_norm, loaded.config.psz) == (True, True, 2)
    assert (loaded.config.scaling_factor, loaded.config.shift_factor) == (1.0, 0.0)
    state = load_file(out / "model.safetensors")
    assert set(state) == set(VAE(TINY.config()).state_dict())
    assert {tensor.dtype for tensor in state.values()} == {torch.bfloat16}
    assert sorted(path.name for path in out.iterdir()) == ["config.json", "model.safetensors"]


def test_the_folder_holds_the_averaged_weights(trained: tuple[Path, Path]) -> None:
    """Rounded to bfloat16, and in their places whatever layout training kept them in."""
    folder, out = trained
    average = torch.load(folder / run.CHECKPOINT, weights_only=True)["average"]
    for name, weight in VAE.from_folder(out).state_dict().items():
        assert torch.equal(weight, average[name].bfloat16().float()), name


def test_a_stopped_run_went_on_to_the_same_bits(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Convolutions in channels_last and both optimizers' states included."""
    task = VaeTask(TINY, CPU)
    average = run.train(task, tmp_path, steps=TINY.steps, ema=TINY.ema, settings=asdict(TINY), title="straight")
    state = torch.load(trained[0] / run.CHECKPOINT, weights_only=True)
    assert state["step"] == TINY.steps
    for name, weight in task.model.state_dict().items():
        assert torch.equal(weight, state["model"][name]), name
        assert torch.equal(average.weights[name], state["average"][name]), name
        assert weight.ndim != 4 or weight.is_contiguous(memory_format=torch.channels_last)


def test_the_quality_is_written_beside_the_run(trained: tuple[Path, Path]) -> None:
    written = json.loads((trained[0] / "psnr.json").read_text())
    expected = vae.psnr(VAE.from_folder(trained[1]), scenes(2)).mean().item()
    assert written["mean"] == pytest.approx(expected, abs=0.01)


def test_steps_learn() -> None:
    """On one batch again and again, a few steps show it."""
    task = VaeTask(replace(TINY, lr=3e-3), CPU)
    losses = []
    for _ in range(12):
        run._step(task, 1)
        losses.append(task.loss(1)[0].item())
    assert min(losses[-3:]) < 0.8 * losses[0]


# ---- the batches


def batch(task: VaeTask, step: int) -> tuple[Tensor, Tensor]:
    """Images and noise that a step trains on."""
    seen: list[tuple[Tensor, Tensor]] = []

    def reconstruct(images: Tensor, noise: Tensor) -> Tensor:
        seen.append((images, noise))
        return torch.zeros_like(images)

    task._reconstruct = reconstruct
    task.loss(step)
    return seen[0]


def test_batches_follow_from_the_step_alone() -> None:
    task = VaeTask(TINY, CPU)
    for step in (1, 6):
        images, noise = batch(task, step)
        again = batch(VaeTask(TINY, CPU), step)
        assert torch.equal(images, again[0])
        assert torch.equal(noise, again[1])
        side, count = (64, 2) if step == 1 else (world.CANVAS, 1)
        assert images.shape == (count, 3, side, side)
        assert noise.shape == (count, 4, side // 2, side // 2)
        assert images.is_contiguous(memory_format=torch.channels_last)
        assert -1 <= images.min() < images.max() <= 1
    assert not torch.equal(batch(task, 1)[0], batch(task, 2)[0])
    assert not torch.equal(batch(task, 1)[0], batch(VaeTask(replace(TINY, seed=1), CPU), 1)[0])


def test_the_noise_has_one_amplitude_an_image() -> None:
    """Up to gamma, evenly."""
    task = VaeTask(replace(TINY, phases=(Phase(40, 64, 16),)), CPU)
    noise = torch.cat([batch(task, step)[1] for step in range(1, 13)])
    amplitudes = noise.std((1, 2, 3))
    assert amplitudes.max() < 0.42
    assert amplitudes.min() < 0.03
    assert amplitudes.mean().item() == pytest.approx(0.2, abs=0.03)
    assert torch.allclose(noise.std((2, 3)), amplitudes[:, None], rtol=0.1)


def test_the_loss_is_the_sum_of_its_terms() -> None:
    settings = replace(TINY, edge_weight=0.5, mse_weight=3.0)
    task = VaeTask(settings, CPU)
    images, _ = batch(task, 1)
    loss, metrics = task.loss(1)  # of a black guess: 0 everywhere
    edge = images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean()
    expected = images.abs().mean() + 0.5 * edge + 3 * images.square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert metrics == pytest.approx({"l1": images.abs().mean().item(), "mse": images.square().mean().item()}, rel=1e-5)


def test_pixels_are_the_scenes() -> None:
    drawn = scenes(3)
    images = vae.pixels(drawn)
    assert images.dtype == torch.float32
    for image, scene in zip(images, drawn, strict=True):
        back = ((image.permute(1, 2, 0) + 1) * 127.5).round().to(torch.uint8).numpy()
        assert np.array_equal(back, world.render(scene))


def test_scattered_scenes_are_drawn_anywhere() -> None:
    rng = random.Random(0)
    scattered = [vae.scattered(rng) for _ in range(200)]
    assert {len(scene.things) for scene in scattered} == {1, 2, 3, 4}
    things = [thing for scene in scattered for thing in scene.things]
    assert {thing.shape for thing in things} == set(world.SHAPES)
    assert any(thing.x - thing.r < -5 for thing in things)
    assert np.ptp(vae.pixels(scattered[:20]).numpy()) == 2


# ---- the start


def test_start_linear_quiets_the_branches() -> None:
    """Gain 1 everywhere but at the end of each residual branch, where it is a tenth; vectors stay."""
    torch.manual_seed(3)
    model = VAE(TINY.config())
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    vae.start_linear(model)
    branches = 0
    for name, weight in model.named_parameters():
        branch = name.endswith(("conv2.weight", "proj_out.weight"))
        branches += branch
        factor = 1.0 if weight.ndim == 1 else 3**0.5 * (0.1 if branch else 1)
        torch.testing.assert_close(weight.detach(), before[name] * factor, rtol=1e-6, atol=0)
    blocks = sum(name.endswith(("norm2.weight", "attn_1.norm.weight")) for name in before)
    assert branches == blocks > 10


def test_start_linear_keeps_the_variance() -> None:
    """Of noise through encoder and decoder, where torch's own start loses it."""
    noise = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
    spread = {}
    for started in (False, True):
        torch.manual_seed(3)
        model = VAE(TINY.config())
        if started:
            vae.start_linear(model)
        with torch.no_grad():
            spread[started] = model.decoder(model.moments(noise)[0]).std().item()
    assert 0.3 < spread[True] < 2
    assert spread[True] > 1.5 * spread[False]


# ---- the measure


class Offset:
    """An autoencoder that is wrong by the same everywhere."""

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return torch.where(latents > 0, latents - 0.1, latents + 0.1)


def test_psnr_by_background() -> None:
    offset: Any = Offset()
    decibels = -20 * np.log10(0.1 / 2)  # of the range, which is 2
    values = vae.psnr(offset, scenes(18))  # more than one batch
    assert values.shape == (18,)
    torch.testing.assert_close(values, torch.full((18,), float(decibels)), rtol=0, atol=1e-3)
    table = vae.measure(offset, count=40)
    assert set(table) == {"mean", "worst image", *world.BACKGROUNDS}
    assert set(table.values()) == {26.02}


def test_phases_follow_each_other() -> None:
    settings = VaeTraining()
    ends = list(accumulate(phase.steps for phase in settings.phases))
    for phase, end in zip(settings.phases, ends, strict=True):
        assert settings.phase(end) is phase
        assert settings.phase(end - phase.steps + 1) is phase
    with pytest.raises(IndexError, match="past the last phase"):
        settings.phase(ends[-1] + 1)
    assert settings.steps == ends[-1]


def test_aimed_crops_lie_about_a_thing() -> None:
    rng = random.Random(4)
    thing = world.Thing("circle", "red", 30.0, 98.0, 12.0)
    scene = world.Scene("scattered", "white", (thing,))
    aimed, anywhere = Phase(1, 64, 1, aimed=True), Phase(1, 64, 1)
    red = [float((vae.crop(rng, scene, aimed)[0, 1] < 0).float().mean()) for _ in range(40)]
    assert min(red) > 0.02
    assert min(float((vae.crop(rng, scene, anywhere)[0, 1] < 0).float().mean()) for _ in range(40)) == 0
    whole = vae.crop(rng, scene, Phase(1, world.CANVAS, 1, aimed=True))
    assert torch.equal(whole, vae.pixels([scene]))
