"""What figures were measured on and with: the machine, the software, the commit."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
PACKAGES = ("torch", "numpy", "matplotlib")
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def machine() -> dict[str, Any]:
    """CPU, cores, caches and memory in bytes, instruction set level, kernel; None for what cannot be told."""
    import psutil  # type: ignore[import-untyped]

    from nextstep_rt import _core

    from .pinning import usable_cores

    return {
        "cpu": _cpu_name(),
        "cores": len(usable_cores()) or os.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "caches": [dict(cache) for cache in caches()],
        "memory_bytes": psutil.virtual_memory().total,
        "isa": _core.isa(),
        "kernel": platform.release(),
    }


def software() -> dict[str, Any]:
    """Versions, the native module's compiler, and the commit of the source tree this runs in, where there is one."""
    from nextstep_rt import _core

    build = _core.build_info()
    commit = _git("rev-parse", "HEAD")
    return {
        "version": build["version"],
        "commit": commit,
        # Results that a run before this one wrote change nothing that is measured.
        "dirty": None
        if commit is None
        else bool(_git("status", "--porcelain", "--", ":/", ":(top,exclude)bench/results")),
        "compiler": build["compiler"],
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
    }


@cache
def caches() -> tuple[dict[str, Any], ...]:
    """Data caches as the first core sees them: level, bytes, and how many cores share one. Empty where not told."""
    found = []
    for index in sorted(CACHES.glob("index*")):
        try:
            kind, level, size, shared = (
                (index / name).read_text(encoding="ascii").strip()
                for name in ("type", "level", "size", "shared_cpu_list")
            )
        except OSError:
            continue
        match = re.fullmatch(r"(\d+)([KMG]?)", size)
        if kind != "Instruction" and match:
            number = int(match[1]) * UNITS[match[2]]
            found.append({"level": int(level), "bytes": number, "cores": _count(shared)})
    return tuple(sorted(found, key=lambda item: item["level"]))


def last_cache() -> int:
    """Bytes of the last cache; 32 MiB where the system does not tell, which most servers have."""
    return int(caches()[-1]["bytes"]) if caches() else 32 << 20


def _count(cores: str) -> int:
    """How many cores "0-3,8" names."""
    spans = [part.split("-") for part in cores.split(",") if part]
    return sum(int(span[-1]) - int(span[0]) + 1 for span in spans)


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or "unknown"
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else platform.machine()


def _git(*arguments: str) -> str | None:
    """What git says of this source tree; None in an installed package, or without git."""
    if not (ROOT / "pyproject.toml").is_file():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
