"""`report`: writes docs/performance.md from the committed results, or checks that it is what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextstep_rt import Error, InvalidRequest

from ..environment import ROOT
from ..reporting import page

Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail where the page is not up to date.")]
Folder = Annotated[Path | None, typer.Option(help="Results to read; default bench/results of the source tree.")]
Page = Annotated[
    Path | None,
    typer.Option("--page", help="The page to write; default docs/performance.md of the source tree."),
]


def report(check: Check = False, results: Folder = None, page_file: Page = None) -> None:
    """Write docs/performance.md from bench/results: nothing in it is written by hand."""
    if (results is None or page_file is None) and not (ROOT / "pyproject.toml").is_file():
        raise InvalidRequest("an installed package has no source tree: name --results and --page")
    folder = ROOT / "bench" / "results" if results is None else results
    path = ROOT / "docs" / "performance.md" if page_file is None else page_file
    text = page(folder, path.parent)
    if check:
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise Error(f"{path} is not what the results say: write it with `python -m bench report`")
        typer.echo(f"{path} is up to date")
        return
    path.write_text(text, encoding="utf-8")
    typer.echo(f"written: {path}")
