"""The training command, and the model card of what is shipped."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.commands import fails, run

from nextstep_rt.config import GenerationConfig
from nextstep_rt.errors import InvalidRequest
from nextstep_rt.train import card, command, generator, history, refine, vae
from nextstep_rt.train.generator import GeneratorTraining
from nextstep_rt.train.prompts import CATEGORIES, EDITING
from nextstep_rt.train.report import Outcome, Report, Score, overall, score
from nextstep_rt.train.vae import VaeTraining


def test_the_command_trains_all_and_scales_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    def train_vae(settings: VaeTraining, run: Path, out: Path) -> None:
        calls.append((settings, run, out))
        out.mkdir(parents=True)

    monkeypatch.setattr(vae, "train_vae", train_vae)
    monkeypatch.setattr(generator, "train_generator", lambda *arguments: calls.append(arguments))
    run("--folder", str(tmp_path), "--steps", "0.01", app=command.app)
    model = tmp_path / "model"
    (vae_settings, vae_run, vae_out), (settings, generator_run, _, out, start), *further = calls
    assert (vae_run, vae_out) == (tmp_path / "vae", model / "vae")
    assert (generator_run, out, start) == (tmp_path / "generator", model, None)
    assert vae_settings == replace(
        VaeTraining(),
        phases=tuple(replace(phase, steps=max(1, round(phase.steps / 100))) for phase in VaeTraining().phases),
    )
    whole = GeneratorTraining()
    assert settings == replace(whole, steps=round(whole.steps / 100))
    assert [(run.name, out, start) for _, run, _, out, start in further] == [
        ("generator-2", model, model),
        ("generator-3", model, model),
    ]
    assert [made[0] for made in further] == [whole.going_on(course).scaled(0.01) for course in (2, 3)]
    assert len({whole.seed, *(made[0].seed for made in further)}) == 3
    stated = GenerationConfig.from_folder(tmp_path / "model")
    assert stated.guidance_scale == command.GENERATION["guidance_scale"]


def test_the_command_reports_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise InvalidRequest("the loss is nan at step 3: take a lower learning rate")

    monkeypatch.setattr(vae, "train_vae", broken)
    assert "the loss is nan at step 3" in fails("--folder", str(tmp_path), app=command.app)


KINDS = ("move", "add")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A folder as a finished training and evaluation leave it."""
    for name in card.FILES:
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(command.GENERATION))
    for name, losses in (("vae", {"l1": 0.02}), ("generator", {"ce": 0.5, "mse": 0.25})):
        (tmp_path / name).mkdir()
        lines = [{"step": step, **losses, "factor": 1.0, "s_per_step": 1.8} for step in (500, 1000)]
        settings = asdict(VaeTraining() if name == "vae" else GeneratorTraining())
        torch.save({"settings": settings}, tmp_path / name / "checkpoint.pt")
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / history.PSNR).write_text(json.dumps({"mean": 33.21, "navy": 31.0}))
    (tmp_path / "refinement.json").write_text(json.dumps({"right": 93, "count": 100}))
    return tmp_path


@pytest.fixture
def report(trained: Path) -> Report:
    """Of all categories; three prompts of four are drawn right."""
    outcomes = tuple(
        Outcome(
            number, category, KINDS[number % 2] * (category == EDITING), f"prompt {number}", seed, number % 4 > 0, ""
        )
        for category in CATEGORIES
        for number in range(100)
        for seed in (0, 1)
    )
    model = trained / "model"
    about = {
        "command": "nextstep-rt eval model",
        "commit": "abc",
        "date": "2026-01-02T03:04:05+00:00",
        "backend": "cpu/portable",
        "dtype": "bfloat16",
        "seeds": [0, 1],
        "prompt_seed": 0,
        "weights_sha256": {name: hashlib.sha256((model / name).read_bytes()).hexdigest() for name in card.FILES},
        "settings": asdict(GenerationConfig.from_folder(model)),
    }
    return Report(score(outcomes), overall(outcomes), outcomes, {}, about)


def test_shipping_copies_the_files_and_states_their_origin(trained: Path, report: Report, tmp_path: Path) -> None:
    to = tmp_path / "shipped"
    card.ship(trained, report, to, commit="0123abc")
    assert {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()} == {
        *card.FILES,
        card.CARD,
        history.SHIPPED,
    }
    for name in card.FILES:
        assert (to / name).read_bytes() == (trained / "model" / name).read_bytes()
    text = (to / card.CARD).read_text()
    for fact in (
        "| counting | 0.750 |",
        "| 100 | 200 |",
        "mean 33.2",
        "93 of 100",
        "0123abc",
        "nextstep-rt eval model",
        "commit abc, 2026-01-02; cpu/portable, bfloat16; prompt seed 0, seeds 0, 1",
        "move 0.50, add 1.00",
    ):
        assert fact in text
    assert "0.5 hours of steps; last losses ce 0.5000, mse 0.2500" in text  # 1000 steps of 1.8 s
    assert f"gamma {VaeTraining().gamma}" in text
    assert f"hidden_size {GeneratorTraining().hidden_size}" in text


