"""Builds the program of tests/counts, and has valgrind count its instructions."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nextstep_rt import Error, InvalidRequest

from .counts import Count, Counts
from .environment import ROOT

FOLDER = ROOT / "build" / "counts"
TARGET = "nsrt_counts"
ISA = "avx2"  # the widest that valgrind knows
SECONDS = 900  # of any one command
HEAD = 1 << 16  # bytes of a dump that hold its summary
TOOLS = {"cmake": "pip install cmake", "valgrind": "apt-get install valgrind, or the like"}


def find_tool(name: str) -> str | None:
    """A program beside this Python, or on the path."""
    return shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def need_tree() -> None:
    """Raises `InvalidRequest` outside the source tree."""
    if not (ROOT / "tests" / "counts" / "CMakeLists.txt").is_file():
        raise InvalidRequest("an installed package has no source tree to build from: run it in one")


def need_tools() -> dict[str, str]:
    """Where cmake and valgrind are. Raises `Error` naming what is missing."""
    found = {name: find_tool(name) for name in TOOLS}
    missing = [f"{name} ({TOOLS[name]})" for name, path in found.items() if path is None]
    if missing:
        raise Error(f"counting instructions needs {' and '.join(missing)}")
    return {name: path for name, path in found.items() if path is not None}


def measure(folder: Path = FOLDER) -> Counts:
    """Builds in `folder`, times every case natively, and counts it. Raises `Error` where one of these fails."""
    tools = need_tools()
    program = build(tools["cmake"], folder)
    timed = told(run([str(program)], environment()))
    with tempfile.TemporaryDirectory() as dumps:
        out = Path(dumps) / "dump"
        callgrind = [tools["valgrind"], "--tool=callgrind", "--collect-atstart=no", f"--callgrind-out-file={out}"]
        counted = told(run([*callgrind, str(program)], environment()))
        instructions, version = read_dumps(Path(dumps))
    return together(timed, counted, instructions, version)


def build(cmake: str, folder: Path) -> Path:
    """The program, built as the package is: optimized, without CUDA, which has no part in it."""
    ninja, ccache = find_tool("ninja"), find_tool("ccache")
    run([
        cmake, "-S", str(ROOT), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release", "-DNSRT_CUDA=OFF", "-DNSRT_COUNTS=ON",
        "-DNSRT_WERROR=ON",
        *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []),
        *([f"-DCMAKE_CXX_COMPILER_LAUNCHER={ccache}"] if ccache else []),
    ])  # fmt: skip
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count() or 1)
    run([cmake, "--build", str(folder), "--target", TARGET, "--parallel", jobs])
    return folder / "tests" / "counts" / TARGET


def environment() -> dict[str, str]:
    """Of the program: nothing of the caller's that could change a count, e.g. the C library's tunables."""
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "NSRT_ISA": ISA}


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """What a command prints. Raises `Error` with the end of its output where it fails."""
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=SECONDS)
    except OSError as error:
        raise Error(f"{command[0]} cannot be run: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise Error(f"{Path(command[0]).name} still ran after {SECONDS} s: {' '.join(command)}") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise Error(f"{Path(command[0]).name} ended with {done.returncode}: {' '.join(command)}: {last}")
    return done.stdout


def told(text: str) -> dict[str, Any]:
    """What the program printed."""
    try:
        return dict(json.loads(text))
    except ValueError as error:
        raise Error(f"{TARGET} printed no JSON ({error}): {text[-500:]!r}") from None


def read_dumps(folder: Path) -> tuple[dict[str, int], str]:
    """Instructions by the name that a dump was asked for with, and valgrind's version. Raises `Error` for no dumps.

    The last dump, at the program's end, has no such name and no instructions.
    """
    found: dict[str, int] = {}
    version = None
    for path in folder.iterdir():
        with path.open(encoding="utf-8") as file:
            head = file.read(HEAD)
        name = re.search(r"^desc: Trigger: Client Request: (.+)$", head, re.MULTILINE)
        count = re.search(r"^summary: (\d+)$", head, re.MULTILINE)
        creator = re.search(r"^creator: callgrind-(\S+)$", head, re.MULTILINE)
        if name and count and creator:
            found[name[1]] = int(count[1])
            version = creator[1]
    if version is None:
        raise Error("valgrind dumped no counts: was the program built with valgrind's headers?")
    return found, version


def together(
    timed: Mapping[str, Any], counted: Mapping[str, Any], instructions: Mapping[str, int], version: str
) -> Counts:
    """One record of both runs. Raises `Error` where a case is missing in one, or was not counted."""
    seconds = {str(case["name"]): float(case["seconds"]) for case in timed["cases"]}
    cases = {str(case["name"]): case["bytes"] for case in counted["cases"]}
    lost = sorted({*seconds, *cases, *instructions} - ({*seconds} & {*cases} & {*instructions}))
    if lost or not cases or len(cases) != len(counted["cases"]) or not all(instructions.values()):
        raise Error(f"the runs with and without valgrind do not have the same cases, each counted once: {lost}")
    return Counts(
        str(counted["isa"]),
        {"compiler": str(counted["compiler"]), "libc": str(counted["libc"]), "valgrind": version},
        {name: Count(instructions[name], size, seconds[name]) for name, size in cases.items()},
    )
