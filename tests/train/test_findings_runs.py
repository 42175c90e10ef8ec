"""The findings' runs on a toy of the real layout: what is measured is what was drawn and trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.recipes import SMALL_GENERATOR

from nextstep_rt import Pipeline
from nextstep_rt.reference import normalize_token
from nextstep_rt.train import generator, run
from nextstep_rt.train.findings import gamma, head_size, statistics, training
from nextstep_rt.train.findings.work import Drawing, Work, sha256_of, world_model
from nextstep_rt.train.generator import Generator
from nextstep_rt.train.latents import load_dataset
from nextstep_rt.train.report import Report
from nextstep_rt.train.tokenizer import write_tokenizer
from nextstep_rt.train.vae import Phase, VaeTraining, save_vae
from nextstep_rt.vae import VAE
from nextstep_rt.vision import Vision

TINY_VAE = VaeTraining(ch=32, ch_mult=(1, 1, 1, 1), phases=(Phase(1, 64, 1),))
TINY = replace(SMALL_GENERATOR, fm_head_dim=16, scenes=4, edits=0, edit_batch=0, steps=1, batch=2, draws=1)
DRAWING = Drawing(count=1, seeds=(0,), num_inference_steps=1, solver="euler")
HELD_OUT = training.HeldOut(scenes=3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling, plots, decoding and a tokenizer trained on all that can be said take longer than the rest."""

    def few(folder: Path, *, vocab_size: int) -> Any:
        return write_tokenizer(folder, vocab_size=vocab_size, count=60)

    def unchanged(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        return function

    monkeypatch.setattr(torch, "compile", unchanged)
    monkeypatch.setattr(run, "plot_log", lambda folder: None)
    monkeypatch.setattr(Vision, "decode", lambda self, latent: np.zeros((3, 128, 128), np.float32))
    monkeypatch.setattr(generator, "write_tokenizer", few)


@pytest.fixture
def vae(tmp_path: Path) -> Path:
    """A model's folder with nothing but an untrained autoencoder."""
    torch.manual_seed(0)
    weights = {name: weight.detach() for name, weight in VAE(TINY_VAE.config()).named_parameters()}
    save_vae(TINY_VAE, weights, tmp_path / "model" / "vae")
    return tmp_path / "model" / "vae"


@pytest.fixture
def model(vae: Path) -> Path:
    """A model with random weights that all have a say."""
    torch.manual_seed(1)
    config, _ = generator.write_layout(TINY, vae.parent)
    weights = dict(Generator(config, TINY.draws).named_parameters())
    generator.save_generator({name: w.detach() + 0.1 * torch.randn(w.shape) for name, w in weights.items()}, vae.parent)
    return vae.parent


# ---- watching tokens


@pytest.mark.parametrize("backend", ["native", "reference"])
def test_watching_changes_no_token(model: Path, backend: str) -> None:
    options: Any = {"seed": [3, 4, 5], "num_inference_steps": 3, "output_type": "latent"}
    for normalized in (True, False):
        plain = Pipeline.from_pretrained(model, backend=backend, threads=1)
        expected = plain(["a red circle", "two stars", ""], **options, normalize_tokens=normalized).tokens
        watched = statistics.Watched(plain.engine)
        plain.engine = watched  # type: ignore[assignment]
        found = plain(["a red circle", "two stars", ""], **options, normalize_tokens=normalized).tokens
        assert np.array_equal(found, expected)
        (mean,), (variance,) = watched.mean, watched.variance
        assert mean.shape == variance.shape == (3, 64)
        as_sampled = np.allclose(mean, expected.mean(-1), atol=1e-5) and np.allclose(
            variance, expected.var(-1), rtol=1e-4
        )
        assert as_sampled is (not normalized)  # with normalization the statistics are those before it


def test_a_watched_engine_stops_where_it_is_told(model: Path) -> None:
    pipeline = Pipeline.from_pretrained(model, threads=1)
    watched = statistics.Watched(pipeline.engine)
    pipeline.engine = watched  # type: ignore[assignment]
    result = pipeline("x", seed=1, num_inference_steps=1, callback=lambda step, total, tokens: step < 3)
    assert (result.complete, result.tokens_done) == (False, (3,))
    assert watched.mean[0].shape == (1, 3)
    noise = np.random.default_rng(0).standard_normal((64, 2, 1, 64)).astype(np.float32)
    given = pipeline("x", noise=noise, num_inference_steps=1, output_type="latent").tokens
    plain = Pipeline.from_pretrained(model, threads=1)("x", noise=noise, num_inference_steps=1, output_type="latent")
    assert np.array_equal(given, plain.tokens)


def test_statistics_run(model: Path, tmp_path: Path) -> None:
    drawing = replace(DRAWING, seeds=(0, 1))
    settings = statistics.StatisticsSettings(guidance=(1.0, 2.0), drawing=drawing)
    result = statistics.run(Work(str(model), tmp_path, "command"), settings)
    assert list(result["points"]) == [f"guidance-{g}-{n}" for g in "12" for n in ("normalized", "as-sampled")]
    point = json.loads((tmp_path / "statistics" / "points" / "guidance-2-as-sampled.json").read_text())["point"]
    assert np.shape(point["mean"]) == np.shape(point["variance"]) == (6, 64)  # six prompts, both seeds in one
    report = Report.from_json(point["report"])
    assert (report.about["settings"]["guidance_scale"], report.about["settings"]["normalize_tokens"]) == (2.0, False)
    curve = result["points"]["guidance-2-as-sampled"]["mean"]
    assert np.allclose(curve["curve"], np.mean(point["mean"], axis=0), atol=1e-4)
    assert result["weights_sha256"]["model.safetensors"] == sha256_of(model)["model/model.safetensors"]


# ---- trainings


def test_held_out_losses_are_the_generators(model: Path) -> None:
    losses = training.velocity_losses(model, HELD_OUT, TINY)
    assert losses.shape == (3,)
    assert np.array_equal(losses, training.velocity_losses(model, HELD_OUT, TINY))
    # The same scenes, but encoded in bfloat16 in a batch of another size.
    assert losses[:2] == pytest.approx(training.velocity_losses(model, replace(HELD_OUT, scenes=2), TINY), rel=2e-3)
    assert not np.array_equal(losses, training.velocity_losses(model, replace(HELD_OUT, seed=1), TINY))
    assert all(scene.held_out for scene in HELD_OUT.draw())
    # A head that says nothing is off by data - noise: its square is 1 of the data and 1 of the noise.
    zero = {n.replace(".", "/"): torch.zeros(w.shape) for n, w in generator_of(model).weights.items()}
    generator.save_generator(zero, model)
    assert training.velocity_losses(model, HELD_OUT, TINY).mean() == pytest.approx(2.0, abs=0.05)


def generator_of(model: Path) -> Generator:
    from nextstep_rt import ModelConfig

    return Generator(ModelConfig.from_json((model / "config.json").read_text()), TINY.draws)


def test_head_sizes_are_trained_alike_and_once(vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator.write_layout(TINY, vae.parent)
    settings = head_size.HeadSizeSettings(((1, 16), (2, 24)), TINY, HELD_OUT, DRAWING)
    work = Work(str(vae.parent), tmp_path / "findings", "command")
    result = head_size.run(work, settings)
    one, two = (result["points"][name] for name in ("1x16", "2x24"))
    assert one["parameters"] < two["parameters"]
    for name, size in (("1x16", 16), ("2x24", 24)):
        folder = work.folder / "head_size" / name
        assert json.loads((folder / "model" / "config.json").read_text())["fm_head_dim"] == size
        assert sha256_of(folder / "model" / "vae") == sha256_of(vae)
        line = json.loads((folder / "generator" / run.LOG).read_text())
        assert line["step"] == 1
        assert "edit_mse" not in line
    assert set(result["weights_sha256"]) >= {"1x16/model.safetensors", "2x24/vae/model.safetensors"}
    monkeypatch.setattr(head_size, "trained", lambda *_: pytest.fail("trained again"))
    assert json.loads(json.dumps(head_size.run(work, settings))) == json.loads(json.dumps(result))


def test_every_gamma_gets_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextstep_rt.train.vae.measure", lambda vae: {"mean": 0.0})
    settings = gamma.GammaSettings((0.0, 1.0), TINY_VAE, TINY, HELD_OUT, DRAWING)
    result = gamma.run(Work("demo", tmp_path, "command"), settings)
    for name in ("gamma-0", "gamma-1"):
        assert len(list((tmp_path / "gamma" / name / "latents").iterdir())) == 1
        point = json.loads((tmp_path / "gamma" / "points" / f"{name}.json").read_text())["point"]
        assert (len(point["psnr"]), len(point["losses"])) == (3, 3)
    hashes = result["weights_sha256"]
    assert hashes["gamma-0/vae/model.safetensors"] != hashes["gamma-1/vae/model.safetensors"]
    assert set(result["differences from the least"]) == {"gamma-1"}


def test_a_dataset_without_edits(vae: Path, tmp_path: Path) -> None:
    data = load_dataset(vae, tmp_path / "latents", scene_count=2, edit_count=0)
    assert (data.scene_tokens.shape, data.edit_tokens.shape) == ((2, 64, 64), (0, 2, 64, 64))
    assert data.edit_tokens.dtype == data.scene_tokens.dtype
    assert data.edits == []
    assert [path.name[:13] for path in (tmp_path / "latents").iterdir()] == ["scenes-000000"]
    torch.testing.assert_close(
        normalize_token(data.scene_tokens.float()), data.scene_tokens.float(), atol=0.1, rtol=0.1
    )


def test_world_models_are_found(model: Path, tmp_path: Path) -> None:
    assert world_model(str(model)) == (model, model / "vae")
    shutil.copytree(model, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps({**config, "latent_size": 8}))
    with pytest.raises(ValueError, match="other draws 64 pixels a side"):
        world_model(str(tmp_path / "other"))


def test_drawings_alone_are_the_drawings_of_both(model: Path) -> None:
    """A step without edits draws what a step with them draws: the default's batches are as ever."""
    from nextstep_rt.train.batches import Sampler
    from nextstep_rt.train.latents import Dataset, training_edit, training_scene

    rng = torch.Generator().manual_seed(2)
    data = Dataset(
        [training_scene(i) for i in range(5)],
        torch.randn(5, 64, 64, generator=rng).bfloat16(),
        [training_edit(0)],
        torch.randn(1, 2, 64, 64, generator=rng).bfloat16(),
    )
    _, prompts = generator.write_layout(TINY, model)
    both = Sampler(replace(TINY, edit_batch=2), data, prompts).batches(7)
    (alone,) = Sampler(TINY, data, prompts).batches(7)
    assert len(both) == 2
    for name, value in vars(alone).items():
        assert value is None or torch.equal(value, getattr(both[0], name)), name
