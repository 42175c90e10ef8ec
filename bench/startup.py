"""How long it takes until something can be drawn, each time in an interpreter of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nextstep_rt
from nextstep_rt import Error

from .measure import Policy, Sample

SECONDS = 600  # of one interpreter
# What importing the package must not bring: each costs more than the package itself, torch ten times as much.
HEAVY = ("torch", "numpy", "nextstep_rt._core")
TARGETS = {"import": 0.1, "ready": 1.0, "pipeline": 1.0}  # seconds; shown beside the times, asserted nowhere

IMPORT = """
import sys, time
begin = time.perf_counter()
import nextstep_rt
end = time.perf_counter()
import json
print(json.dumps({"import": end - begin, "loaded": [name for name in sys.argv[1:] if name in sys.modules]}))
"""

# The parts of "ready" are those up to the engine: then prefill can be called, which reads every weight of the backbone.
ENGINE = """
import sys, time
stamps = [time.perf_counter()]
mark = lambda: stamps.append(time.perf_counter())
import nextstep_rt
mark()
from nextstep_rt import Checkpoint, Engine, SamplingParams
import numpy as np
mark()
folder, dtype, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
checkpoint = Checkpoint(folder)
mark()
engine = Engine(checkpoint.config, checkpoint, dtype=dtype, threads=threads)
mark()
held = open("/proc/self/status").read()
embeds = engine.embed_tokens(np.array([checkpoint.config.boi]))
engine.prefill(embeds.reshape(1, 1, -1), max_new_tokens=1)
mark()
token = engine.decode(SamplingParams(num_tokens=1, num_inference_steps=1, guidance_scale=1.0), seeds=[0])
mark()
import json, math, re
assert all(map(math.isfinite, token.ravel().tolist())), "the token is not finite"
names = ("import", "native", "open", "engine", "prefill", "token")
print(json.dumps({
    "phases": dict(zip(names, (b - a for a, b in zip(stamps, stamps[1:])))),
    "loaded": ["torch"] if "torch" in sys.modules else [],
    "converted_bytes": engine.memory()["converted"],
    "weight_bytes": engine.memory()["weights"],
    "private_bytes": 1024 * int(re.search(r"RssAnon:\\s+(\\d+) kB", held)[1]),
}))
"""

PIPELINE = """
import sys, time
begin = time.perf_counter()
from nextstep_rt import Pipeline
pipeline = Pipeline.from_pretrained(sys.argv[1], device="cpu", dtype=sys.argv[2], threads=int(sys.argv[3]))
end = time.perf_counter()
import json
print(json.dumps({"pipeline": end - begin, "loaded": ["torch"] if "torch" in sys.modules else []}))
"""

PHASES = ("import", "native", "open", "engine", "prefill", "token")
READY = PHASES[:4]


@dataclass(frozen=True)
class Fresh:
    """Interpreters that start anew, with the package as this one found it."""

    python: str = sys.executable

    def run(self, code: str, *arguments: str) -> dict[str, Any]:
        """What `code` prints as JSON, and "process": seconds from before it started to its end.

        Raises `Error` where it fails, with the last line it wrote.
        """
        found = [str(Path(folder).parent) for folder in nextstep_rt.__path__]
        path = os.pathsep.join([*found, os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        # A shell may forbid bytecode to be written; users have it.
        env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
        begin = time.perf_counter()
        try:
            done = subprocess.run(
                [self.python, "-c", code, *arguments], capture_output=True, text=True, check=False, timeout=SECONDS,
                env={**env, "PYTHONPATH": path},
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Error(f"{self.python} could not be measured: {error}") from None
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no output"])[-1]
            raise Error(f"the start that was to be measured ended with {done.returncode}: {last}")
        return {**json.loads(done.stdout), "process": time.perf_counter() - begin}


def measure_import(policy: Policy, fresh: Fresh) -> dict[str, Any]:
    """Seconds of `import nextstep_rt`, and of a whole process with it. Raises `Error` where it brings what is heavy."""
    fresh.run(IMPORT)  # writes the bytecode
    runs = [fresh.run(IMPORT, *HEAVY) for _ in range(policy.runs)][policy.warmup :]
    refuse([name for run in runs for name in run["loaded"]], "import nextstep_rt")
    return {name: Sample(tuple(run[name] for run in runs), policy.max_spread) for name in ("import", "process")}


def measure_folder(folder: Path, dtype: str, threads: int, policy: Policy, fresh: Fresh) -> dict[str, Any]:
    """From a checkpoint's folder to an engine, its first token, and, apart, to a pipeline; memory beside them.

    The warm-ups bring the files into the page cache, as the first token reads almost all of them. Raises `Error` where
    torch is loaded on the way, or weights were copied.
    """
    arguments = (str(folder), dtype, str(threads))
    runs, pipelines = [], []
    for _ in range(policy.runs):  # in turn: what else the machine does meets both
        runs.append(fresh.run(ENGINE, *arguments))
        pipelines.append(fresh.run(PIPELINE, *arguments))
    runs, pipelines = runs[policy.warmup :], pipelines[policy.warmup :]
    refuse([name for run in (*runs, *pipelines) for name in run["loaded"]], "loading a checkpoint")
    if any(run["converted_bytes"] for run in runs):
        raise Error(f"weights were converted to {dtype}, and none had to be: {runs[0]['converted_bytes']} bytes")

    def sample(seconds: Sequence[float]) -> Sample:
        return Sample(tuple(seconds), policy.max_spread)

    whole = sample([sum(run["phases"].values()) for run in runs])
    return {
        "phases": {name: sample([run["phases"][name] for run in runs]).part_of(whole) for name in PHASES},
        "ready": sample([sum(run["phases"][name] for name in READY) for run in runs]).to_json(),
        "first_token": whole.to_json(),
        "pipeline": sample([run["pipeline"] for run in pipelines]).to_json(),
        "weight_bytes": runs[0]["weight_bytes"],
        "private_bytes": max(run["private_bytes"] for run in runs),
    }


def refuse(loaded: Sequence[str], what: str) -> None:
    """Raises `Error` where a start brought modules that it must do without."""
    if loaded:
        names = ", ".join(dict.fromkeys(loaded))
        raise Error(f"{what} also loads {names}: import it where it is used, `python -X importtime` shows from where")


def figures(started: Mapping[str, Sample], loaded: Mapping[str, Any], written: int) -> dict[str, Any]:
    """What the results keep."""
    return {
        "import": started["import"].to_json(),
        "process": started["process"].to_json(),
        **loaded,
        "file_bytes": written,
        "target_seconds": dict(TARGETS),
    }
