"""The application object and what all commands share."""

from __future__ import annotations

from typing import Annotated

import typer

from .doctor import doctor
from .errors import guarded
from .generate import edit, generate
from .info import info

app = typer.Typer(
    name="nextstep-rt",
    help="Draw images with NextStep-1 models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@guarded
def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"nextstep-rt {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Draw images with NextStep-1 models."""


for command in (generate, edit, info, doctor):
    app.command()(command)
