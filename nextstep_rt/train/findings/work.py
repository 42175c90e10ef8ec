"""What all parts share: the model they study, points kept as they are made, and the file a part ends in."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import typer

from ..._core import ModelConfig
from ...checkpoint import Geometry, resolve_model, resolve_vae
from ...errors import InvalidRequest
from ...jsonfile import read_json
from ...pipeline import Pipeline
from ..digest import world_digest
from ..evaluate import evaluate
from ..files import replacing, sha256
from ..prompts import GENERATION
from ..report import Report
from ..world import CANVAS
from .numbers import Number

SCHEMA = 1
Values = dict[str, Any]


@dataclass(frozen=True)
class Drawing:
    """The pictures that are scored: `count` prompts of each of the six categories, with each seed, drawn how."""

    count: int = 50
    seeds: tuple[int, ...] = (0, 1)
    prompt_seed: int = 1  # the published scores are of 0: no setting is chosen on those
    num_inference_steps: int = 28
    guidance_scale: float = 3.0
    solver: str = "sde"
    normalize_tokens: bool = True

    def counting(self, count: int | None) -> Drawing:
        """The same with `count` prompts a category, where given."""
        return self if count is None else replace(self, count=count)


class Settings(Protocol):
    """A part's settings: a frozen dataclass."""

    def scaled(self, count: int | None, steps: float) -> Any:
        """The same with `count` prompts a category, where given, and `steps` times the steps of every training."""


@dataclass(frozen=True)
class Part:
    """One finding. run(work, settings) gives the result; the rest shows a result, and reads nothing else.

    origin: what the paper says, or where the question comes from; Markdown. plot(result, path) writes a PNG;
    table(result) and verdict(result) give Markdown.
    """

    name: str
    title: str
    origin: str
    settings: Settings
    run: Callable[[Work, Any], Values]
    plot: Callable[[Values, Path], None]
    table: Callable[[Values], str]
    verdict: Callable[[Values], str]


@dataclass(frozen=True)
class Work:
    """Where and on what: `model` as `Pipeline.from_pretrained` takes it, trainings and points below `folder`.

    results: where the parts' results go, by default `folder` too.
    """

    model: str
    folder: Path
    command: str
    results: Path | None = None

    def point(self, part: str, name: str, key: Mapping[str, Any], make: Callable[[], Values]) -> Values:
        """The values of one point: read where they were made before, else made and kept.

        key, with the world, is all that decides them. Raises `InvalidRequest` where they were made with another.
        """
        path = self.folder / part / "points" / f"{name}.json"
        wanted = json.loads(json.dumps({"world": world_digest(), **key}))
        if path.exists():
            kept = read_json(path)
            if kept.get("key") != wanted:
                changed = ", ".join(sorted(_changed(wanted, kept.get("key"))))
                raise InvalidRequest(
                    f"{path} was made with other settings ({changed}): name another --folder, or remove this file"
                )
            return dict(kept["point"])
        began = time.monotonic()
        write_json(path, {"key": wanted, "point": make()})
        typer.echo(f"{part}: {name} done in {time.monotonic() - began:.0f} s")
        return dict(read_json(path)["point"])

    def result(self, part: str, settings: Any, reports: Mapping[str, Report], numbers: Values) -> Values:
        """The part's whole result, written to `results`/`part`.json: numbers, and what makes them again."""
        abouts = [report.about for report in reports.values()]
        made: Values = {
            "schema": SCHEMA,
            "part": part,
            "settings": asdict(settings),
            "command": self.command,
            "commit": ", ".join(sorted({str(about.get("commit") or "unknown") for about in abouts})),
            "date": max(str(about.get("date", "")) for about in abouts),
            "model": self.model,
            "weights_sha256": _weights(reports),
            "world": world_digest(),
            **numbers,
        }
        write_json((self.results or self.folder) / f"{part}.json", made)
        return made


def _changed(wanted: Any, kept: Any, name: str = "") -> list[str]:
    """Dotted names of what differs between two JSON values."""
    if isinstance(wanted, dict) and isinstance(kept, dict):
        keys = wanted.keys() | kept.keys()
        return [found for k in keys for found in _changed(wanted.get(k), kept.get(k), f"{name}.{k}".strip("."))]
    return [] if wanted == kept else [name or "all"]


def _weights(reports: Mapping[str, Report]) -> Values:
    """Hashes by file; by point and file where points have models of their own."""
    hashes = [dict(report.about.get("weights_sha256", {})) for report in reports.values()]
    if all(found == hashes[0] for found in hashes):
        return hashes[0]
    return {f"{name}/{file}": value for name, row in zip(reports, hashes, strict=True) for file, value in row.items()}


def write_json(path: Path, values: Any) -> None:
    """Writes JSON whole or not at all. Raises `InvalidRequest` where the path cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}; name another --folder") from None


def world_model(model: str) -> tuple[Path, Path]:
    """The folders of a model of this world and of its VAE.

    Raises `InvalidRequest` where it draws at another size, `CheckpointError` where there is no such model.
    """
    folder = Path(resolve_model(model))
    try:
        config = ModelConfig.from_json((folder / "config.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"cannot read {folder / 'config.json'}: {error.strerror or error}") from None
    vae = resolve_vae(str(folder), config.vae_name_or_path)
    geometry = Geometry.of(config, vae)
    found = (geometry.native_height, geometry.factor, geometry.channels)
    if found != (CANVAS, 16, 16):
        raise InvalidRequest(
            f"{model} draws {found[0]} pixels a side in tokens of {found[1]} with {found[2]} channels; the findings "
            f"are about models of {CANVAS}, 16 and 16: train one with `python -m nextstep_rt.train`"
        )
    return folder, Path(vae)


def sha256_of(*folders: Path) -> dict[str, str]:
    """The hash of every weight file directly in the folders, by folder's and file's name."""
    files = [path for folder in folders for path in sorted(folder.glob("*.safetensors"))]
    return {f"{path.parent.name}/{path.name}": sha256(path) for path in files}


def draw(pipeline: Pipeline, drawing: Drawing) -> Report:
    """ShapeEval of the six categories of generation."""
    own = ("count", "seeds", "prompt_seed")
    sampling: Any = {f.name: getattr(drawing, f.name) for f in fields(drawing) if f.name not in own}
    return evaluate(
        pipeline,
        count=drawing.count,
        categories=GENERATION,
        seeds=drawing.seeds,
        prompt_seed=drawing.prompt_seed,
        ceiling=False,
        **sampling,
    )


def scores_of(report: Report) -> dict[str, dict[str, float]]:
    """Every category's score and the overall one, as JSON numbers with intervals."""
    rows = {name: Number.of(score).to_json() for name, score in report.scores.items()}
    if report.overall is None:
        raise InvalidRequest(f"scores of {', '.join(rows)} make no overall one: draw all six categories")
    return {"overall": Number.of(report.overall).to_json(), **rows}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column reads left, the others right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
