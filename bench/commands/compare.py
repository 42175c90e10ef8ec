"""`compare`: two results of one command, figure by figure."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..comparison import compare_records, table
from ..results import read

First = Annotated[Path, typer.Argument(metavar="A.json", help="The earlier result.")]
Second = Annotated[Path, typer.Argument(metavar="B.json", help="The later result.")]


def compare(a: First, b: Second) -> None:
    """Print what changed from A to B, per stage: the medians, their ratio, and whether the repeats overlap."""
    first, second = read(a), read(b)
    changes, notes = compare_records(first, second)
    for note in notes:
        typer.echo(f"note: {note}")
    table(changes, f"{first['command']}: {a.name} to {b.name}").show()
