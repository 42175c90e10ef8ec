"""Results of the findings made up: as they would look if a finding held, and if it did not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nextstep_rt.train.findings import gamma, head_size, solvers, statistics
from nextstep_rt.train.findings.command import command_line
from nextstep_rt.train.findings.work import Work
from nextstep_rt.train.prompts import GENERATION
from nextstep_rt.train.report import Outcome, Report, overall, score

PROMPTS = 40
Values = dict[str, Any]


def report(share: float, seed: int = 0, prompts: int = PROMPTS) -> Report:
    """An evaluation with about `share` of the pictures right; a prompt easy at one share is easy at any larger."""
    rng = np.random.default_rng(seed)
    outcomes = [
        Outcome(number, category, "", "text", 0, bool(rng.random() < share), "")
        for number, category in enumerate(name for name in GENERATION for _ in range(prompts))
    ]
    about = {
        "commit": "c0ffee",
        "date": "2026-01-02T03:04:05+00:00",
        "weights_sha256": {"m.safetensors": "ab" * 32},
    }
    return Report(score(outcomes), overall(outcomes), tuple(outcomes), {}, about)


def curves(slope: float, spread: float = 0.0, offset: float = 0.0) -> Any:
    """[PROMPTS, 64]: a line along the tokens, with noise."""
    noise = np.random.default_rng(3).normal(0, 1, (PROMPTS, 64))
    return offset + slope * np.arange(64) + spread * noise


def finished(name: str, settings: Any, numbers: Values, folder: Path, reports: Any = None) -> Values:
    work = Work("demo", folder, command_line(name, "demo", None, 1.0))
    work.result(name, settings, reports or {"a": report(0.5)}, numbers)
    return dict(json.loads((folder / f"{name}.json").read_text()))


def statistics_result(folder: Path, *, held: bool) -> Values:
    settings = statistics.StatisticsSettings()
    points = {}
    for guidance in settings.guidance:
        for normalized in (True, False):
            slope = 0.003 * (guidance - 1) if held and not normalized else 0.0
            share = 0.9 - (0.08 * (guidance - 1) if held and not normalized else 0.0)
            points[statistics.point_name(guidance, normalized)] = {
                "report": report(share).to_json(),
                "mean": curves(slope, 0.05).tolist(),
                "variance": curves(2 * slope, 0.1, 1.0).tolist(),
            }
    return finished("statistics", settings, statistics.numbers_of(settings, points), folder)


def trained_point(share: float, loss: float, **more: Any) -> Values:
    losses = loss + np.random.default_rng(4).normal(0, 0.1, 50)
    return {"report": report(share).to_json(), "losses": losses.tolist(), "log": {"mse": loss}, **more}


def head_size_result(folder: Path, *, held: bool) -> Values:
    settings = head_size.HeadSizeSettings()
    names = [head_size.head_name(size) for size in settings.sizes]
    kept = {
        name: trained_point(0.6 if held else 0.4 + 0.2 * i, 0.5 if held else 0.5 - 0.1 * i, parameters=10 ** (5 + i))
        for i, name in enumerate(names)
    }
    return finished("head_size", settings, head_size.numbers_of(kept), folder)


def gamma_result(folder: Path, *, loss: float = 0.2, share: float = 0.2, least: float = 0.5) -> Values:
    """With what gamma 1 adds to the loss and to the score; `least` is the score at 0."""
    settings = gamma.GammaSettings()
    decibels = np.random.default_rng(5).normal(30, 2, 50)
    kept = {
        f"gamma-{value:g}": trained_point(least + share * value, 0.5 + loss * value, psnr=(decibels - value).tolist())
        for value in settings.gammas
    }
    return finished("gamma", settings, gamma.numbers_of(settings, kept), folder)


def solvers_result(folder: Path, score_of: Callable[[str, int], float]) -> Values:
    settings = solvers.SolversSettings()
    reports = {f"{s}-{n}": report(score_of(s, n)) for s in settings.solvers for n in settings.steps}
    return finished("solvers", settings, solvers.numbers_of(settings, reports), folder)


def slow_sde(solver: str, steps: int) -> float:
    """Heun is there from 5 steps on, sde scores more with every step, the others are there from 20 on."""
    return {"heun": 0.8, "sde": 0.3 + 0.01 * steps}.get(solver, 0.8 if steps >= 20 else 0.4)


def all_results(folder: Path) -> None:
    statistics_result(folder, held=True)
    head_size_result(folder, held=True)
    gamma_result(folder)
    solvers_result(folder, slow_sde)