def test_nothing_is_shipped_in_part(trained: Path, report: Report, tmp_path: Path) -> None:
    (trained / "model" / "tokenizer.json").unlink()
    with pytest.raises(InvalidRequest, match=r"lacks tokenizer\.json"):
        card.ship(trained, report, tmp_path / "shipped", commit="0123abc")
    assert not (tmp_path / "shipped").exists()


def test_a_report_of_other_weights_is_refused(trained: Path, report: Report, tmp_path: Path) -> None:
    (trained / "model" / "vae" / "model.safetensors").write_bytes(b"trained on")
    with pytest.raises(InvalidRequest, match=r"not of .*vae/model\.safetensors: run `nextstep-rt eval"):
        card.ship(trained, report, tmp_path / "shipped", commit="0123abc")
    assert not (tmp_path / "shipped").exists()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"overall": None}, "lacks categories"),
        ({"scores": {name: Score(1.0, 0.9, 1.0, 3, 6) for name in CATEGORIES}}, "3 prompts a category"),
    ],
)
def test_a_report_of_less_is_refused(
    trained: Path, report: Report, tmp_path: Path, change: dict[str, Any], error: str
) -> None:
    with pytest.raises(InvalidRequest, match=error):
        card.ship(trained, replace(report, **change), tmp_path / "shipped", commit="0123abc")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"prompt_seed": 1}, "--prompt-seed 1: published scores are of 0"),
        ({"seeds": [0]}, r"seeds \[0\]: published scores are of \[0, 1\]"),
        ({"backend": "reference/torch"}, "ships with the native one's scores"),
        ({"commit": None}, "commit is None: evaluate from a source tree"),
        ({"commit": "abc-dirty"}, "commit is abc-dirty"),
    ],
)
def test_a_report_that_cannot_be_published_is_refused(
    trained: Path, report: Report, tmp_path: Path, change: dict[str, Any], error: str
) -> None:
    with pytest.raises(InvalidRequest, match=error):
        card.ship(trained, replace(report, about={**report.about, **change}), tmp_path / "shipped", commit="0123abc")
    assert not (tmp_path / "shipped").exists()


def test_the_reference_backend_is_compared_on_the_same_seeds(trained: Path, report: Report, tmp_path: Path) -> None:
    def of_reference(outcomes: tuple[Outcome, ...], backend: str = "reference/torch") -> Report:
        about = {**report.about, "backend": backend, "seeds": [0]}
        return replace(report, outcomes=tuple(o for o in outcomes if o.seed == 0), about=about)

    card.ship(trained, report, tmp_path / "a", reference=of_reference(report.outcomes), commit="0123abc")
    assert "0.000 [" in (tmp_path / "a" / card.CARD).read_text()
    assert "no difference beyond chance" in (tmp_path / "a" / card.CARD).read_text()
    wrong = tuple(replace(outcome, ok=False) for outcome in report.outcomes)
    card.ship(trained, report, tmp_path / "b", reference=of_reference(wrong), commit="0123abc")
    assert "scores 0.750 [" in (tmp_path / "b" / card.CARD).read_text()
    assert "categories: a difference" in (tmp_path / "b" / card.CARD).read_text()
    with pytest.raises(InvalidRequest, match="a report of cpu/portable: draw with --backend reference"):
        card.ship(trained, report, tmp_path / "c", reference=of_reference(wrong, "cpu/portable"), commit="0123abc")


def test_every_course_is_on_the_card(trained: Path, report: Report, tmp_path: Path) -> None:
    shutil.copytree(trained / "generator", trained / "generator-2")
    card.ship(trained, report, tmp_path / "shipped", commit="0123abc")
    assert (tmp_path / "shipped" / card.CARD).read_text().count("Generator: commit") == 2
    assert history.begin_from(tmp_path / "shipped", tmp_path / "further") == 2


def test_a_run_s_own_commits_are_stated(trained: Path, report: Report, tmp_path: Path) -> None:
    for name in ("vae", "generator"):
        path = trained / name / "checkpoint.pt"
        torch.save({**torch.load(path, weights_only=True), "commits": ["111", "222"]}, path)
    card.ship(trained, report, tmp_path / "shipped")
    assert "Generator: commit 111, 222; 0.5 hours" in (tmp_path / "shipped" / card.CARD).read_text()


