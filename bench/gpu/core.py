"""The native module under test, in the place of whatever is installed."""

from __future__ import annotations

import ctypes
import importlib.util
import sys
from pathlib import Path
from typing import Any

EMULATED_SMS = 5  # few, so that emulation is quick


def load_core(path: Path) -> Any:
    """Loads the native module at `path` as nextstep_rt._core; before anything imports that."""
    spec = importlib.util.spec_from_file_location("nextstep_rt._core", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no native module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def is_emulated(path: Path) -> bool:
    """Whether the CPU runs the kernels of the module at `path`."""
    return b"nsrt_emu_set_sm_count" in path.read_bytes()


def make_emulator_small(path: Path) -> None:
    """Fewer multiprocessors than the emulator begins with."""
    ctypes.CDLL(str(path)).nsrt_emu_set_sm_count(EMULATED_SMS)
