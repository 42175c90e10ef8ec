"""The application object and what all commands share."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from .bench import bench
from .doctor import doctor
from .errors import guarded
from .evaluate import evaluate
from .generate import edit, generate
from .info import info


class Application(typer.Typer):
    """The commands, and what must hold around them."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run; the command's own guard does not cover the building and reading of the commands."""
        try:
            _reserve_standard_streams()
            return super().__call__(*args, **kwargs)
        except KeyboardInterrupt:
            typer.echo("stopped", err=True)
            raise SystemExit(130) from None
        except SystemExit as end:
            # typer turns Ctrl-C outside a command into its own exit, without a word.
            if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):
                typer.echo("stopped", err=True)
                raise SystemExit(130) from None
            raise


def _reserve_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, or the next file opened would take its place and its output."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one


app = Application(
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
app.command("eval")(evaluate)
# Its own command line reads its words, --help too: they must reach it as they are.
app.command(
    "bench",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    short_help="Measure this machine and the runtime on it.",
)(bench)
