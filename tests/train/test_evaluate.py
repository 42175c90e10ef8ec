"""Evaluations: right pictures score 1, wrong ones 0 with the reasons, and the report holds what repeats it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.painter import Paint, Painter
from PIL import Image

from nextstep_rt import InvalidRequest, __version__
from nextstep_rt.train.evaluate import evaluate, evaluate_ceiling, noise_seed
from nextstep_rt.train.prompts import CATEGORIES, EDITING, GENERATION, Prompt, make_prompts
from nextstep_rt.train.report import SCHEMA, Outcome, Report, overall, score
from nextstep_rt.train.world import BACKGROUNDS, COLOURS, SHAPES, Scene, Thing

COUNT = 5


@pytest.fixture
def painter(tmp_path: Path) -> Callable[..., Any]:
    """A function: how to paint -> the pipeline that does, for COUNT prompts of each category."""
    prompts = make_prompts(COUNT)
    return lambda paint=lambda prompt, seed: prompt.scene: Painter(tmp_path / "model", prompts, paint)


def run(painter: Callable[..., Any], paint: Paint | None = None, **options: Any) -> Report:
    made = painter() if paint is None else painter(paint)
    return evaluate(made, **{"count": COUNT, "ceiling": False, **options})


# ---- scores


def test_right_pictures_score_one(painter: Callable[..., Any]) -> None:
    report = run(painter, ceiling=True)
    assert tuple(report.scores) == CATEGORIES
    assert all(s.score == 1.0 and s.high == 1.0 for s in report.scores.values())
    assert {(s.prompts, s.images) for s in report.scores.values()} == {(COUNT, 2 * COUNT)}
    assert report.overall is not None
    assert (report.overall.score, report.overall.prompts, report.overall.images) == (1.0, 6 * COUNT, 12 * COUNT)
    assert all(outcome.ok and outcome.reason == "" for outcome in report.outcomes)
    assert {name: {s.score for s in scores.values()} for name, scores in report.ceiling.items()} == {
        "reader": {1.0},
        "autoencoder": {1.0},
    }


def next_of(names: Any, name: str) -> str:
    names = list(names)
    return str(names[(names.index(name) + 1) % len(names)])


def other_background(prompt: Prompt, seed: int) -> Scene:
    return replace(prompt.scene, background=next_of(BACKGROUNDS, prompt.scene.background))


def nothing(prompt: Prompt, seed: int) -> Scene:
    return replace(prompt.scene, things=())


def other_shapes(prompt: Prompt, seed: int) -> Scene:
    """Of one kind, which no two things of a prompt are."""
    kinds = {thing.shape for thing in prompt.scene.things}
    shape = next(name for name in SHAPES if name not in kinds)
    return replace(prompt.scene, things=tuple(replace(thing, shape=shape) for thing in prompt.scene.things))


def one_too_many(prompt: Prompt, seed: int) -> Scene:
    corner = Thing("square", "blue" if prompt.scene.background != "navy" else "yellow", 8, 8, 7)
    return replace(prompt.scene, things=(*prompt.scene.things, corner))


@pytest.mark.parametrize(
    ("paint", "reason"),
    [(other_background, "background, saw"), (nothing, "saw nothing"), (other_shapes, "saw "), (one_too_many, "square")],
)
def test_wrong_pictures_score_nought(painter: Callable[..., Any], paint: Paint, reason: str) -> None:
    report = run(painter, paint)
    assert {(s.score, s.low) for s in report.scores.values()} == {(0.0, 0.0)}
    assert report.overall is not None
    assert report.overall.score == 0.0
    assert all(not outcome.ok and reason in outcome.reason for outcome in report.outcomes)


def test_wrong_colours_cost_where_they_are_judged(painter: Callable[..., Any]) -> None:
    def recoloured(prompt: Prompt, seed: int) -> Scene:
        things = tuple(replace(t, colour=next_of(COLOURS, t.colour)) for t in prompt.scene.things)
        return replace(prompt.scene, things=things)

    scores = {name: s.score for name, s in run(painter, recoloured).scores.items()}
    judged = {"counting", "colours", "colour attribution", EDITING}
    assert scores == {name: 0.0 if name in judged else 1.0 for name in CATEGORIES}


def test_the_source_of_an_edit_is_no_edit(painter: Callable[..., Any]) -> None:
    report = run(painter, lambda prompt, seed: prompt.source or prompt.scene)
    assert report.scores[EDITING].score == 0.0
    assert report.overall is not None
    assert report.overall.score == 1.0
    assert {o.kind for o in report.outcomes if not o.ok} == {"recolour", "remove", "add", "move", "background"}


def test_a_seed_that_fails_halves_the_score(painter: Callable[..., Any]) -> None:
    report = run(painter, lambda prompt, seed: prompt.scene if seed == 3 else nothing(prompt, seed), seeds=(3, 8))
    assert {s.score for s in report.scores.values()} == {0.5}
    assert {(o.seed, o.ok) for o in report.outcomes} == {(3, True), (8, False)}


def outcomes(oks: list[list[bool]], category: str = "colours") -> list[Outcome]:
    return [
        Outcome(number, category, "", "text", seed, ok, "")
        for number, by_seed in enumerate(oks)
        for seed, ok in enumerate(by_seed)
    ]


def test_intervals_count_prompts_not_pictures() -> None:
    halves = [[i % 2 == 0] for i in range(100)]
    single = score(outcomes(halves))["colours"]
    # Ten pictures of a prompt that agree tell no more than one.
    many = score(outcomes([oks * 10 for oks in halves]))["colours"]
    assert (single.score, single.low, single.high) == (many.score, many.low, many.high)
    assert single.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
    assert single.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)
    assert (many.prompts, many.images) == (100, 1000)


def test_intervals_count_scenes_not_paraphrases() -> None:
    halves = outcomes([[i % 2 == 0] for i in range(100)])
    apart = score(halves)["colours"]
    # Ten paraphrases of each of ten scenes.
    told = [
        replace(outcome, scene=f"scene {outcome.number // 10}", ok=outcome.number // 10 % 2 == 0) for outcome in halves
    ]
    together = score(told)["colours"]
    assert (together.score, together.prompts) == (apart.score, 100)
    assert together.high - together.low > 2.5 * (apart.high - apart.low)


def test_an_interval_of_all_right_is_not_certain() -> None:
    """Wilson: for 100 of 100 from 0.963."""
    perfect = score(outcomes([[True, True]] * 100))["colours"]
    assert (perfect.score, perfect.high) == (1.0, 1.0)
    assert perfect.low == pytest.approx(0.963, abs=0.001)
    failed = score(outcomes([[False]] * 100))["colours"]
    assert (failed.score, failed.low) == (0.0, 0.0)
    assert failed.high == pytest.approx(0.037, abs=0.001)
    halves = score(outcomes([[True, False]] * 100))["colours"]
    assert (halves.low, halves.high) == pytest.approx((0.404, 0.596), abs=0.001)


def test_overall_is_the_mean_of_six() -> None:
    made = [o for i, name in enumerate(GENERATION) for o in outcomes([[True]] * (i + 1) + [[False]] * (5 - i), name)]
    whole = overall(made)
    assert whole is not None
    assert whole.score == pytest.approx(np.mean([(i + 1) / 6 for i in range(6)]))
    assert whole.low < whole.score < whole.high
    # Editing is no part of it, and a category that is missing leaves it open.
    assert overall([*made, *outcomes([[False]] * 9, EDITING)]) == whole
    assert overall(made[6:]) is None


# ---- how it is drawn


def test_prompts_are_batched_and_edits_get_their_picture(painter: Callable[..., Any]) -> None:
    made = painter()
    evaluate(made, count=COUNT, seeds=(4, 9), batch_size=16, ceiling=False)
    plain = [(texts, options) for texts, options in made.calls if "image" not in options]
    edits = [(texts, options) for texts, options in made.calls if "image" in options]
    assert [len(texts) for texts, _ in plain] == [16, 16, 16, 12]
    assert [len(texts) for texts, _ in edits] == [2] * COUNT
    assert all([seed >> 32 for seed in options["seed"]] == [4, 9] for _, options in edits)
    assert all(len(set(texts)) == 1 for texts, _ in edits)
    assert all(options["image"].size == (128, 128) for _, options in edits)
    drawn = [pair for texts, options in plain for pair in zip(texts, options["seed"], strict=True)]
    prompts = make_prompts(COUNT, GENERATION)
    assert drawn == [(p.text, noise_seed(number, seed)) for number, p in enumerate(prompts) for seed in (4, 9)]
    assert len({seed for _, seed in drawn}) == len(drawn)  # noise of its own for each picture


def test_settings_reach_the_pipeline(painter: Callable[..., Any]) -> None:
    made = painter()
    settings: Any = {"guidance_scale": 2.5, "num_inference_steps": 12, "solver": "heun", "image_guidance_scale": 1.5}
    report = evaluate(made, count=COUNT, seeds=(0,), ceiling=False, **settings)
    for _, options in made.calls:
        given = {name: value for name, value in options.items() if name not in ("seed", "image")}
        without = {name: value for name, value in settings.items() if name != "image_guidance_scale"}
        assert given == (settings if "image" in options else without)
    assert settings.items() <= report.about["settings"].items()


def test_progress_and_pictures(painter: Callable[..., Any]) -> None:
    steps: list[tuple[int, int]] = []
    seen: list[tuple[Prompt, Outcome, Image.Image]] = []
    report = run(
        painter,
        categories=["counting", EDITING],
        progress=lambda *step: steps.append(step),
        on_image=lambda *it: seen.append(it),
    )
    assert steps == [(i, 4 * COUNT) for i in range(1, 4 * COUNT + 1)]
    assert tuple(outcome for _, outcome, _ in seen) == report.outcomes
    assert all(prompt.text == outcome.prompt and picture.mode == "RGB" for prompt, outcome, picture in seen)
    assert tuple(report.scores) == ("counting", EDITING)
    assert report.overall is None


def test_the_autoencoder_limits_the_ceiling(painter: Callable[..., Any]) -> None:
    made = painter()
    made.vision.decode = lambda latent: np.full_like(latent, 1.0)
    limits = evaluate_ceiling(made, make_prompts(2))
    assert {s.score for s in limits["reader"].values()} == {1.0}
    assert {s.score for s in limits["autoencoder"].values()} == {0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": ()}, "one or more"),
        ({"seeds": (1, 1)}, "all different"),
        ({"seeds": (-1,)}, r"seeds\[0\] is -1"),
        ({"count": 0}, "count is 0"),
        ({"categories": ["cats"]}, "unknown category"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"solver": "eular"}, "did you mean 'euler'"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ],
)
def test_wrong_arguments_before_anything_is_drawn(
    painter: Callable[..., Any], options: dict[str, Any], message: str
) -> None:
    made = painter()
    with pytest.raises(InvalidRequest, match=message):
        evaluate(made, **options)
    assert made.calls == []


def test_an_unknown_setting_is_a_type_error(painter: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match="guidance"):
        evaluate(painter(), guidance=3.0)


# ---- the report


def test_json_round_trip(painter: Callable[..., Any], tmp_path: Path) -> None:
    report = run(painter, lambda prompt, seed: nothing(prompt, seed) if seed else prompt.scene, ceiling=True)
    report.write(tmp_path / "report.json")
    values = json.loads((tmp_path / "report.json").read_text())
    assert Report.from_json(values) == report
    assert values["schema"] == SCHEMA
    assert values["outcomes"][1]["reason"].endswith("saw nothing")


def test_what_the_report_says_of_the_model(
    painter: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = painter()
    monkeypatch.setattr("sys.argv", ["/somewhere/__main__.py", "eval", "my model"])
    about = evaluate(made, count=COUNT, seeds=(5,), prompt_seed=0, ceiling=False).about
    assert about["weights_sha256"] == {
        "model.safetensors": hashlib.sha256(b"weights").hexdigest(),
        "vae/model.safetensors": hashlib.sha256(b"autoencoder").hexdigest(),
    }
    assert (os.path.abspath(about["model"]), about["backend"], about["dtype"]) == (made.folder, "painter", "float32")
    assert (about["version"], about["seeds"], about["count"], about["size"]) == (__version__, [5], COUNT, [128, 128])
    assert datetime.fromisoformat(about["date"]).tzinfo is not None
    assert about["commit"] is None or len(about["commit"].removesuffix("-dirty")) == 40
    assert about["command"] == "nextstep-rt eval 'my model'"
    monkeypatch.chdir(tmp_path)
    assert evaluate(made, count=COUNT, seeds=(5,), categories=["colours"], ceiling=False).about["model"] == "model"


def test_another_schema_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="schema 99"):
        Report.from_json({"schema": 99})


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot write"):
        Report({}, None, ()).write(tmp_path / "none" / "report.json")
