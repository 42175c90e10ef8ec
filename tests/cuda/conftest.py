"""The CUDA backend's tests. They run where there is a GPU, or where NSRT_CUDA_CORE names a native module whose kernels
the CPU runs (built with NSRT_CUDA=EMULATED or EMULATED_RACE); without either they are not collected.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2]))  # bench is not installed

from bench.gpu.core import load_core

STEP_BUDGET, MEMORY_LIMIT = 1 << 33, 512 << 20  # as the emulator begins
CORE = os.environ.get("NSRT_CUDA_CORE")
SHARED_KB = int(os.environ.get("NSRT_EMU_SHARED_KB", "227"))  # that a block of the emulated device may have


if CORE is not None:
    load_core(Path(CORE).resolve())
elif importlib.import_module("nextstep_rt._core").build_info()["cuda"] != "on":
    collect_ignore_glob = ["test_*.py"]


class Emulator:
    """The controls of tests/emu/include/emu/control.h."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._library.nsrt_emu_last_failure.restype = ctypes.c_char_p
        self._library.nsrt_emu_launches.restype = ctypes.c_char_p
        for function in ("nsrt_emu_set_memory_limit", "nsrt_emu_set_shared_limit"):
            getattr(self._library, function).argtypes = [ctypes.c_size_t]
        for function in ("nsrt_emu_set_seed", "nsrt_emu_set_step_budget"):
            getattr(self._library, function).argtypes = [ctypes.c_uint64]

    @property
    def race_mode(self) -> bool:
        return bool(self._library.nsrt_emu_race_mode())

    def set_seed(self, seed: int) -> None:
        self._library.nsrt_emu_set_seed(seed)

    def set_sm_count(self, count: int) -> None:
        self._library.nsrt_emu_set_sm_count(count)

    def set_shared_limit(self, bytes_: int) -> None:
        self._library.nsrt_emu_set_shared_limit(bytes_)

    def set_step_budget(self, steps: int) -> None:
        self._library.nsrt_emu_set_step_budget(steps)

    def set_memory_limit(self, bytes_: int) -> None:
        self._library.nsrt_emu_set_memory_limit(bytes_)

    def fail_next(self, function: str, error: int, after: int = 0) -> None:
        self._library.nsrt_emu_fail_next(function.encode(), error, after)

    def last_failure(self) -> str:
        return str(self._library.nsrt_emu_last_failure().decode())

    def launches(self) -> dict[str, int]:
        lines = self._library.nsrt_emu_launches().decode().splitlines()
        return {name: int(count) for count, name in (line.split(" ", 1) for line in lines)}

    def reset_launches(self) -> None:
        self._library.nsrt_emu_reset_launches()

    def reset(self) -> None:
        self._library.nsrt_emu_reset()


@pytest.fixture(scope="session")
def emulator() -> Any:
    """Of the native module in use; skips on a real GPU."""
    if CORE is None:
        pytest.skip("this asks the emulator for what a GPU cannot be asked for")
    return Emulator(str(Path(CORE).resolve()))


@pytest.fixture(autouse=True)
def few_multiprocessors() -> Iterator[None]:
    """Work splits between blocks in more than one way on a small device, which is also quicker to emulate."""
    if CORE is None:
        yield
        return
    control = Emulator(str(Path(CORE).resolve()))
    control.set_sm_count(5)
    control.set_shared_limit(SHARED_KB << 10)
    yield
    control.set_seed(0)
    control.set_step_budget(STEP_BUDGET)
    control.set_memory_limit(MEMORY_LIMIT)
    control.reset()