def test_a_training_goes_on_from_what_was_shipped(
    trained: Path, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped, folder = tmp_path / "shipped", tmp_path / "further"
    card.ship(trained, report, shipped, commit="0123abc")
    calls: list[Any] = []
    monkeypatch.setattr(vae, "train_vae", lambda *arguments: calls.append("vae"))
    monkeypatch.setattr(generator, "train_generator", lambda *arguments: calls.append(arguments))
    run("--folder", str(folder), "--from", str(shipped), app=command.app)
    run("--folder", str(folder), "--from", str(shipped), app=command.app)  # goes on where it stands
    ((settings, _, _, out, start), again) = calls
    assert again[-1] == start == shipped
    assert settings == GeneratorTraining().going_on(2)
    assert (settings.drowned, settings.drowned_drawings) == (0.5, 0.4)
    assert (out / "vae" / "model.safetensors").read_bytes() == b"vae/model.safetensors"
    assert "--from" in fails("--folder", str(folder), app=command.app)
    for name in card.FILES:
        (folder / "model" / name).write_bytes((trained / "model" / name).read_bytes())
    for name in ("refinement.json", history.PSNR):
        shutil.copyfile(trained / name, folder / name)
    shutil.copytree(trained / "generator", folder / "generator")
    card.ship(folder, report, tmp_path / "again", commit="4567def")
    text = (tmp_path / "again" / card.CARD).read_text()
    assert text.count("Generator: commit") == 2
    assert "Generator: commit 4567def" in text
    assert "Image tokenizer: commit 0123abc" in text
    assert "mean 33.2" in text


def test_a_training_goes_on_from_one_model_only(trained: Path, report: Report, tmp_path: Path) -> None:
    card.ship(trained, report, tmp_path / "a", commit="0123abc")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").write_bytes(b"others")
    history.begin_from(tmp_path / "a", tmp_path / "folder")
    with pytest.raises(InvalidRequest, match="began otherwise"):
        history.begin_from(tmp_path / "b", tmp_path / "folder")
    with pytest.raises(InvalidRequest, match="began otherwise"):
        history.begin_from(tmp_path / "a", trained)
    with pytest.raises(InvalidRequest, match=r"has no training\.json"):
        history.begin_from(trained / "model", tmp_path / "other")


def test_a_report_of_other_settings_is_refused(trained: Path, report: Report, tmp_path: Path) -> None:
    (trained / "model" / "generation_config.json").write_text(json.dumps({"guidance_scale": 5.0}))
    with pytest.raises(InvalidRequest, match="other settings"):
        card.ship(trained, report, tmp_path / "shipped", commit="0123abc")


def test_what_is_too_large_is_not_shipped(trained: Path, report: Report, tmp_path: Path) -> None:
    with (trained / "model" / "model.safetensors").open("wb") as file:
        file.truncate(card.LARGEST)
    with pytest.raises(InvalidRequest, match="at most 16000000 are shipped"):
        card.ship(trained, report, tmp_path / "shipped", commit="0123abc")
    assert not (tmp_path / "shipped").exists()


def test_the_ship_command(trained: Path, report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def score_model(folder: Path) -> list[refine.Refinement]:
        asked.append(folder)
        return [refine.Refinement("dot", "a red circle", right) for right in (True, True, False)]

    monkeypatch.setattr(refine, "score_model", score_model)
    monkeypatch.setattr(vae.VAE, "from_folder", lambda folder: folder)
    monkeypatch.setattr(vae, "measure", lambda folder: {"mean": float(len(folder.parts))})
    report.write(tmp_path / "report.json")
    to = tmp_path / "shipped"
    options = ["--folder", str(trained), "--to", str(to)]
    assert "say it with --commit" in fails("ship", str(tmp_path / "report.json"), *options, app=command.app)
    assert not to.exists()
    run("ship", str(tmp_path / "report.json"), *options, "--commit", "0123abc", app=command.app)
    assert asked == [trained / "model"] * 2
    text = (to / card.CARD).read_text()
    assert "2 of 3 terse" in text
    assert f"mean {len((trained / 'model' / 'vae').parts)}.0" in text


def test_the_ship_command_reports_what_is_missing(trained: Path, report: Report, tmp_path: Path) -> None:
    (trained / "model" / "config.json").unlink()
    report.write(tmp_path / "report.json")
    options = ["--folder", str(trained), "--to", str(tmp_path)]
    assert "config.json" in fails("ship", str(tmp_path / "report.json"), *options, app=command.app)
