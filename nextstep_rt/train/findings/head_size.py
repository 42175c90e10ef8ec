"""Does the flow-matching head's size matter?"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import combinations
from math import prod
from pathlib import Path

from ..._core import ModelConfig
from ...reference.weights import expected_shapes
from ..generator import GeneratorTraining
from ..report import Report
from .figures import panels, points, save
from .numbers import Number, mean_difference, mean_of, score_difference
from .training import SHORT, HeldOut, too_poor, trained
from .work import Drawing, Part, Values, Work, markdown_table, scores_of, sha256_of, world_model

NAME = "head_size"


@dataclass(frozen=True)
class HeadSizeSettings:
    """Everything that decides this part. sizes: (layers, width) of each head; the rest of the recipe is one."""

    sizes: tuple[tuple[int, int], ...] = ((2, 96), (3, 192), (4, 320))
    generator: GeneratorTraining = SHORT
    held_out: HeldOut = field(default_factory=HeldOut)
    drawing: Drawing = field(default_factory=Drawing)

    def scaled(self, count: int | None, steps: float) -> HeadSizeSettings:
        """The same with `count` prompts a category, where given, and `steps` times the training's steps."""
        return replace(self, drawing=self.drawing.counting(count), generator=self.generator.scaled(steps))


def head_name(size: tuple[int, int]) -> str:
    """`3x192`: layers x width."""
    return f"{size[0]}x{size[1]}"


def head_parameters(config: ModelConfig) -> int:
    """How many numbers the head has."""
    return sum(prod(shape) for name, shape in expected_shapes(config).items() if name.startswith("image_head."))


def made(generator: GeneratorTraining, folder: Path, vae: Path, latents: Path, settings: HeadSizeSettings) -> Values:
    """One head's point: trained on a copy of the VAE, then measured."""
    shutil.copytree(vae, folder / "model" / "vae", dirs_exist_ok=True)
    point = trained(generator, folder, latents, settings.drawing, settings.held_out)
    config = ModelConfig.from_json((folder / "model" / "config.json").read_text(encoding="utf-8"))
    return {**point, "parameters": head_parameters(config)}


def run(work: Work, settings: HeadSizeSettings) -> Values:
    """Trains and draws what is missing; writes and returns the result."""
    _, vae = world_model(work.model)
    weights = sha256_of(vae)
    # Latents belong to one VAE: those of another model must not be taken for its own.
    latents = work.folder / NAME / f"latents-{''.join(weights.values())[:12]}"
    kept = {}
    for size in settings.sizes:
        generator = replace(settings.generator, fm_head_layers=size[0], fm_head_dim=size[1])
        key = {
            "generator": asdict(generator),
            "held_out": asdict(settings.held_out),
            "drawing": asdict(settings.drawing),
            "vae": weights,
        }
        folder = work.folder / NAME / head_name(size)
        make = partial(made, generator, folder, vae, latents, settings)
        kept[head_name(size)] = work.point(NAME, head_name(size), key, make)
    reports = {name: Report.from_json(point["report"]) for name, point in kept.items()}
    return work.result(NAME, settings, reports, numbers_of(kept))


def numbers_of(kept: Mapping[str, Values]) -> Values:
    """Parameters, scores and losses of every head, and the differences between any two."""
    reports = {name: Report.from_json(point["report"]) for name, point in kept.items()}
    rows = {
        name: {
            "parameters": point["parameters"],
            "scores": scores_of(reports[name]),
            "held-out mse": mean_of(point["losses"]).to_json(),
            "training mse": point["log"]["mse"],
        }
        for name, point in kept.items()
    }
    differences = {
        f"{a} less {b}": {
            "score": score_difference(reports[a], reports[b]).to_json(),
            "held-out mse": mean_difference(kept[a]["losses"], kept[b]["losses"]).to_json(),
        }
        for b, a in combinations(kept, 2)
    }
    return {"points": rows, "differences": differences}


# ---------------------------------------------------------------------------------------------------------- showing


def plot(result: Values, path: Path) -> None:
    """Score and held-out loss against the head's parameters."""
    rows = result["points"]
    counts = [row["parameters"] / 1e6 for row in rows.values()]
    figure, axes = panels(1, 2)
    points(axes[0, 0], counts, [Number.from_json(row["scores"]["overall"]) for row in rows.values()])
    points(axes[0, 1], counts, [Number.from_json(row["held-out mse"]) for row in rows.values()], 1)
    for axis, label in zip(axes[0], ("ShapeEval score", "held-out velocity MSE"), strict=True):
        axis.set(xscale="log", xlabel="parameters of the head, millions", ylabel=f"{label}, 95 % intervals")
        axis.set_xticks(counts, [f"{count:.2f}\n{name}" for count, name in zip(counts, rows, strict=True)])
        axis.minorticks_off()
    axes[0, 0].set_ylim(0, 1)
    save(figure, path)


def table(result: Values) -> str:
    """A row for each head."""
    rows = [
        [
            name,
            f"{row['parameters']:,}",
            Number.from_json(row["scores"]["overall"]).text(),
            Number.from_json(row["held-out mse"]).text(4),
            f"{row['training mse']:.4f}",
        ]
        for name, row in result["points"].items()
    ]
    header = ("layers x width", "parameters", "ShapeEval", "held-out velocity MSE", "training MSE, last steps")
    return markdown_table(header, rows)


def verdict(result: Values) -> str:
    """The claim is of pictures: it holds where no two heads' scores differ, and these are worth comparing."""
    found = {name: Number.from_json(row["score"]) for name, row in result["differences"].items()}
    losses = {name: Number.from_json(row["held-out mse"]) for name, row in result["differences"].items()}
    apart = [f"{name}: {number.text()}" for name, number in found.items() if number.sign]
    lost = [f"{name}: {number.text(4)}" for name, number in losses.items() if number.sign]
    poor = too_poor(result["points"])
    if poor:
        pictures = poor
    elif apart:
        pictures = f"**Does not show it.** Scores differ ({'; '.join(apart)})."
    else:
        reach = max(number.reach for number in found.values())
        pictures = (
            "**Shows it, as far as the intervals reach.** No two heads' scores differ; a difference of up to "
            f"{reach:.3f} could have gone unseen."
        )
    seen = f"differs ({'; '.join(lost)})" if lost else "does not differ"
    return f"{pictures} The held-out velocity loss {seen}."


PART = Part(
    NAME,
    "Size of the flow-matching head",
    "**The paper:** the head's size hardly matters for the pictures: the transformer makes them, the head only samples "
    "what it decides.",
    HeadSizeSettings(),
    run,
    plot,
    table,
    verdict,
)
