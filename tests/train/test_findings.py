"""The findings' arithmetic, verdicts, plots and page, on results made up for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.commands import fails, run
from kit.found import (
    Values,
    all_results,
    finished,
    gamma_result,
    head_size_result,
    report,
    slow_sde,
    solvers_result,
    statistics_result,
    trained_point,
)
from PIL import Image

from nextstep_rt import InvalidRequest
from nextstep_rt.train.findings import gamma, head_size, solvers, statistics
from nextstep_rt.train.findings.command import app
from nextstep_rt.train.findings.numbers import Number
from nextstep_rt.train.findings.report import PARTS, settings_text, write_report
from nextstep_rt.train.findings.work import Drawing, Part, Work, world_model, write_json

GOLDEN = Path(__file__).parent.parent / "golden"


# ---- verdicts: how each finding looks where it holds, and where it does not


def test_verdicts_of_statistics(tmp_path: Path) -> None:
    shown = statistics.verdict(statistics_result(tmp_path, held=True))
    assert shown.startswith("**Shows it.** At guidance 7.5, without normalization the mean drifts further (by 0.9")
    assert "normalization raises the score (by 0." in shown
    assert "neither statistic drifts further at guidance 7.5 than at 1" in shown
    refuted = statistics.verdict(statistics_result(tmp_path, held=False))
    # Flat with normalization it is, so one of three claims stands.
    assert refuted.startswith("**Shows it in part.**")
    assert "the mean drifts no differently" in refuted
    assert "normalization makes no difference to the score" in refuted


def test_verdict_of_statistics_that_drift_with_normalization_too(tmp_path: Path) -> None:
    result = statistics_result(tmp_path, held=False)
    result["differences"]["7.5"]["drift added by guidance"]["variance"] = Number(0.3, 0.2, 0.4).to_json()
    result["differences"]["7.5"]["score gained by normalization"] = Number(-0.3, -0.4, -0.2).to_json()
    verdict = statistics.verdict(result)
    assert verdict.startswith("**Does not show it.**")
    assert "normalization lowers the score" in verdict
    assert "the variance drifts further (by 0.300 [0.200, 0.400]) at guidance 7.5 than at 1" in verdict


def test_verdicts_of_head_size(tmp_path: Path) -> None:
    shown = head_size.verdict(head_size_result(tmp_path, held=True))
    assert shown.startswith(
        "**Shows it, as far as the intervals reach.** No two heads' scores differ; a difference of up"
    )
    assert shown.endswith("The held-out velocity loss does not differ.")
    refuted = head_size.verdict(head_size_result(tmp_path, held=False))
    assert refuted.startswith("**Does not show it.** Scores differ (3x192 less 2x96: 0.")
    assert "The held-out velocity loss differs (3x192 less 2x96: -0.1000" in refuted


@pytest.mark.parametrize(
    ("loss", "share", "opening", "said"),
    [
        (0.2, 0.3, "Shows it", "gamma 1 raises the loss (by 0.2000"),
        (0.2, 0.0, "Shows it in part", "makes no difference to the score"),
        (-0.2, 0.3, "Shows it in part", "lowers the loss"),
        (0.0, -0.3, "Does not show it", "lowers the score"),
    ],
)
def test_verdicts_of_gamma(tmp_path: Path, loss: float, share: float, opening: str, said: str) -> None:
    verdict = gamma.verdict(gamma_result(tmp_path, loss=loss, share=share))
    assert verdict.startswith(f"**{opening}.** Against gamma 0, gamma 0.4 ")
    assert said in verdict


def test_models_that_draw_nothing_tell_nothing(tmp_path: Path) -> None:
    """No difference between pictures that show nothing is no finding; losses may still differ."""
    rows = {"a": trained_point(0.02, 0.5, parameters=1), "b": trained_point(0.02, 0.4, parameters=2)}
    settings = replace(head_size.HeadSizeSettings(), sizes=((1, 1), (1, 2)))
    verdict = head_size.verdict(finished("head_size", settings, head_size.numbers_of(rows), tmp_path))
    assert verdict.startswith("**Cannot tell.** No model scores 0.1 or more (the best 0.0")
    assert verdict.endswith("The held-out velocity loss differs (b less a: -0.1000 [-0.1000, -0.1000]).")
    verdict = gamma.verdict(gamma_result(tmp_path, share=0.0, least=0.02))
    assert verdict.startswith("**Cannot tell.**")
    assert "gamma 1 raises the loss (by 0.2000" in verdict


def test_verdicts_of_solvers(tmp_path: Path) -> None:
    result = solvers_result(tmp_path, slow_sde)
    verdict = solvers.verdict(result)
    assert verdict.startswith("**28 steps of sde are too few:** 50 steps score 0.2")
    assert "euler 20, heun 5 (9 evaluations), sde 50 or more, flow-cps 20." in verdict
    assert verdict.endswith("At 50 steps no solver differs from the best one.")
    other = solvers.verdict(solvers_result(tmp_path, lambda solver, steps: 0.4 if solver == "flow-cps" else 0.8))
    assert other.startswith("**28 steps of sde are enough:**")
    assert "euler 5, heun 5 (9 evaluations), sde 5, flow-cps 5." in other
    assert "At 50 steps euler scores more than flow-cps (by 0." in other


def test_enough_steps_are_enough_from_there_on(tmp_path: Path) -> None:
    """A count that happens to score well between two that do not is not enough."""
    odd = {5: 0.3, 10: 0.8, 20: 0.3, 28: 0.8, 50: 0.8}
    assert solvers.fewest(solvers_result(tmp_path, lambda solver, steps: odd[steps]), "euler") == 28


def test_heun_evaluates_twice_but_for_the_last_step() -> None:
    assert [solvers.evaluations("heun", n) for n in (1, 5, 28)] == [1, 9, 55]
    assert solvers.evaluations("flow-cps", 28) == 28


# ---- points and results


def test_a_point_is_made_once(tmp_path: Path) -> None:
    work = Work("demo", tmp_path, "command")
    made: list[int] = []

    def make() -> Values:
        made.append(1)
        return {"rows": (1.5, 2)}

    for _ in range(2):
        assert work.point("solvers", "a", {"seeds": (0, 1), "drawing": {"count": 2}}, make) == {"rows": [1.5, 2]}
    assert made == [1]
    with pytest.raises(InvalidRequest, match=r"other settings \(drawing.count, seeds\): name another --folder"):
        work.point("solvers", "a", {"seeds": (0,), "drawing": {"count": 3}}, make)


def test_a_stopped_part_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = solvers.SolversSettings(solvers=("euler", "heun"), steps=(5, 10))
    work = Work("m", tmp_path, "command")
    drawn: list[tuple[str, int]] = []

    def draw(model: str, drawing: Drawing) -> Values:
        if len(drawn) == 3:
            raise KeyboardInterrupt
        drawn.append((drawing.solver, drawing.num_inference_steps))
        return {"report": report(0.5).to_json()}

    monkeypatch.setattr(solvers, "drawn", draw)
    monkeypatch.setattr(solvers, "world_model", lambda model: (tmp_path, tmp_path))
    with pytest.raises(KeyboardInterrupt):
        solvers.run(work, settings)
    assert not (tmp_path / "solvers.json").exists()
    assert drawn == [("euler", 5), ("euler", 10), ("heun", 5)]
    drawn.clear()
    result = solvers.run(work, settings)
    assert drawn == [("heun", 10)]
    assert json.loads((tmp_path / "solvers.json").read_text()) == json.loads(json.dumps(result))
    # More settings take what is there; another count does not.
    drawn.clear()
    solvers.run(work, replace(settings, steps=(5, 10, 20)))
    assert drawn == [("euler", 20), ("heun", 20)]
    with pytest.raises(InvalidRequest, match=r"drawing.count"):
        solvers.run(work, settings.scaled(7, 1.0))


def test_a_result_says_what_makes_it_again(tmp_path: Path) -> None:
    result = gamma_result(tmp_path)
    assert (result["part"], result["model"], result["commit"]) == ("gamma", "demo", "c0ffee")
    assert result["command"] == "python -m nextstep_rt.train.findings --part gamma"
    assert result["date"] == "2026-01-02T03:04:05+00:00"
    assert result["weights_sha256"] == {"m.safetensors": "ab" * 32}
    assert result["settings"]["drawing"]["seeds"] == [0, 1]
    assert [phase["steps"] for phase in result["settings"]["vae"]["phases"]] == [500, 250]
    assert set(result["points"]["gamma-1"]["psnr"]) == {"value", "low", "high"}


def test_points_with_models_of_their_own_name_all_weights(tmp_path: Path) -> None:
    other = report(0.5)
    other = replace(other, about={**other.about, "weights_sha256": {"m.safetensors": "cd" * 32}, "commit": None})
    result = finished("gamma", gamma.GammaSettings(), {}, tmp_path, {"a": report(0.5), "b": other})
    assert result["weights_sha256"] == {"a/m.safetensors": "ab" * 32, "b/m.safetensors": "cd" * 32}
    assert result["commit"] == "c0ffee, unknown"


def test_scaled_settings() -> None:
    scaled = gamma.GammaSettings().scaled(3, 0.01)
    assert (scaled.drawing.count, scaled.generator.steps, scaled.vae.steps) == (3, 9, 5 + 2)
    assert head_size.HeadSizeSettings().scaled(None, 1e-4).generator.steps == 1
    assert statistics.StatisticsSettings().scaled(4, 9.0).drawing.count == 4
    for part in PARTS.values():
        assert part.settings.scaled(None, 1.0) == part.settings


def test_a_model_of_another_world_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"model draws \d+ pixels .* train one with"):
        world_model(str(GOLDEN / "tiny" / "model"))


# ---- the page


def test_the_page_shows_all_four(tmp_path: Path) -> None:
    all_results(tmp_path)
    text = write_report(tmp_path, tmp_path / "docs").read_text()
    for number, part in enumerate(PARTS.values(), 1):
        assert f"## {number}. {part.title}\n" in text
        assert f"![{part.title}](findings/{part.name}.png)" in text
        assert f"--part {part.name}`, commit c0ffee, 2026-01-02" in text
        values = json.loads((tmp_path / f"{part.name}.json").read_text())
        assert part.verdict(values) in text
        assert part.table(values) in text
        with Image.open(tmp_path / "docs" / "findings" / f"{part.name}.png") as image:
            image.load()
            assert image.format == "PNG"
            assert min(image.size) > 300
            colours = image.convert("RGB").getcolors(1 << 20)
        assert colours is not None
        assert len(colours) > 50
    assert "Not run yet" not in text
    assert "sizes 2x96 3x192 4x320" in text


def test_the_page_says_what_is_missing(tmp_path: Path) -> None:
    gamma_result(tmp_path)
    text = write_report(tmp_path, tmp_path / "docs").read_text()
    for name in ("statistics", "head_size", "solvers"):
        assert f"Not run yet: `python -m nextstep_rt.train.findings --part {name}` runs it." in text
    assert "--part gamma` runs it" not in text
    assert [path.name for path in (tmp_path / "docs" / "findings").iterdir()] == ["gamma.png"]


def test_a_result_of_another_version_is_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "gamma.json", {"schema": 99})
    with pytest.raises(InvalidRequest, match=r"gamma.json has schema 99"):
        write_report(tmp_path, tmp_path / "docs")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidRequest, match="cannot write"):
        write_report(tmp_path / "empty", tmp_path / "file")


def test_settings_in_a_line() -> None:
    settings = {"a": 1.0, "b": [[2, 96], [3, 192]], "c": {"d": [0, 1], "e": True}, "f": [{"g": 1}, {"g": 2}]}
    assert settings_text(settings) == "a 1, b 2x96 3x192, c (d 0 1, e True), f (g 1) (g 2)"


# ---- the command


def test_the_command_runs_parts_and_writes_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[tuple[Work, Any]] = []
    found: Part = PARTS["gamma"]

    def run_part(work: Work, settings: Any) -> Values:
        runs.append((work, settings))
        return gamma_result(tmp_path)

    monkeypatch.setitem(PARTS, "gamma", replace(found, run=run_part))
    options = ["--folder", str(tmp_path), "--docs", str(tmp_path / "docs"), "--part", "gamma", "--part", "gamma"]
    assert "gamma: **Shows it" in run(*options, "--count", "5", "--steps", "0.5", app=app).stdout
    ((work, settings),) = runs
    assert work.command == "python -m nextstep_rt.train.findings --part gamma --count 5 --steps 0.5"
    assert (settings.drawing.count, settings.generator.steps) == (5, 450)
    assert "Not run yet" in (tmp_path / "docs" / "findings.md").read_text()


def test_the_page_alone_and_wrong_parts(tmp_path: Path) -> None:
    options = ["--folder", str(tmp_path), "--docs", str(tmp_path / "docs")]
    done = run(*options, "--part", "report", app=app)
    assert done.stdout.strip() == str(tmp_path / "docs" / "findings.md")
    assert "did you mean 'solvers'" in fails(*options, "--part", "solver", app=app)
