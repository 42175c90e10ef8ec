"""Ships a trained model: copies it into a folder, with a model card that states where it comes from."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

from ..config import GenerationConfig
from ..errors import InvalidRequest
from . import world
from .files import sha256
from .prompts import EDITING
from .report import Report, Score
from .run import losses_of, read_log, read_settings

FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "vae/config.json",
    "vae/model.safetensors",
)
CARD = "README.md"
LARGEST = 16_000_000  # bytes of all files together
PROMPTS = 100  # of each category, at least, behind a score that is shipped


def check(folder: Path) -> None:
    """Raises InvalidRequest where a file of `folder`/model is missing or all together exceed LARGEST."""
    model = folder / "model"
    missing = [name for name in FILES if not (model / name).exists()]
    if missing:
        raise InvalidRequest(f"{model} lacks {', '.join(missing)}: train the model first")
    size = sum((model / name).stat().st_size for name in FILES)
    if size > LARGEST:
        raise InvalidRequest(f"{model} has {size} bytes: at most {LARGEST} are shipped; train a smaller one")


def ship(folder: Path, report: Report, commit: str, to: Path) -> None:
    """Copies FILES of `folder`/model to `to` and writes the card.

    report is ShapeEval's. Raises InvalidRequest as `check` does, and where the report is of other weights or
    settings, or not of all there is to score.
    """
    check(folder)
    model = folder / "model"
    if report.overall is None or EDITING not in report.scores:
        raise InvalidRequest(f"the report lacks categories: run `nextstep-rt eval {model}` without --categories")
    fewest = min(score.prompts for score in report.scores.values())
    if fewest < PROMPTS:
        raise InvalidRequest(f"the report is of {fewest} prompts a category: run `nextstep-rt eval` with {PROMPTS}")
    if report.about["settings"] != asdict(GenerationConfig.from_folder(model)):
        raise InvalidRequest(f"the report is of other settings than {model / 'generation_config.json'}: evaluate again")
    for name in FILES:
        if name.endswith(".safetensors") and report.about["weights_sha256"].get(name) != sha256(model / name):
            raise InvalidRequest(f"the report is not of {model / name}: run `nextstep-rt eval {model}` again")
    for name in FILES:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, to / name)
    (to / CARD).write_text(card(folder, report, commit))


def card(folder: Path, report: Report, commit: str) -> str:
    """The model card as Markdown."""
    vae_psnr = json.loads((folder / "vae" / "psnr.json").read_text())
    refinement = json.loads((folder / "refinement.json").read_text())
    return "\n".join(
        [
            _INTRODUCTION.format(shapes=", ".join(world.SHAPES), colours=", ".join(world.COLOURS)),
            _defaults(),
            "## Scores\n",
            _scores(report),
            f"Command: `{report.about['command']}`; commit {report.about['commit']}.\n",
            "Image tokenizer, PSNR in dB on held-out scenes: "
            + ", ".join(f"{name} {value:.1f}" for name, value in vae_psnr.items())
            + ".",
            f"Prompt refinement: {refinement['right']} of {refinement['count']} terse held-out prompts rewritten "
            "exactly.\n",
            "## Recipe\n",
            f"`python -m nextstep_rt.train` at commit {commit}.\n",
            _recipe("Image tokenizer", folder / "vae"),
            _recipe("Generator", folder / "generator"),
            _LIMITS,
        ]
    )


def _defaults() -> str:
    return (
        f"What a prompt leaves unsaid has one meaning: the colour is {world.DEFAULT_COLOUR}, the background "
        f"{world.DEFAULT_BACKGROUND}, the size medium; one shape stands in the centre; of two joined by *and* the "
        "first stands on the left; three stand as a pyramid and four as a square, in reading order.\n"
    )


def _scores(report: Report) -> str:
    lines = ["| ShapeEval, held-out prompts | score | 95% interval | prompts | images |", "|---|---|---|---|---|"]
    rows: dict[str, Score | None] = {**report.scores, "overall, without editing": report.overall}
    for name, row in rows.items():
        if row is not None:
            interval = f"{row.low:.3f} to {row.high:.3f}"
            lines.append(f"| {name} | {row.score:.3f} | {interval} | {row.prompts} | {row.images} |")
    return "\n".join(lines) + "\n"


def _recipe(title: str, run: Path) -> str:
    """Every setting of a run, its steps' time and its last losses."""
    settings = read_settings(run)
    lines = read_log(run)
    ends = [0.0, *(line["step"] for line in lines)]
    steps = [after - before for before, after in pairwise(ends)]
    hours = sum(line["s_per_step"] * count for line, count in zip(lines, steps, strict=True)) / 3600
    values = ", ".join(f"{name} {value}" for name, value in settings.items())
    losses = ", ".join(f"{name} {value:.4f}" for name, value in losses_of(lines[-1]).items())
    return f"{title}: {hours:.1f} hours of steps; last losses {losses}. Settings: {values}.\n"


_INTRODUCTION = """# The embedded model

A tiny NextStep-1, trained from scratch by this project to draw flat shapes at 128 x 128: {shapes}; in {colours}.
It follows the released layout and architecture, so that whatever runs it runs the real checkpoints. It exists so that
a first command shows a real picture, and so that every change of the runtime can be judged by pictures.

Data: procedural scenes only (`nextstep_rt/train/world.py`), captions and edit instructions written by templates
(`captions.py`, `edits.py`). No photograph, no text of others. One in eight triples of colour, shape and relation is
held out of training; every prompt that is scored contains one.
"""

_LIMITS = """## Limits

* It knows this world only: other words are ignored or misread, and there is no photograph in it.
* One size, 128 x 128; one to four shapes.
* Edits keep what is not named only about as well as the editing score says.
* Licence: as the project's.
"""
