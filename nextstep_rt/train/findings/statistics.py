"""Do image tokens drift along the sequence under strong guidance, and does token-wise normalization stop it?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...batching import EngineLike
from ...errors import InvalidRequest
from ...pipeline import Pipeline
from ...progress import says_stop
from ..report import Report
from .figures import COLOURS, panels, save
from .numbers import Floats, Number, draws, quantiles, score_difference
from .work import Drawing, Part, Values, Work, draw, markdown_table, scores_of, sha256_of, world_model

NAME = "statistics"
STATISTICS = ("mean", "variance")


@dataclass(frozen=True)
class StatisticsSettings:
    """Everything that decides this part. ends: tokens at either end whose statistics the drift compares."""

    guidance: tuple[float, ...] = (1.0, 3.0, 7.5)
    ends: int = 16
    drawing: Drawing = field(default_factory=Drawing)

    def scaled(self, count: int | None, steps: float) -> StatisticsSettings:
        """The same with another count; there is no training here."""
        return replace(self, drawing=self.drawing.counting(count))


class Watched:
    """An engine that makes tokens one at a time and keeps the statistics of each as sampled, before normalization.

    The engine's answers are bitwise those of one long call. mean, variance: a row [images, tokens] for each decode.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.mean: list[Floats] = []
        self.variance: list[Floats] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def decode(
        self, params: Any, count: int | None = None, *, noise: Any = None, seeds: Any = None, callback: Any = None
    ) -> Any:
        """As the engine's own: float32 [images, made, token_dim]."""
        made, means, variances = [], [], []
        for k in range(params.num_tokens - self._engine.position if count is None else count):
            # The state may be asked for between calls only, so every token is a call of its own.
            given = {"seeds": seeds} if noise is None else {"noise": noise[k : k + 1]}
            made.append(np.asarray(self._engine.decode(params, 1, **given)))
            latent = np.asarray(self._engine.state("latent"), np.float64)
            means.append(latent.mean(-1))
            variances.append(latent.var(-1))
            tokens = np.concatenate(made, axis=1)
            if callback is not None and says_stop(callback(self._engine.position, params.num_tokens, tokens)):
                break
        self.mean.append(np.stack(means, axis=1))
        self.variance.append(np.stack(variances, axis=1))
        return np.concatenate(made, axis=1)


def measured(model: str, drawing: Drawing) -> Values:
    """ShapeEval's report, and by prompt number the statistics [prompts, tokens], averaged over a prompt's seeds."""
    pipeline = Pipeline.from_pretrained(model)
    watched = Watched(pipeline.engine)
    pipeline.engine = cast(EngineLike, watched)
    report = draw(pipeline, drawing)
    made: Values = {"report": report.to_json()}
    for name in STATISTICS:
        made[name] = np.round(by_prompt(np.concatenate(getattr(watched, name)), report), 6).tolist()
    return made


def by_prompt(rows: Floats, report: Report) -> Floats:
    """Rows [images, tokens], in the order in which pictures were judged, averaged over each prompt's pictures."""
    numbers = np.array([outcome.number for outcome in report.outcomes])
    return np.stack([rows[numbers == number].mean(0) for number in dict.fromkeys(numbers.tolist())])


# ---------------------------------------------------------------------------------------------------------- numbers


def change(curves: Any, ends: int) -> Floats:
    """Of curves [prompts, tokens], each one's mean over the last `ends` tokens less that over the first, [prompts].

    Raises `InvalidRequest` where the ends overlap.
    """
    array = np.asarray(curves, np.float64)
    if 2 * ends > array.shape[1]:
        raise InvalidRequest(f"ends is {ends}, but {array.shape[1]} tokens have no two ends of so many: lower it")
    difference: Floats = array[:, -ends:].mean(1) - array[:, :ends].mean(1)
    return difference


def drift(curves: Any, ends: int) -> Number:
    """|last - first| of the curve averaged over prompts; its interval reaches to zero where the sign is not sure."""
    changes = change(curves, ends)
    signed = quantiles(changes.mean(), changes[draws(len(changes))].mean(1))
    sizes = sorted((abs(signed.low), abs(signed.high)))
    return Number(abs(signed.value), sizes[0] if signed.sign else 0.0, sizes[1])


def drift_difference(first: Any, second: Any, ends: int) -> Number:
    """How much further the first curves [prompts, tokens] drift than the second, of the same prompts."""
    a, b = change(first, ends), change(second, ends)
    chosen = draws(len(a))
    samples = np.abs(a[chosen].mean(1)) - np.abs(b[chosen].mean(1))
    return quantiles(abs(a.mean()) - abs(b.mean()), samples)


def _curve(curves: Any, ends: int) -> Values:
    """What is drawn of a statistic: the mean over prompts, the middle 80 % of them, and the drift."""
    array = np.asarray(curves, np.float64)
    low, high = np.quantile(array, (0.1, 0.9), axis=0)
    rows = {"curve": array.mean(0), "p10": low, "p90": high}
    return {**{name: np.round(row, 5).tolist() for name, row in rows.items()}, "drift": drift(array, ends).to_json()}


def point_name(guidance: float, normalized: bool) -> str:
    """The name of a setting's point."""
    return f"guidance-{guidance:g}-{'normalized' if normalized else 'as-sampled'}"


