"""Command line of the measurements."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Measurements of nextstep_rt.")


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    short_help="Build, check and measure the CUDA backend on this machine's GPU.",
)
def gpu(context: typer.Context) -> None:
    """The command without typer has the options: `python -m bench gpu --help`."""
    from .gpu.cli import main

    raise typer.Exit(main(context.args))


@app.command()
def decode(
    shape: Annotated[str, typer.Option(help="Model shape with random weights: 200m, 14b or tiny.")] = "200m",
    dtype: Annotated[str, typer.Option(help="bfloat16 or float32.")] = "bfloat16",
    rows: Annotated[int, typer.Option(min=1, max=16, help="Images x guidance branches.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Solver steps.")] = 20,
    tokens: Annotated[
        int, typer.Option(min=1, help="Image tokens timed in the reference; three times as many natively.")
    ] = 8,
    repeats: Annotated[int, typer.Option(min=1, help="Pairs of native and reference runs.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of both; all cores by default.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the figures as JSON.")] = None,
) -> None:
    """Time per image token: the native loop against the torch reference, alternated in one run."""
    from .decode import environment, measure
    from .synthetic import SHAPES

    if shape not in SHAPES:
        raise typer.BadParameter(f"unknown shape {shape!r}; known: {', '.join(SHAPES)}")
    result = measure(shape, dtype, rows, steps, tokens, repeats, threads)
    table = Table(title=f"{shape}, {dtype}, {rows} rows, {steps} steps, {result['threads']} threads")
    for column in ("", "ms per token", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    table.add_row(result["backend"], f"{result['native_ms']:.1f}", "1")
    table.add_row("reference/torch", f"{result['reference_ms']:.1f}", f"{result['ratio']:.2f}")
    Console().print(table)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps({"environment": environment(), "decode": result}, indent=1) + "\n", encoding="utf-8")
