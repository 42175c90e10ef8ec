"""Does a tokenizer trained with more noise on its latents make a harder task, and better pictures?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from ...vae.model import VAE
from ..generator import GeneratorTraining
from ..report import Report
from ..vae import Phase, VaeTraining, psnr, train_vae
from ..world import CANVAS
from .figures import panels, points, save
from .numbers import Number, mean_difference, mean_of, score_difference
from .training import SHORT, HeldOut, too_poor, trained
from .work import Drawing, Part, Values, Work, markdown_table, scores_of

NAME = "gamma"
# Enough to tell amounts of noise apart.
SHORT_VAE = VaeTraining(phases=(Phase(500, 64, 10, aimed=True), Phase(250, CANVAS, 4)))


@dataclass(frozen=True)
class GammaSettings:
    """Everything that decides this part: two trainings, all equal but for the VAE's gamma."""

    gammas: tuple[float, ...] = (0.0, 0.4, 1.0)
    vae: VaeTraining = SHORT_VAE
    generator: GeneratorTraining = SHORT
    held_out: HeldOut = field(default_factory=HeldOut)
    drawing: Drawing = field(default_factory=Drawing)

    def scaled(self, count: int | None, steps: float) -> GammaSettings:
        """The same with `count` prompts a category, where given, and `steps` times the steps of both trainings."""
        vae, generator = self.vae.scaled(steps), self.generator.scaled(steps)
        return replace(self, drawing=self.drawing.counting(count), generator=generator, vae=vae)


def made(vae: VaeTraining, folder: Path, settings: GammaSettings) -> Values:
    """One gamma's point: tokenizer, latents and generator trained, then measured."""
    target = folder / "model" / "vae"
    train_vae(vae, folder / "vae", target)
    decibels = psnr(VAE.from_folder(target), settings.held_out.draw())
    point = trained(settings.generator, folder, folder / "latents", settings.drawing, settings.held_out)
    return {**point, "psnr": [round(value, 4) for value in decibels.tolist()]}


def run(work: Work, settings: GammaSettings) -> Values:
    """Trains and draws what is missing; writes and returns the result."""
    kept = {}
    for value in settings.gammas:
        vae, name = replace(settings.vae, gamma=value), f"gamma-{value:g}"
        key = {
            "vae": asdict(vae),
            "generator": asdict(settings.generator),
            "held_out": asdict(settings.held_out),
            "drawing": asdict(settings.drawing),
        }
        kept[name] = work.point(NAME, name, key, partial(made, vae, work.folder / NAME / name, settings))
    reports = {name: Report.from_json(point["report"]) for name, point in kept.items()}
    return work.result(NAME, settings, reports, numbers_of(settings, kept))


def numbers_of(settings: GammaSettings, kept: Mapping[str, Values]) -> Values:
    """Loss, score and PSNR of every gamma, and how each larger one differs from the smallest."""
    reports = {name: Report.from_json(point["report"]) for name, point in kept.items()}
    rows = {
        name: {
            "scores": scores_of(reports[name]),
            "held-out mse": mean_of(point["losses"]).to_json(),
            "training mse": point["log"]["mse"],
            "psnr": mean_of(point["psnr"]).to_json(),
        }
        for name, point in kept.items()
    }
    least, *larger = sorted(settings.gammas)
    base = f"gamma-{least:g}"
    differences = {}
    for value in larger:
        name = f"gamma-{value:g}"
        differences[name] = {
            "score": score_difference(reports[name], reports[base]).to_json(),
            "held-out mse": mean_difference(kept[name]["losses"], kept[base]["losses"]).to_json(),
            "psnr": mean_difference(kept[name]["psnr"], kept[base]["psnr"]).to_json(),
        }
    return {"points": rows, "differences from the least": differences}


# ---------------------------------------------------------------------------------------------------------- showing


def plot(result: Values, path: Path) -> None:
    """Loss, score and PSNR against gamma."""
    gammas = sorted(result["settings"]["gammas"])
    rows = [result["points"][f"gamma-{value:g}"] for value in gammas]
    figure, axes = panels(1, 3, width=3.8)
    shown = (
        ("held-out velocity MSE", [row["held-out mse"] for row in rows]),
        ("ShapeEval score", [row["scores"]["overall"] for row in rows]),
        ("tokenizer's PSNR, dB", [row["psnr"] for row in rows]),
    )
    for index, (axis, (label, values)) in enumerate(zip(axes[0], shown, strict=True)):
        points(axis, gammas, [Number.from_json(value) for value in values], index)
        axis.set(xlabel="gamma", ylabel=f"{label}, 95 % intervals", xticks=gammas)
    axes[0, 1].set_ylim(0, 1)
    save(figure, path)


def table(result: Values) -> str:
    """A row for each gamma."""
    rows = []
    for value in sorted(result["settings"]["gammas"]):
        row = result["points"][f"gamma-{value:g}"]
        rows.append(
            [
                f"{value:g}",
                Number.from_json(row["held-out mse"]).text(4),
                f"{row['training mse']:.4f}",
                Number.from_json(row["scores"]["overall"]).text(),
                Number.from_json(row["psnr"]).text(1),
            ]
        )
    header = ("gamma", "held-out velocity MSE", "training MSE, last steps", "ShapeEval", "PSNR, dB")
    return markdown_table(header, rows)


def verdict(result: Values) -> str:
    """Two claims of the largest gamma against the least: a higher loss, and a higher score."""
    gammas = sorted(result["settings"]["gammas"])
    parts = []
    for value in gammas[1:]:
        found = result["differences from the least"][f"gamma-{value:g}"]
        loss, score = Number.from_json(found["held-out mse"]), Number.from_json(found["score"])
        loses = {1: "raises the loss", 0: "makes no difference to the loss", -1: "lowers the loss"}[loss.sign]
        draws = {1: "raises the score", 0: "makes no difference to the score", -1: "lowers the score"}[score.sign]
        parts.append(f"gamma {value:g} {loses} (by {loss.text(4)}) and {draws} (by {score.text()})")
    held = [loss.sign > 0, score.sign > 0]  # of the largest, which came last
    poor = too_poor(result["points"])
    opening = "Shows it" if all(held) else "Shows it in part" if any(held) else "Does not show it"
    return f"{poor or f'**{opening}.**'} Against gamma {gammas[0]:g}, {'; '.join(parts)}."


PART = Part(
    NAME,
    "Noise on the tokenizer's latents",
    "**The paper:** a larger gamma raises the generator's loss, and yet improves its pictures.",
    GammaSettings(),
    run,
    plot,
    table,
    verdict,
)