def numbers_of(settings: StatisticsSettings, points: Mapping[str, Values]) -> Values:
    """All numbers of the result from the six points: of every setting, and of their differences."""
    reports = {name: Report.from_json(point["report"]) for name, point in points.items()}
    rows, differences = {}, {}
    for name, point in points.items():
        row: Values = {statistic: _curve(point[statistic], settings.ends) for statistic in STATISTICS}
        rows[name] = {"scores": scores_of(reports[name]), **row}
    calm = points[point_name(min(settings.guidance), True)]
    for guidance in settings.guidance:
        on, off = point_name(guidance, True), point_name(guidance, False)
        without = {s: drift_difference(points[off][s], points[on][s], settings.ends) for s in STATISTICS}
        unrest = {s: drift_difference(points[on][s], calm[s], settings.ends) for s in STATISTICS}
        differences[f"{guidance:g}"] = {
            "score gained by normalization": score_difference(reports[on], reports[off]).to_json(),
            "drift added without": {s: number.to_json() for s, number in without.items()},
            "drift added by guidance": {s: number.to_json() for s, number in unrest.items()},
        }
    return {"points": rows, "differences": differences}


def run(work: Work, settings: StatisticsSettings) -> Values:
    """Draws and measures what is missing; writes and returns the result."""
    weights = sha256_of(*world_model(work.model))
    points = {}
    for guidance in settings.guidance:
        for normalized in (True, False):
            name = point_name(guidance, normalized)
            drawing = replace(settings.drawing, guidance_scale=guidance, normalize_tokens=normalized)
            key = {"drawing": asdict(drawing), "weights": weights}
            points[name] = work.point(NAME, name, key, partial(measured, work.model, drawing))
    reports = {name: Report.from_json(point["report"]) for name, point in points.items()}
    return work.result(NAME, settings, reports, numbers_of(settings, points))


# ---------------------------------------------------------------------------------------------------------- showing


def plot(result: Values, path: Path) -> None:
    """Mean and variance along the sequence, a column for each guidance."""
    guidance = result["settings"]["guidance"]
    figure, axes = panels(2, len(guidance), width=3.7, height=2.8, sharex=True, sharey="row")
    for column, scale in enumerate(guidance):
        for row, statistic in enumerate(STATISTICS):
            axis = axes[row, column]
            for index, normalized in enumerate((True, False)):
                values = result["points"][point_name(scale, normalized)][statistic]
                tokens = range(1, len(values["curve"]) + 1)
                label = "with normalization" if normalized else "without"
                axis.fill_between(tokens, values["p10"], values["p90"], color=COLOURS[index], alpha=0.18, linewidth=0)
                axis.plot(tokens, values["curve"], color=COLOURS[index], linewidth=1.4, label=label)
        axes[0, column].set_title(f"guidance {scale:g}")
        axes[1, column].set_xlabel("image token")
        axes[1, column].set_yscale("log")  # what explodes at one guidance would flatten the rest
    axes[0, 0].set_ylabel("mean of a token's numbers")
    axes[1, 0].set_ylabel("variance of a token's numbers")
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.supxlabel("lines: mean over prompts; bands: the middle 80 % of prompts", fontsize=9)
    save(figure, path)


def table(result: Values) -> str:
    """Score and drifts of every setting."""
    rows = []
    for guidance in result["settings"]["guidance"]:
        for normalized in (True, False):
            values = result["points"][point_name(guidance, normalized)]
            numbers = [values["scores"]["overall"], *(values[s]["drift"] for s in STATISTICS)]
            cells = [Number.from_json(number).text() for number in numbers]
            rows.append([f"{guidance:g}", "with" if normalized else "without", *cells])
    header = ("guidance", "normalization", "ShapeEval", "drift of the mean", "drift of the variance")
    return markdown_table(header, rows)


def verdict(result: Values) -> str:
    """Three claims at the strongest guidance: more drift without, better pictures with, and flat with."""
    strongest, least = max(result["settings"]["guidance"]), min(result["settings"]["guidance"])
    found = result["differences"][f"{strongest:g}"]
    more = {s: Number.from_json(found["drift added without"][s]) for s in STATISTICS}
    unrest = {s: Number.from_json(found["drift added by guidance"][s]) for s in STATISTICS}
    gain = Number.from_json(found["score gained by normalization"])
    held = [
        max(n.sign for n in more.values()) > 0 and min(n.sign for n in more.values()) >= 0,
        gain.sign > 0,
        all(n.sign <= 0 for n in unrest.values()),
    ]
    opening = "Shows it" if all(held) else "Shows it in part" if any(held) else "Does not show it"
    words = {1: "drifts further", 0: "drifts no differently", -1: "drifts less"}
    drifts = " and ".join(f"the {s} {words[n.sign]} (by {n.text()})" for s, n in more.items())
    gains = {1: "raises the score", 0: "makes no difference to the score", -1: "lowers the score"}[gain.sign]
    risen = [f"the {s} drifts further (by {n.text()})" for s, n in unrest.items() if n.sign > 0]
    flat = " and ".join(risen) or "neither statistic drifts further"
    return (
        f"**{opening}.** At guidance {strongest:g}, without normalization {drifts} than with it; normalization {gains} "
        f"(by {gain.text()}). With normalization, {flat} at guidance {strongest:g} than at {least:g}."
    )


PART = Part(
    NAME,
    "Token statistics and normalization",
    "**The paper:** under strong guidance the statistics of the tokens drift along the sequence, and pictures break; "
    "with token-wise normalization they stay flat.",
    StatisticsSettings(),
    run,
    plot,
    table,
    verdict,
)
