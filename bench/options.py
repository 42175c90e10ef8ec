"""The options the commands share, and what every command does at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from nextstep_rt import InvalidRequest

from .results import Record, check_steady, destination, new_record, write

# The running command as it was given; the application sets it.
WORDS: ContextVar[tuple[str, ...]] = ContextVar("words", default=("python -m bench",))

_WHAT, _HOW, _OUT = "What is measured", "How", "Output"

Synthetic = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHAPE|KEY=VALUE",
        help="Random weights: 14b, 1b, 200m, demo or tiny, and keys of a config.json to change, e.g. "
        '--synthetic "200m num_hidden_layers=8". Default 200m.',
        rich_help_panel=_WHAT,
    ),
]
Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="demo, a checkpoint folder, or a Hugging Face repo id.", rich_help_panel=_WHAT),
]
Dtype = Annotated[str, typer.Option(help="bfloat16 or float32, of weights and KV cache.", rich_help_panel=_WHAT)]
Rows = Annotated[int, typer.Option(help="Images x guidance branches, 1 to 16.", rich_help_panel=_WHAT)]
Steps = Annotated[int, typer.Option(help="Solver steps of an image token.", rich_help_panel=_WHAT)]
Positions = Annotated[int, typer.Option(help="Positions of the prompt.", rich_help_panel=_WHAT)]
Tokens = Annotated[int, typer.Option(help="Image tokens timed in each repeat.", rich_help_panel=_WHAT)]
Threads = Annotated[
    int | None, typer.Option(help="Threads; default all cores this process may use.", rich_help_panel=_HOW)
]
Repeats = Annotated[int, typer.Option(help="Repeats of each measurement; medians are shown.", rich_help_panel=_HOW)]
Warmup = Annotated[int, typer.Option(help="Repeats before the clock counts.", rich_help_panel=_HOW)]
MaxSpread = Annotated[
    float,
    typer.Option(help="Widest (p90 - p10) / median of the repeats that still gives a figure.", rich_help_panel=_HOW),
]
AllowUnsteady = Annotated[
    bool, typer.Option("--allow-unsteady", help="Exit with 0 though figures are unsteady.", rich_help_panel=_HOW)
]
Pin = Annotated[
    bool, typer.Option("--pin/--no-pin", help="Keep each thread on a core of its own.", rich_help_panel=_HOW)
]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER|FILE.json", help="Write the results as JSON.", rich_help_panel=_OUT),
]
Plot = Annotated[
    bool, typer.Option("--plot", help="Draw a PNG, beside the JSON or in this folder.", rich_help_panel=_OUT)
]


@dataclass(frozen=True)
class Ending:
    """What a command does with its figures."""

    out: Path | None = None
    plot: bool = False
    allow_unsteady: bool = False

    def __call__(self, command: str, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Record:
        """Prints the tables, writes JSON and plot, and raises `Unsteady` where a figure cannot be claimed."""
        from .plots import draw
        from .views import tables

        record = new_record(command, command_line(), settings, data)
        for table in tables(record):
            table.show()
        path = destination(self.out or Path(), command, settings)
        if self.out is not None:
            write(record, path)
            typer.echo(f"results: {path}")
        if self.plot:
            picture = draw(record, path.with_suffix(".png"))
            typer.echo("no plot: there is nothing steady to draw" if picture is None else f"plot: {picture}")
        if not self.allow_unsteady:
            check_steady(record)
        return record


def command_line() -> str:
    """The command as it was given, e.g. "python -m bench decode --rows 2"."""
    first, *rest = WORDS.get()
    return " ".join([first, *map(shlex.quote, rest)])


def thread_count(threads: int | None) -> int:
    """Threads asked for, or all usable cores. Raises `InvalidRequest` for fewer than 1 or more than 1024."""
    from .pinning import usable_cores

    if threads is None:
        return max(1, len(usable_cores()))
    if not 1 <= threads <= 1024:
        raise InvalidRequest(f"--threads is {threads}: it must be from 1 to 1024")
    return threads
