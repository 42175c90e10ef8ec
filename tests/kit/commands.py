"""Runs commands in this process."""

from __future__ import annotations

from typing import Any

from typer import Typer
from typer.testing import CliRunner

from nextstep_rt.cli import app as main


def run(*arguments: str, code: int = 0, app: Typer = main, **options: Any) -> Any:
    """Invoke a command, with the test runner's options, and check its exit code."""
    result = CliRunner().invoke(app, list(arguments), **options)
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    assert options.get("color") or "\x1b" not in result.output
    return result


def fails(*arguments: str, code: int = 2, app: Typer = main) -> str:
    """The one line a failing command prints."""
    result = run(*arguments, code=code, app=app)
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    return str(result.stderr)
