"""Is it right: native tests of the PTX and of a recorded token, tests/cuda or the goldens, and NVIDIA's sanitizer."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from typing import Any

from .build import find_tool, native_tests
from .process import TIMED_OUT, Log, StageError

TEST, PTX_TEST = "a_recorded_token", "test_ptx"
NEEDED = ("pytest", "safetensors")  # by tests/cuda
TOOLS = ("memcheck", "racecheck")
FOUND_ERRORS = 99

# With the module that was built in the place of an installed one.
PYTEST = """
import os, sys
from pathlib import Path
os.environ.pop("NSRT_CUDA_CORE", None)  # to the tests it would mean an emulated one
from bench.gpu.core import load_core
load_core(Path(sys.argv[1]))
import pytest
sys.exit(pytest.main(["tests/cuda", "-p", "no:cacheprovider", "--tb=short", "--maxfail=5"]))
"""


def run_tests(log: Log, seconds: float, core: Path, emulated: bool) -> tuple[dict[str, Any], list[str]]:
    """The native tests and tests/cuda: figures and what failed. {"pytest": None} where its modules are not there."""
    figures: dict[str, Any] = {"ptx": None, "native": None, "pytest": None}
    failed, end = [], time.monotonic() + seconds
    program = None if emulated else native_tests()
    if program is not None:
        for key, name in (("ptx", PTX_TEST), ("native", TEST)):
            status = log.run([str(program), name], min(60, seconds))
            figures[key] = verdict(status)
            failed += [f"native test {name}: {verdict(status)}"] if status else []
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing or emulated:
        figures["no_pytest_because"] = "emulated" if emulated else f"not installed: {', '.join(missing)}"
        return figures, failed
    status = log.run([sys.executable, "-c", PYTEST, str(core)], end - time.monotonic())
    figures["pytest"] = verdict(status)
    figures["pytest_summary"] = log.tail.splitlines()[-1] if log.tail else ""
    failed += [f"tests/cuda: {verdict(status)}"] if status else []
    return figures, failed


def verdict(status: int) -> str:
    """A test run's exit status in words."""
    return {0: "passed", TIMED_OUT: "took too long and was ended"}.get(status, f"failed with status {status}")


def judge(status: int, output: str) -> str:
    """What a sanitizer's run says: "clean", "errors", or why it says nothing."""
    if status == TIMED_OUT:
        return "took too long and was ended"
    if status == FOUND_ERRORS:
        return "errors"
    if status == 0:
        return "clean"
    line = next((line for line in output.splitlines() if "rror" in line or "not supported" in line), "")
    return f"does not work here: {line.strip('= ') or f'status {status}'}"


def sanitize(log: Log, seconds: float) -> dict[str, Any]:
    """compute-sanitizer over the native test of a recorded token; StageError where it found errors."""
    program, tool = native_tests(), find_tool("compute-sanitizer")
    if program is None:
        raise StageError("nsrt_native_tests was not built")
    figures: dict[str, Any] = {}
    if tool is None:
        return dict.fromkeys(TOOLS, "compute-sanitizer is not installed")
    end, tails = time.monotonic() + seconds, []
    for i, name in enumerate(TOOLS):
        left = (end - time.monotonic()) / (len(TOOLS) - i)
        command = [tool, "--tool", name, "--error-exitcode", str(FOUND_ERRORS), str(program), TEST]
        figures[name] = judge(log.run(command, left), log.tail)
        tails.append(log.tail)
    log.tail = "\n".join(tails)
    found = [name for name, said in figures.items() if said == "errors"]
    if found:
        raise StageError(f"{' and '.join(found)} found errors")
    return figures
