"""Commands with a time limit, whose output's end is kept."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TAIL_LINES, TAIL_CHARACTERS = 25, 4000
TIMED_OUT = 124


class StageError(Exception):
    """A stage cannot go on; the message says why."""


@dataclass
class Log:
    """All commands' output goes to one file; what a stage said last goes into the figures too."""

    path: Path
    tail: str = ""
    commands: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, stage: str) -> None:
        """Forgets the stage before."""
        self.tail, self.commands = "", []
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"\n==== {stage}\n")

    def run(self, command: Sequence[str], seconds: float, env: Mapping[str, str] | None = None) -> int:
        """The exit status of a command, 124 where it took longer than `seconds` and was killed with its children."""
        if seconds <= 0:
            raise StageError("no time was left for it")
        begin = time.monotonic()
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"$ {' '.join(command)}\n")
            file.flush()
            place = file.tell()
            status = _wait(
                subprocess.Popen(
                    list(command),
                    cwd=ROOT,
                    env={**os.environ, **(env or {})},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                ),
                seconds,
            )
        with self.path.open("rb") as written:
            written.seek(place)
            self.tail = last_lines(written.read().decode("utf-8", "replace"))
        self.commands.append(
            {"command": " ".join(command), "status": status, "seconds": round(time.monotonic() - begin, 1)}
        )
        return status

    def must(self, command: Sequence[str], seconds: float, env: Mapping[str, str] | None = None) -> None:
        """Like run, but a status other than 0 is a StageError."""
        status = self.run(command, seconds, env)
        if status == TIMED_OUT:
            raise StageError(f"{short(command)} took longer than {seconds:.0f} s and was ended")
        if status != 0:
            raise StageError(f"{short(command)} failed with status {status}")


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int:
    try:
        return process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        return TIMED_OUT
    except BaseException:
        _kill(process)
        raise


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # its own session: nothing else is in that group
    process.wait()


def short(command: Sequence[str]) -> str:
    """A command's program and first arguments, for messages."""
    words = [Path(command[0]).name, *command[1:4]]
    return " ".join(words)


def last_lines(text: str) -> str:
    """The end of a command's output."""
    return "\n".join(text.splitlines()[-TAIL_LINES:])[-TAIL_CHARACTERS:]
