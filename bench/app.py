"""Command line of the measurements."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from nextstep_rt.cli.errors import guarded

from .commands import (
    compare,
    counts,
    decode,
    image,
    kernels,
    peers,
    plan,
    report,
    roofline,
    scaling,
    startup,
    sweep,
)
from .options import WORDS

EXTRA = ("matplotlib", "psutil")
WITHOUT_EXTRA = ("gpu", "compare", "counts", "report")


class _Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keeps the words of the command, which results state."""
        WORDS.set((ctx.info_name or "python -m bench", *args))
        rest: list[str] = super().parse_args(ctx, args)
        return rest


app = typer.Typer(
    cls=_Group, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Measurements of nextstep_rt: seconds against what this machine could do at best.",
)  # fmt: skip


def need_extra() -> None:
    """Raises `Error` where what the measurements need is not installed."""
    from nextstep_rt import Error

    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        raise Error(f'bench needs {" and ".join(missing)}: pip install "nextstep-rt[bench]"')


@app.callback(invoke_without_command=True)
@guarded
def root(
    context: typer.Context,
    of: Annotated[
        tuple[Path, Path] | None, typer.Option("--compare", metavar="A.json B.json", help="As the command compare.")
    ] = None,
) -> None:
    """Measurements of nextstep_rt: seconds against what this machine could do at best."""
    if of is not None:
        if context.invoked_subcommand is not None:
            raise typer.BadParameter("--compare stands alone, or is the command compare")
        compare(*of)
    elif context.invoked_subcommand not in WITHOUT_EXTRA:
        need_extra()


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    short_help="Build, check and measure the CUDA backend on this machine's GPU.",
)
@guarded
def gpu(context: typer.Context) -> None:
    """The command without typer has the options: `python -m bench gpu --help`."""
    try:
        from .gpu.cli import main
    except ModuleNotFoundError as error:
        from nextstep_rt import Error

        if not (error.name or "").endswith("gpu"):
            raise
        raise Error(
            "the GPU's measurements build the CUDA backend and are not part of the installed package: run "
            "`python -m bench gpu` in the source tree"
        ) from None
    raise typer.Exit(main(context.args))


for command in (roofline, kernels, decode, image, startup, scaling, peers, sweep, plan, compare, report, counts):
    app.command()(guarded(command))
