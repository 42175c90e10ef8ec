"""Progress over image tokens: a bar on stderr, a caller's function, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .config import is_bool, show
from .errors import InvalidRequest


def check_progress(progress: object) -> None:
    """Raise `InvalidRequest` unless progress is None, a bool or a callable."""
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise InvalidRequest(f"progress must be None, True, False or a function of (done, total), not {show(progress)}")


def says_stop(answer: object) -> bool:
    """A callback's answer: only False, Python's or numpy's, stops; None, 0 and an empty array do not."""
    return is_bool(answer) and not answer


def is_terminal(stream: Any) -> bool:
    """Whether a standard stream is a terminal; one that was closed before Python started is None, and none."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:  # closed since
        return False


@contextmanager
def reporting(progress: bool | Callable[[int, int], Any] | None) -> Iterator[Callable[[int, int], None]]:
    """A function (done, total) to report image tokens to. True draws a bar, which a pipe or a file never sees."""
    if progress is True:
        with token_bar() as report:
            yield report
    elif callable(progress):
        yield lambda done, total: _discard(progress(done, total))
    else:
        yield lambda done, total: None


def _discard(_: Any) -> None:
    return None


@contextmanager
def token_bar(label: str = "image tokens") -> Iterator[Callable[[int, int], None]]:
    """A rich bar with tokens done, tokens/s and the time left; gone when it closes, only where stderr is a screen."""
    if not is_terminal(sys.stderr):
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("- tokens/s" if speed is None else f"{speed:.1f} tokens/s", style="progress.data.speed")

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    # What is printed meanwhile goes above the bar, but only to a screen: a pipe must get it on stdout, untouched.
    above = is_terminal(sys.stdout)
    with Progress(*columns, console=console, transient=True, redirect_stdout=above) as bar:
        task = bar.add_task(label, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
