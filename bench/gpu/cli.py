"""The command: which stages run, for how long, and what is kept of them."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .build import build, built_core
from .core import is_emulated
from .correctness import run_tests, sanitize
from .figures import write_json
from .process import ROOT, TIMED_OUT, Log, StageError
from .report import EMULATED, add_roofs, figures_of, plot, readable

# Seconds each may take. What may hang, and what no figure needs, comes last.
LIMITS = {
    "device": 60, "build": 240, "kernels": 40, "correctness": 100, "roofs": 45, "engine": 110, "linear": 25,
    "prefill": 30, "torch": 70, "profile": 50, "sanitizers": 70,
}  # fmt: skip
WITHOUT_A_GPU = ("kernels", "correctness", "engine", "prefill")
CORE = "NSRT_CUDA_CORE"
TOTAL = 525


class Run:
    """One run of the command: the record that becomes gpu.json, and its stages."""

    def __init__(self, options: argparse.Namespace, core: Path | None) -> None:
        self.options, self.core = options, core
        self.emulated = core is not None and is_emulated(core)
        self.end = time.monotonic() + options.seconds
        options.out.mkdir(parents=True, exist_ok=True)
        self.log = Log(options.out / "gpu.log")
        self.log.path.write_text("", encoding="utf-8")
        self.record: dict[str, Any] = {
            "command": " ".join(["python -m bench gpu", *sys.argv[2:]]),
            "commit": options.commit or commit(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "emulated": self.emulated,
            "shape": options.shape,
            "dtype": "bfloat16",
            "stages": {},
        }
        if self.emulated:
            self.record["note"] = EMULATED

    def stage(self, name: str) -> None:
        """Runs one stage in the time that it has, and writes the record."""
        left = self.end - time.monotonic()
        seconds = left if self.emulated else min(LIMITS[name], left)
        print(f"{name} (at most {max(0, seconds):.0f} s) ...", flush=True)
        self.log.begin(name)
        begin, error, figures = time.monotonic(), None, dict[str, Any]()
        try:
            if seconds <= 1:
                raise StageError("no time was left for it")
            self._work(name)(figures, seconds)
        except StageError as failure:
            error = str(failure)
        except Exception as failure:  # whatever it is, the later stages go on and the record says it
            error = f"{type(failure).__name__}: {failure}"
        self.record["stages"][name] = {
            "ok": error is None,
            "error": error,
            "seconds": round(time.monotonic() - begin, 1),
            "limit": round(seconds, 1),
            "figures": figures,
            "commands": self.log.commands,
            "tail": self.log.tail,
        }
        if name in ("roofs", "engine", "profile"):
            add_roofs(self.record)
        write_json(self.options.out / "gpu.json", self.record)
        print(f"{name}: {'ok' if error is None else error}", flush=True)

    def _work(self, name: str) -> Callable[[dict[str, Any], float], None]:
        special: dict[str, Callable[[dict[str, Any], float], None]] = {
            "build": self._build, "correctness": self._correctness, "sanitizers": self._sanitizers,
        }  # fmt: skip
        return special.get(name, lambda figures, seconds: self._worker(name, figures, seconds))

    def _worker(self, name: str, figures: dict[str, Any], seconds: float) -> None:
        """A stage of worker.py; its figures are kept however it ends."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "figures.json"
            command = [sys.executable, "-m", "bench.gpu.worker", name, "--figures", str(path)]
            command += ["--shape", self.options.shape, "--seconds", f"{seconds:.0f}"]
            if name not in ("device", "roofs"):
                command += ["--core", str(self._module())]
            status = self.log.run(command, seconds, {"PYTHONUNBUFFERED": "1"})
            if path.is_file():
                figures.update(json.loads(path.read_text(encoding="utf-8")))
        if status == TIMED_OUT:
            raise StageError(f"took longer than {seconds:.0f} s and was ended")
        if status != 0:
            said = self.log.tail.strip().splitlines()
            raise StageError(said[-1] if said else f"failed with status {status}")

    def _module(self) -> Path:
        """The native module to measure; never one that an earlier run built and this one could not."""
        if not self.record["stages"].get("build", {"ok": True})["ok"]:
            raise StageError("there is no native module: the stage 'build' failed")
        return self.core or built_core()

    def _build(self, figures: dict[str, Any], seconds: float) -> None:
        if self.core is not None:
            figures["left_out"] = f"{CORE} names a module"
            return
        capability = figures_of(self.record, "device").get("capability")
        if capability is None:
            raise StageError("the stage 'device' did not say for which GPU")
        figures.update(build(self.log, seconds, capability))

    def _correctness(self, figures: dict[str, Any], seconds: float) -> None:
        begin = time.monotonic()
        done, failed = run_tests(self.log, seconds, self._module(), self.emulated)
        figures.update(done)
        if done["pytest"] is None:
            self._worker("goldens", figures, seconds - (time.monotonic() - begin))
        if failed:
            raise StageError("; ".join(failed))

    def _sanitizers(self, figures: dict[str, Any], seconds: float) -> None:
        self._module()
        figures.update(sanitize(self.log, seconds))


