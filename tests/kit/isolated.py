"""Code in a Python process of its own: what may crash, hang, fork or be interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

TESTS = Path(__file__).parent.parent


def environment(**changes: str) -> dict[str, str]:
    """This process's, with the tests on the import path and few threads in every library."""
    path = os.pathsep.join([str(TESTS), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]).rstrip(os.pathsep)
    return {**os.environ, "PYTHONPATH": path, "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "2", **changes}


def run_python(code: str, *arguments: str, timeout: float = 60, **changes: str) -> str:
    """Run `code`; return what it printed. Fails with its whole output where it crashed, hung or raised."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            env=environment(**changes),
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise AssertionError(f"still running after {timeout} s\n{error.stdout!r}\n{error.stderr!r}") from error
    if done.returncode < 0:
        raise AssertionError(f"killed by signal {-done.returncode}\n{done.stdout}\n{done.stderr}")
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout
