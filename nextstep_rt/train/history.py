"""What trained a model: a record of each run that ships with it, so that another training can go on from it."""

from __future__ import annotations

import json
import shutil
from itertools import count, pairwise, takewhile
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest
from ..jsonfile import read_json
from .files import replacing, sha256
from .run import CHECKPOINT, losses_of, read_commits, read_log, read_settings

PSNR = "psnr.json"  # of the tokenizer that ships, on this version's world
SHIPPED = "training.json"  # of a shipped model: {"psnr": ..., "runs": [...]}
BEFORE = "before.json"  # of a training that goes on from such a model: its SHIPPED, and the weights it began from
MOST_COURSES = 9
TITLES = {"vae": "Image tokenizer", "generator": "Generator"}

Record = dict[str, Any]


def course_folder(folder: Path, course: int) -> Path:
    """The folder of the generator's run number `course`, from 1."""
    return folder / ("generator" if course == 1 else f"generator-{course}")


def _runs(folder: Path) -> list[Path]:
    """The runs that a folder holds, in the order in which they were trained."""
    courses = takewhile(Path.exists, (course_folder(folder, course) for course in count(1)))
    return [run for run in (folder / "vae", *courses) if (run / CHECKPOINT).exists()]


def record(run: Path, commit: str | None) -> Record:
    """Of a finished run: what it trained, the commits that did, hours of steps, last losses and every setting.

    commit stands in where the run keeps none. Raises InvalidRequest where neither says one.
    """
    commits = read_commits(run) or ([] if commit is None else [commit])
    if not commits:
        raise InvalidRequest(f"{run} keeps no commit that trained it: say it with --commit")
    lines = read_log(run)
    ends = [0.0, *(line["step"] for line in lines)]
    steps = [after - before for before, after in pairwise(ends)]
    seconds = sum(line["s_per_step"] * count for line, count in zip(lines, steps, strict=True))
    return {
        "title": TITLES[run.name.partition("-")[0]],
        "commits": commits,
        "hours": round(seconds / 3600, 2),
        "losses": losses_of(lines[-1]),
        "settings": read_settings(run),
    }


def collect(folder: Path, commit: str | None) -> Record:
    """The records of all runs behind `folder`/model, those before it first, and the PSNR in dB that `ship` measured."""
    before = read_json(folder / BEFORE) if (folder / BEFORE).exists() else {"runs": []}
    runs = [record(run, commit) for run in _runs(folder)]
    return {"psnr": read_json(folder / PSNR), "runs": before["runs"] + runs}


def begin_from(start: Path, folder: Path) -> int:
    """Makes `folder` go on from the shipped model `start`, whose autoencoder it keeps; returns its generator's courses.

    Raises InvalidRequest where the model has no record of its training, or the folder has begun otherwise.
    """
    if not (start / SHIPPED).exists():
        raise InvalidRequest(f"{start} has no {SHIPPED}: only a model that `ship` wrote can be gone on from")
    name = sha256(start / "model.safetensors")
    path = folder / BEFORE
    if (folder / "vae" / CHECKPOINT).exists() or (path.exists() and read_json(path).get("weights") != name):
        raise InvalidRequest(f"{folder} holds a training that began otherwise: name another folder, or remove this one")
    target = folder / "model" / "vae"
    target.mkdir(parents=True, exist_ok=True)
    for file in ("config.json", "model.safetensors"):
        shutil.copyfile(start / "vae" / file, target / file)
    before = read_json(start / SHIPPED)
    with replacing(path) as part:
        part.write_text(json.dumps({"weights": name, **before}, indent=1) + "\n")
    return sum(run["title"] == TITLES["generator"] for run in before["runs"])


def check_begun_here(folder: Path) -> None:
    """Raises InvalidRequest where the folder goes on from another model, which its command has to name."""
    if (folder / BEFORE).exists():
        raise InvalidRequest(f"{folder} goes on from another model: say which with --from, or name another folder")
