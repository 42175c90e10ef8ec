"""Ships a trained model: copies it into a folder, with a model card that states where it comes from."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

from ..config import GenerationConfig
from ..errors import InvalidRequest
from . import world
from .files import sha256
from .findings.numbers import score_difference
from .history import SHIPPED, Record, collect
from .prompts import EDITING
from .report import Report, Score

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
RECORD_ROOM = 50_000  # of them for the card and the record of the training
PROMPTS = 100  # of each category, at least, behind a score that is shipped
SEEDS = [0, 1]  # of the scores that are shipped
REFERENCE = "reference/torch"


def check(folder: Path) -> None:
    """Raises InvalidRequest where a file of `folder`/model is missing or all together exceed LARGEST."""
    model = folder / "model"
    missing = [name for name in FILES if not (model / name).exists()]
    if missing:
        raise InvalidRequest(f"{model} lacks {', '.join(missing)}: train the model first")
    size = sum((model / name).stat().st_size for name in FILES) + RECORD_ROOM
    if size > LARGEST:
        raise InvalidRequest(
            f"{model} has {size} bytes with its card: at most {LARGEST} are shipped; train a smaller one"
        )


def ship(folder: Path, report: Report, to: Path, *, reference: Report | None = None, commit: str | None = None) -> None:
    """Copies FILES of `folder`/model to `to` and writes the card.

    report is ShapeEval's through the native backend, reference the same through the reference backend; commit is what
    trained the model, where its runs kept none. Raises InvalidRequest as `check` does, where a report is of other
    weights or settings, not of the published prompts and seeds or not of all there is to score, and where nothing
    says which commit a number comes from.
    """
    check(folder)
    model = folder / "model"
    for made in (report, *([] if reference is None else [reference])):
        _check_report(made, model)
    if report.about["backend"] == REFERENCE:
        raise InvalidRequest("the report is of the reference backend: the model ships with the native one's scores")
    if list(report.about["seeds"]) != SEEDS:
        raise InvalidRequest(f"the report is of seeds {report.about['seeds']}: published scores are of {SEEDS}")
    if reference is not None and reference.about["backend"] != REFERENCE:
        raise InvalidRequest(f"--reference is a report of {reference.about['backend']}: draw with --backend reference")
    history = collect(folder, commit)
    text = card(folder, report, reference, history)
    for name in FILES:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(model / name, to / name)
    (to / SHIPPED).write_text(json.dumps(history, indent=1) + "\n")
    (to / CARD).write_text(text)


def _check_report(report: Report, model: Path) -> None:
    """Raises InvalidRequest where a report is not one that can be published of the model."""
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
    if report.about["prompt_seed"] != 0:
        raise InvalidRequest(f"the report is of --prompt-seed {report.about['prompt_seed']}: published scores are of 0")
    stated = report.about["commit"]
    if stated is None or stated.endswith("-dirty"):
        raise InvalidRequest(f"the report's commit is {stated}: evaluate from a source tree without changes")


def card(folder: Path, report: Report, reference: Report | None, history: Record) -> str:
    """The model card as Markdown."""
    refinement = json.loads((folder / "refinement.json").read_text())
    return "\n".join(
        [
            _INTRODUCTION.format(shapes=", ".join(world.SHAPES), colours=", ".join(world.COLOURS)),
            _defaults(),
            "## Scores\n",
            _scores(report),
            _origin(report),
            *([] if reference is None else [_compared(report, reference)]),
            "Image tokenizer, PSNR in dB on fresh scenes (it is trained on scenes of all combinations): "
            + ", ".join(f"{name} {value:.1f}" for name, value in history["psnr"].items())
            + ".",
            f"Prompt refinement: {refinement['right']} of {refinement['count']} terse held-out prompts rewritten "
            "exactly.\n",
            "## Recipe\n",
            "`python -m nextstep_rt.train`; a generator after the first goes on from the one before.\n",
            *map(_recipe, history["runs"]),
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


def _origin(report: Report) -> str:
    """What makes the scores again, and the edits' scores by kind."""
    about, settings = report.about, report.about["settings"]
    kinds: dict[str, list[bool]] = {}
    for outcome in report.outcomes:
        if outcome.category == EDITING:
            kinds.setdefault(outcome.kind, []).append(outcome.ok)
    shares = ", ".join(f"{kind} {sum(oks) / len(oks):.2f}" for kind, oks in kinds.items())
    return (
        f"Edits by kind: {shares}.\n\n"
        f"Command: `{about['command']}`; commit {about['commit']}, {about['date'][:10]}; {about['backend']}, "
        f"{about['dtype']}; prompt seed {about['prompt_seed']}, seeds {', '.join(map(str, about['seeds']))}; "
        f"{settings['num_inference_steps']} steps of {settings['solver']}, guidance {settings['guidance_scale']:g}, "
        f"image guidance {settings['image_guidance_scale']:g}.\n"
    )


def _compared(report: Report, reference: Report) -> str:
    """How the reference backend's score of the same prompts and seeds differs."""
    seeds = set(reference.about["seeds"])
    same = replace(report, outcomes=tuple(outcome for outcome in report.outcomes if outcome.seed in seeds))
    difference = score_difference(same, reference)
    verdict = "no difference beyond chance" if difference.sign == 0 else "a difference"
    return (
        f"Through {reference.about['backend']} (`{reference.about['command']}`, {reference.about['dtype']}): the "
        f"native backend scores {difference.text()} more on the same prompts and seeds "
        f"({', '.join(map(str, sorted(seeds)))}), all categories: {verdict}.\n"
    )


def _recipe(record: Record) -> str:
    """A run's commits, its steps' time, its last losses and every setting."""
    values = ", ".join(f"{name} {value}" for name, value in record["settings"].items())
    losses = ", ".join(f"{name} {value:.4f}" for name, value in record["losses"].items())
    commits = ", ".join(record["commits"])
    return (
        f"{record['title']}: commit {commits}; {record['hours']:.1f} hours of steps; last losses {losses}. "
        f"Settings: {values}.\n"
    )


_INTRODUCTION = """# The embedded model

A tiny NextStep-1, trained from scratch by this project to draw flat shapes at 128 x 128: {shapes}; in {colours}.
It follows the released layout and architecture, so that what runs it runs the real checkpoints. It exists so that
a first command shows a real picture, and so that every change of the runtime can be judged by pictures.

Data: procedural scenes only (`nextstep_rt/train/world.py`), captions and edit instructions written by templates
(`captions.py`, `edits.py`). No photograph, no text of others. One in eight triples of colour, shape and relation is
held out of the generator's training; every prompt that is scored tells of one, and an edit that recolours, adds or
moves makes one (one that removes or changes the background leaves one).
"""

_LIMITS = """## Limits

* It knows this world only: other words are ignored or misread, and there is no photograph in it.
* One size, 128 x 128; one to four shapes.
* Edits keep what is not named only about as well as the editing score says, and only in square pictures of 128 x 128.
* An edit's instruction is padded to one length (`instruction_length` in tokenizer_config.json, this project's key): a
  runtime that does not know it edits worse.
* Licence: as the project's.
"""
