"""llama.cpp, of the backbone alone: all rows in one llama_decode, from embeddings to the hidden states after the norm.

Its model is a GGUF file with the same weights, read into memory and deleted. A row's cache has the weights' dtype.
"""

from __future__ import annotations

import tempfile
import time
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from shutil import disk_usage

import numpy as np

from nextstep_rt import Error, _core

from ..loop import WARM_UP, Load
from ..results import SEED
from ..subject import KEEP_FREE, Subject
from . import gguf_file, llama_api
from .backbone import Scope

NAME = "llama.cpp"
WHAT = "llama.cpp, the backbone alone"
SCOPE: Scope = "backbone"
PACKAGE = "llama-cpp-python"
NEEDS = {"llama_cpp": PACKAGE, "gguf": "gguf"}
INSTALL = 'pip install "nextstep-rt[peers]", which compiles it for this CPU and takes minutes'


def missing(subject: Subject) -> str | None:
    """The packages, or a shape that its qwen2 knows, or the memory for a second copy of the weights."""
    absent = [package for module, package in NEEDS.items() if find_spec(module) is None]
    if absent:
        return f"it needs {' and '.join(absent)}: {INSTALL}"
    try:
        api = llama_api.library().api
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return f"{PACKAGE} cannot be loaded ({error}): install it again, {INSTALL}"
    if not hasattr(api, "LLAMA_LOAD_MODE_NONE"):
        return f"{PACKAGE} {version()} is too old: {INSTALL}"
    if (reason := gguf_file.unlike(subject.config)) is not None:
        return f"its qwen2 does not hold this shape: {reason}"
    if subject.what == "one layer shared by all":
        return "its file cannot share one layer among all: give a shape whose layers fit in memory"
    return _too_large(subject)


def _too_large(subject: Subject) -> str | None:
    from nextstep_rt.config import byte_size

    needed = gguf_file.file_bytes(subject.config, subject.dtype)
    folder = tempfile.gettempdir()
    places = (("memory", KEEP_FREE * int(_core.available_memory())), (f"disk in {folder}", disk_usage(folder).free))
    for place, room in places:
        if 0 < room < needed:
            return f"another copy of the weights needs {byte_size(needed)} of {place}, which has {byte_size(int(room))}"
    return None


def version() -> str | None:
    """Of the Python package, which names the llama.cpp in it."""
    try:
        return f"{PACKAGE} {metadata.version(PACKAGE)}"
    except metadata.PackageNotFoundError:
        return None


def wanted(dtype: str, isa: str) -> str | None:
    """What a build must have to use the products of weights in `dtype` that the native kernels use at level `isa`."""
    if "bf16" in isa and dtype == "bfloat16":
        return "AVX512_BF16"
    for level, feature in (("avx512", "AVX512"), ("amx", "AVX512"), ("avx2", "AVX2")):
        if isa.startswith(level):
            return feature
    return None


class Llama:
    """A loaded backbone; its context is made for a load, and kept until another one is asked for."""

    def __init__(self, subject: Subject, threads: int) -> None:
        """Raises `Error` where the file cannot be written or llama.cpp cannot load it."""
        self.dtype, self.threads = subject.dtype, threads
        with tempfile.TemporaryDirectory(prefix="nextstep_rt-") as folder:
            path = Path(folder) / "backbone.gguf"
            try:
                gguf_file.write_backbone(path, subject.config, subject.weights, subject.dtype)
            except OSError as error:
                raise Error(
                    f"the backbone cannot be written to {path}: {error.strerror or error}; set TMPDIR to another folder"
                ) from None
            self.model = llama_api.Model(path)
        built = llama_api.features()
        vectors = [name for name in built if name.startswith(("AVX", "AMX", "NEON", "SVE"))]
        self.how: str | None = f"built with {', '.join(vectors) or 'no vector instructions'}; cache in {self.dtype}"
        needed = wanted(subject.dtype, str(_core.isa()))
        self.caveat: str | None = None
        if needed is not None and needed not in built:
            self.caveat = f"its build lacks {needed}, which native uses: compile it on this machine"
        self._load: Load | None = None
        self._context: llama_api.Context | None = None

    def context(self, load: Load) -> llama_api.Context:
        """The context of this load, prefilled with its prompts."""
        if self._context is None or self._load != load:
            self._context = None  # frees the last one's cache first
            self._context = llama_api.Context(self.model, load.rows, load.last, self.threads, self.dtype)
            self._load = load
        shape = (load.rows, load.positions, self.model.width)
        self._context.prefill(np.random.default_rng(SEED).standard_normal(shape).astype(np.float32))
        return self._context

    def token_seconds(self, load: Load) -> float:
        """Mean seconds of a step of one run, at the positions at which the native loop's tokens take theirs."""
        context, rows = self.context(load), range(load.rows)
        embeds = np.random.default_rng(SEED + 1).standard_normal((load.rows, self.model.width)).astype(np.float32)
        taken = []
        for position in range(load.positions, load.last - 1):  # the first token has no backbone step
            context.put(embeds, rows, [position] * load.rows)
            begin = time.perf_counter()
            context.step()
            taken.append(time.perf_counter() - begin)
        timed = taken[WARM_UP - 1 :]
        return sum(timed) / len(timed)


def prepare(subject: Subject, threads: int) -> Llama:
    """Copies the backbone's weights."""
    return Llama(subject, threads)