def commit() -> str:
    """What is measured; "unknown" outside a git checkout, "-changed" where files differ from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    head = git("rev-parse", "HEAD")
    return "unknown" if not head else head + ("-changed" if git("status", "--porcelain") else "")


def why_not() -> str | None:
    """Why nothing can be measured here, or None."""
    if importlib.util.find_spec("numpy") is None or importlib.util.find_spec("torch") is None:
        return "it needs numpy and torch, and this Python lacks one of them"
    import torch

    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device"
    return None


def parser() -> argparse.ArgumentParser:
    """The options; the shapes' names are checked by the stages."""
    made = argparse.ArgumentParser(
        prog="python -m bench gpu",
        description="Builds, checks and measures the CUDA backend on this machine's GPU, in under nine minutes.",
        epilog=f"{CORE}=FILE measures that native module instead of building one. Exit status: 0 all stages went "
        "well, 1 some did not (gpu.json says which), 2 nothing could be measured.",
    )
    made.add_argument("--out", type=Path, required=True, help="folder for gpu.json, gpu.png and gpu.log")
    made.add_argument("--only", action="append", choices=list(LIMITS), help="this stage alone; may be repeated")
    made.add_argument("--shape", default="14b", choices=["14b", "200m", "tiny"], help="model with random weights")
    made.add_argument("--seconds", type=float, default=TOTAL, help="for all stages together (%(default)s)")
    made.add_argument("--commit", help="what to write as the commit, where git cannot say")
    return made


def stages(only: list[str] | None, emulated: bool) -> list[str]:
    """The stages to run, in order; building needs to know the device."""
    if only is None:
        return ["engine"] if emulated else list(LIMITS)
    wanted = {*only, *(("device",) if "build" in only else ())}
    return [name for name in LIMITS if name in wanted]


def main(arguments: list[str]) -> int:
    """Returns the exit status."""
    options = parser().parse_args(arguments)
    core = Path(os.environ[CORE]).resolve() if CORE in os.environ else None
    if core is not None and not core.is_file():
        print(f"python -m bench gpu: {CORE} names no file: {core}", file=sys.stderr)
        return 2
    reason = None if core is not None else why_not()
    if reason is not None:
        print(f"python -m bench gpu: {reason}; nothing was built", file=sys.stderr)
        return 2
    run = Run(options, core)
    chosen = stages(options.only, run.emulated)
    if run.emulated and (unfit := [name for name in chosen if name not in WITHOUT_A_GPU]):
        print(f"python -m bench gpu: emulated kernels have no stage {', '.join(unfit)}", file=sys.stderr)
        return 2
    for name in chosen:
        run.stage(name)
    print("\n" + readable(run.record))
    no_plot = plot(run.record, options.out / "gpu.png")
    print(f"\n{no_plot or options.out / 'gpu.png'}\n{options.out / 'gpu.json'}")
    return 0 if all(stage["ok"] for stage in run.record["stages"].values()) else 1
