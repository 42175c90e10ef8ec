"""Building the native module and its tests for the GPU at hand."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from .process import ROOT, Log, StageError

FOLDER = ROOT / "build" / "gpu"
SPECIFIC = 9  # the first generation with instructions of its own, which later ones lack


def architecture(capability: str) -> str:
    """The CMake name of a compute capability as "9.0": machine code for it alone, with its specific instructions."""
    major, minor = (int(part) for part in capability.split("."))
    return f"{major}{minor}{'a' if major >= SPECIFIC else ''}-real"


def find_tool(name: str) -> str | None:
    """A program beside this Python, on the path, or in the usual folder of the CUDA toolkit."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    cuda = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which(name, path=os.pathsep.join([*folders, f"{cuda}/bin", f"{cuda}/compute-sanitizer"]))


def configure_command(capability: str) -> list[str]:
    """The CMake command; raises StageError naming what is not there."""
    cmake, nvcc = find_tool("cmake"), find_tool("nvcc")
    pybind = importlib.util.find_spec("pybind11")
    missing = [name for name, found in (("cmake", cmake), ("nvcc", nvcc), ("pybind11", pybind)) if not found]
    if cmake is None or pybind is None or pybind.origin is None or missing:
        raise StageError(f"not found: {', '.join(missing)}")
    ninja = find_tool("ninja")
    return [
        cmake, "-S", str(ROOT), "-B", str(FOLDER),
        *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []),
        "-DNSRT_PYTHON=ON", "-DNSRT_TESTS=ON", "-DNSRT_CUDA=ON",
        f"-DNSRT_CUDA_ARCHITECTURES={architecture(capability)}",
        f"-DCMAKE_CUDA_COMPILER={nvcc}",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-Dpybind11_DIR={Path(pybind.origin).parent / 'share' / 'cmake' / 'pybind11'}",
    ]  # fmt: skip


def built_core() -> Path:
    """The native module in the build folder."""
    found = sorted(FOLDER.glob("_core*.so"))
    if len(found) != 1:
        raise StageError(f"expected one _core*.so in {FOLDER.relative_to(ROOT)}, found {len(found)}")
    return found[0]


def native_tests() -> Path | None:
    """The native tests' program, where it was built."""
    return next((p for p in FOLDER.rglob("nsrt_native_tests") if p.is_file()), None)


def build(log: Log, seconds: float, capability: str) -> dict[str, Any]:
    """Configures and builds `_core` and `nsrt_native_tests` in build/gpu."""
    configure = configure_command(capability)
    log.must(configure, seconds)
    left = seconds - sum(c["seconds"] for c in log.commands)
    jobs = str(os.cpu_count() or 4)
    log.must([configure[0], "--build", str(FOLDER), "--target", "_core", "nsrt_native_tests", "--parallel", jobs], left)
    return {"architecture": architecture(capability), "core": built_core().name}
