"""`eval`: how often a model draws what it is asked for. Everything it needs is loaded within the command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options as o
from .errors import guarded, say

if TYPE_CHECKING:
    from ..train.report import Report, Score

ON_SHEET = 48  # prompts of a category on the sheet, and of the others those drawn wrong

_EVALUATION = "Evaluation"
Model = Annotated[str, typer.Argument(help="demo, a checkpoint folder, or a Hugging Face repo id.")]
Count = Annotated[int, typer.Option("--count", help="Prompts of each category.", rich_help_panel=_EVALUATION)]
Seeds = Annotated[
    str, typer.Option(help="The seeds each prompt is drawn with, commas between.", rich_help_panel=_EVALUATION)
]
Categories = Annotated[
    str | None,
    typer.Option(
        help="Of single-object, two-objects, counting, colours, position, colour-attribution, editing, commas between; "
        "default all.",
        rich_help_panel=_EVALUATION,
    ),
]
Folder = Annotated[
    Path,
    typer.Option("--output", "-o", metavar="FOLDER", help="Gets report.json and sheet.png.", rich_help_panel="Output"),
]


@guarded
def evaluate(
    model: Model = "demo",
    count: Count = 100,
    seeds: Seeds = "0,1",
    prompt_seed: Annotated[
        int, typer.Option(help="Which prompts; choose settings on another than 0.", rich_help_panel=_EVALUATION)
    ] = 0,
    categories: Categories = None,
    output: Folder = Path("evaluation"),
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    image_guidance: o.ImageGuidance = None,
    solver: o.Solver = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print only the paths.", rich_help_panel="Output")
    ] = False,
    revision: o.Revision = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    backend: o.Backend = "native",
    threads: o.Threads = None,
) -> None:
    """Score a model of the world of shapes on prompts it was not trained on (ShapeEval)."""
    _need_scipy()
    from ..images import write_png
    from ..pipeline import Pipeline
    from ..train.evaluate import evaluate as run
    from ..train.prompts import CATEGORIES
    from ..train.sheet import draw_sheet
    from .names import speaking_flags

    _prepare(output)
    chosen = CATEGORIES if categories is None else [_category(name) for name in categories.split(",")]
    given = {"num_inference_steps": steps, "guidance_scale": guidance, "solver": solver}
    given["image_guidance_scale"] = image_guidance
    settings: Any = {name: value for name, value in given.items() if value is not None}
    drawn = _Drawn()
    with speaking_flags():
        pipe = Pipeline.from_pretrained(
            model, revision=revision, device=device, dtype=dtype, backend=backend, threads=threads
        )
        with _progress(shown=not quiet) as progress:
            report = run(
                pipe,
                count=count,
                categories=chosen,
                seeds=_seeds(seeds),
                prompt_seed=prompt_seed,
                progress=progress,
                on_image=drawn.add,
                **settings,
            )
    if not quiet:
        _print(report)
    paths = output / "report.json", output / "sheet.png"
    report.write(paths[0])
    write_png(draw_sheet(drawn.tiles), paths[1])
    for path in paths:
        say(str(path))


def _need_scipy() -> None:
    from ..errors import Error

    if find_spec("scipy") is None:
        raise Error('reading pictures needs scipy, which is not installed: pip install "nextstep-rt[train]"')


def _prepare(folder: Path) -> None:
    """Make the folder before any work is done. Raises `InvalidRequest` where that cannot be."""
    from ..errors import InvalidRequest

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidRequest(f"the output {folder} is a file: name a folder with -o") from None
    except OSError as error:
        raise InvalidRequest(f"cannot make the folder {folder}: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK):
        raise InvalidRequest(f"the folder {folder} is not writable: choose another output with -o")


def _category(name: str) -> str:
    from ..config import choice
    from ..train.prompts import CATEGORIES

    return choice("category", name.strip().lower().replace("-", " "), CATEGORIES)


def _seeds(text: str) -> list[int]:
    from ..config import show
    from ..errors import InvalidRequest

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) <= 20 for part in parts):
        raise InvalidRequest(f"--seeds is {show(text)}: give whole numbers with commas between, e.g. --seeds 0,1")
    return [int(part) for part in parts]


class _Drawn:
    """The first prompts of every category, each with its first picture, and every wrong picture of the others."""

    def __init__(self) -> None:
        from ..train.sheet import Tile

        self.tiles: list[Tile] = []
        self._numbers: dict[str, set[int]] = {}

    def add(self, prompt: Any, outcome: Any, picture: Any) -> None:
        from PIL import Image

        from ..train.sheet import Tile
        from ..train.world import render

        numbers = self._numbers.setdefault(prompt.category, set())
        if outcome.number in numbers or (outcome.ok and len(numbers) >= ON_SHEET):
            return
        numbers.add(outcome.number)
        source = None if prompt.source is None else Image.fromarray(render(prompt.source))
        self.tiles.append(Tile(prompt.category, prompt.text, picture, outcome.ok, outcome.reason, source))


@contextmanager
def _progress(*, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a screen."""
    from ..progress import is_terminal

    if not shown or not is_terminal(sys.stderr):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print(report: Report) -> None:
    """A table of the scores, in percent, beside what their pictures would score through the autoencoder alone."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("category")
    for name in ("score", "95 % interval", "autoencoder", "prompts", "images"):
        table.add_column(name, justify="right")
    limits = report.ceiling.get("autoencoder", {})
    rows = [(name, score) for name, score in report.scores.items() if name != "editing"]
    for name, score in rows:
        table.add_row(name, *_cells(score, limits.get(name)), end_section=name == rows[-1][0])
    if report.overall is not None:
        table.add_row("overall", *_cells(report.overall, None), end_section=True)
    if "editing" in report.scores:
        table.add_row("editing", *_cells(report.scores["editing"], limits.get("editing")))
    Console(width=90).print(table)


def _cells(score: Score, limit: Score | None) -> tuple[str, ...]:
    interval = f"{100 * score.low:.1f} to {100 * score.high:.1f}"
    ceiling = "" if limit is None else f"{100 * limit.score:.1f}"
    return f"{100 * score.score:.1f}", interval, ceiling, str(score.prompts), str(score.images)
