"""torch.compile: the reference's functions over static buffers, a whole token one graph of inductor's.

The KV cache has a column for every position from the start, as a graph of fixed shapes needs; the prompt and the first
token, which has no backbone step, run eagerly. Compilation falls into the first run, which nobody times.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sysconfig
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nextstep_rt import Error

from ..loop import WARM_UP, Load, begin
from ..subject import Subject
from .backbone import Scope

NAME = "compile"
WHAT = "torch, torch.compile"
SCOPE: Scope = "token"


def missing(subject: Subject) -> str | None:
    """Inductor compiles C++ for the CPU: a compiler and Python's headers must be here."""
    import torch
    from torch._dynamo.eval_frame import is_dynamo_supported

    compiler = os.environ.get("CXX", "g++")  # as inductor looks for it
    if shutil.which(compiler) is None:
        return f"torch.compile needs a C++ compiler and there is no {compiler}: install g++, or name one with CXX=..."
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "torch.compile needs Python.h: install the headers of this Python (e.g. python3-dev)"
    if not is_dynamo_supported():
        return f"torch {torch.__version__} cannot compile on this Python: take another torch or Python"
    if subject.config.use_gen_pos_embed:
        return "the compiled token has no position embeddings, which this model asks for"
    return None


def version() -> str | None:
    """Of torch."""
    import torch

    return str(torch.__version__)


class _Prompt:
    """What `begin` prefills, kept: the graph is built for its shape."""

    def __init__(self, config: Any) -> None:
        self.config = config
        self.embeds = np.empty(0, np.float32)

    def prefill(self, embeds: np.ndarray, *, max_new_tokens: int) -> None:
        self.embeds = embeds


class Loop:
    """One prompt, prefilled once, and the compiled token that goes on from it."""

    def __init__(self, config: Any, weights: dict[str, Any], load: Load) -> None:
        import torch

        from nextstep_rt.reference.noise import noise_source

        from ..torch_graph import GraphToken

        prompt = _Prompt(config)
        params, seeds = begin(prompt, load)
        self.load, self.count = load, load.last - load.positions
        embeds = torch.from_numpy(prompt.embeds).to(weights["norm.weight"].dtype)
        with torch.no_grad():
            self.token = GraphToken(config, weights, params, embeds, self.count)
        shape = (self.count, 1 + load.steps, len(seeds), config.token_dim)
        self.noise = noise_source(shape, 0, None, list(seeds))
        # What a run leaves in the cache is overwritten before it is read: these two alone say where it starts.
        self.start = [(buffer, buffer.clone()) for buffer in (self.token.hidden, self.token.position)]
        self.next = torch.compile(self.token.next, fullgraph=True, dynamic=False)

    def run(self) -> tuple[list[float], np.ndarray]:
        """Every token from the prompt on: the seconds of each, and the tokens float32 [images, count, token_dim]."""
        import torch

        for buffer, kept in self.start:
            buffer.copy_(kept)
        made, stamps = [], [time.perf_counter()]
        for i in range(self.count):
            noise = torch.from_numpy(self.noise(i))
            made.append((self.next if i else self.token.first)(noise).numpy())
            stamps.append(time.perf_counter())
        return [b - a for a, b in pairwise(stamps)], np.stack(made, axis=1)


class Compiled:
    """The subject's weights; a graph is compiled when a load is first asked for, and kept until another one is."""

    how: str | None = "one graph a token"
    caveat: str | None = None

    def __init__(self, subject: Subject, threads: int) -> None:
        import torch

        from nextstep_rt.reference import load_weights

        kind = torch.bfloat16 if subject.dtype == "bfloat16" else torch.float32
        self.config, self.threads = subject.config, threads
        self.weights, _ = load_weights(subject.config, subject.weights, kind, torch.device("cpu"))
        self._loop: Loop | None = None

    def run(self, load: Load) -> tuple[list[float], np.ndarray]:
        """Seconds of each token, and the tokens [images, count, token_dim]. Raises `Error` where compilation fails."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)  # it is compiled into the kernels
        try:
            if self._loop is None or self._loop.load != load:
                self._loop = Loop(self.config, self.weights, load)
            return self._loop.run()
        except Error:
            raise
        except RuntimeError as error:  # whatever of dynamo's, inductor's or the compiler's
            said = str(error).strip().split("\n")[0]
            raise Error(f"torch.compile failed ({said}); name the other peers with --against") from error
        finally:
            torch.set_num_threads(before)

    def token_seconds(self, load: Load) -> float:
        """Median seconds of a token of one run, after its warm-up."""
        return statistics.median(self.run(load)[0][WARM_UP:])


def prepare(subject: Subject, threads: int) -> Compiled:
    """Borrows the weights where they have the subject's dtype."""
    return Compiled(subject, threads)
