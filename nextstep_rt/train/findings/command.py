"""The findings' command: runs the parts that are asked for, then writes the page."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from ...cli.errors import guarded
from ...config import choice
from .report import COMMAND, PARTS, write_report
from .work import Work

REPORT = "report"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@guarded
def findings(
    model: Annotated[str, typer.Option(help="The model that is studied: demo, or a checkpoint folder.")] = "demo",
    folder: Annotated[Path, typer.Option(help="Where trainings and points go.")] = Path("build/findings"),
    part: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(PARTS)}, or {REPORT} for the page alone; may be repeated. Default: all."),
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Prompts of each category; default 50.")] = None,
    steps: Annotated[
        float, typer.Option(min=0.0001, max=100, help="Times the steps of every training, to try it out.")
    ] = 1.0,
    docs: Annotated[
        Path, typer.Option(help="Where findings.md goes, and findings/ with each part's result and plot.")
    ] = Path("docs"),
) -> None:
    """Run the findings, or go on from where FOLDER stands, and write DOCS/findings.md from all results in DOCS.

    A part trains in FOLDER/PART, keeps every point it has evaluated there, and ends in DOCS/findings/PART.json.
    """
    results = docs / "findings"
    chosen = [choice("part", name, (*PARTS, REPORT)) for name in part or PARTS]
    for name in dict.fromkeys(chosen):
        if name == REPORT:
            continue
        found = PARTS[name]
        work = Work(model, folder, command_line(name, model, count, steps), results)
        result = found.run(work, found.settings.scaled(count, steps))
        typer.echo(f"{name}: {found.verdict(result)}")
    typer.echo(str(write_report(results, docs)))


def command_line(part: str, model: str, count: int | None, steps: float) -> str:
    """The command that makes one part again, without what only says where files go."""
    words = ["--part", part]
    words += [] if model == "demo" else ["--model", model]
    words += [] if count is None else ["--count", str(count)]
    words += [] if steps == 1.0 else ["--steps", f"{steps:g}"]
    return f"{COMMAND} {shlex.join(words)}"
