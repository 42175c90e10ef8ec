"""Every failure of a command becomes one line on stderr and an exit code; NSRT_DEBUG=1 shows the traceback.

2: the request or the checkpoint is wrong; 1: anything else; 130: stopped by Ctrl-C.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer

P = ParamSpec("P")
R = TypeVar("R")


def fail(message: str, code: int) -> typer.Exit:
    """Print "error: ..." in red (plain when stderr is no terminal, or with NO_COLOR) and return the exit to raise."""
    line = f"error: {' '.join(message.split())}"
    typer.echo(line if os.environ.get("NO_COLOR") else typer.style(line, fg=typer.colors.RED), err=True)
    return typer.Exit(code)


def say(line: str) -> None:
    """Print a line of results on stdout. Raises `Error` when they cannot be written, e.g. to a full disk."""
    from ..errors import Error

    try:
        typer.echo(line)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Error(f"cannot write to standard output: {error.strerror or error}") from None


def guarded(command: Callable[P, R]) -> Callable[P, R]:
    """Wrap a command so that nothing but an exit leaves it."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except KeyboardInterrupt:
            typer.secho("stopped", err=True)
            raise typer.Exit(130) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except ImportError as error:
            if os.environ.get("NSRT_DEBUG"):
                raise
            raise fail(f"{error}: the installation is incomplete; `nextstep-rt doctor` says more", 1) from None
        except Exception as error:
            if os.environ.get("NSRT_DEBUG"):
                raise
            raise fail(*_describe(error)) from None

    return run


def _describe(error: Exception) -> tuple[str, int]:
    from ..errors import CheckpointError, Error, InvalidRequest

    if isinstance(error, (InvalidRequest, CheckpointError)):
        return str(error), 2
    if isinstance(error, Error):
        return str(error), 1
    if isinstance(error, MemoryError):
        return "out of memory: ask for fewer or smaller images", 1
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}", 1
    return f"{type(error).__name__}: {error} (a fault in the program: NSRT_DEBUG=1 shows where)", 1
