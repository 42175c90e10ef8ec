"""Backbone steps by llama.cpp, through the C API that llama-cpp-python declares."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nextstep_rt import Error

CHUNK = 256  # columns of a prompt in one call
PADDING = 256  # llama.cpp rounds a sequence's positions up to it
ERROR_LEVEL = 3
CACHE_TYPES = {"bfloat16": 30, "float32": 0}  # of ggml's types


@dataclass
class Library:
    """The ctypes module, and what llama.cpp logged as an error since the last look."""

    api: Any
    errors: list[str] = field(default_factory=list)
    log: Any = None

    def failure(self, what: str) -> Error:
        """An error that ends with llama.cpp's own words."""
        said = "; ".join(self.errors[-2:]) or "it does not say why"
        self.errors.clear()
        return Error(f"{what}: {said}")


@cache
def library() -> Library:
    """llama.cpp, loaded and silenced. Raises what importing llama_cpp does."""
    api = import_module("llama_cpp")
    found = Library(api)

    def keep(level: int, text: bytes, _: Any) -> None:
        if level == ERROR_LEVEL:
            found.errors.append(text.decode(errors="replace").strip())

    found.log = api.llama_log_callback(keep)  # called as long as the library lives
    api.llama_log_set(found.log, ctypes.c_void_p(0))
    api.llama_backend_init()
    return found


def features() -> tuple[str, ...]:
    """What the library was built with, of those that this CPU has, e.g. ("AVX2", "AVX512_BF16", "OPENMP")."""
    told = library().api.llama_print_system_info().decode(errors="replace")
    pairs = (part.rsplit(":", 1)[-1].split("=") for part in told.split("|") if "=" in part)
    return tuple(name.strip() for name, on in pairs if on.strip() == "1")


class Model:
    """A GGUF file, read into memory: nothing of the file is needed once this is made."""

    def __init__(self, path: Path) -> None:
        """Raises `Error` with llama.cpp's reason where it cannot load the file."""
        self.library = library()
        api = self.library.api
        params = api.llama_model_default_params()
        params.n_gpu_layers = 0
        params.load_mode = api.LLAMA_LOAD_MODE_NONE  # memory of its own, as the native loop's weights here
        self.pointer = api.llama_model_load_from_file(str(path).encode(), params)
        if not self.pointer:
            raise self.library.failure("llama.cpp cannot load the backbone")
        weakref.finalize(self, api.llama_model_free, self.pointer)
        self.width = int(api.llama_model_n_embd(self.pointer))


class Context:
    """So many sequences of a model, each with a cache of its own."""

    def __init__(self, model: Model, rows: int, positions: int, threads: int, dtype: str) -> None:
        """positions: the most a row will have; dtype: of the cache. Raises `Error` where llama.cpp makes none."""
        self.model, self.rows = model, rows
        self.library, api = model.library, model.library.api
        params = api.llama_context_default_params()
        params.n_ctx = rows * -(-positions // PADDING) * PADDING
        params.n_batch = params.n_ubatch = CHUNK
        params.n_seq_max = rows
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = CACHE_TYPES[dtype]
        # Its flash attention reads a float32 cache as float16: less is computed, and not the same.
        flash = "DISABLED" if dtype == "float32" else "AUTO"
        params.flash_attn_type = getattr(api, f"LLAMA_FLASH_ATTN_TYPE_{flash}")
        params.embeddings = True  # the hidden states after the last norm
        params.pooling_type = api.LLAMA_POOLING_TYPE_NONE
        self.pointer = api.llama_init_from_model(model.pointer, params)
        if not self.pointer:
            raise self.library.failure(f"llama.cpp makes no context of {rows} rows of {positions} positions")
        weakref.finalize(self, api.llama_free, self.pointer)
        self.batch = api.llama_batch_init(CHUNK, model.width, 1)
        weakref.finalize(self, api.llama_batch_free, self.batch)

    def clear(self) -> None:
        """Forgets the sequences."""
        api = self.library.api
        api.llama_memory_clear(api.llama_get_memory(self.pointer), False)

    def put(self, embeds: np.ndarray, rows: Sequence[int], positions: Sequence[int]) -> None:
        """What the next step computes: columns [n, width] float32, each of a row and at a position, n <= CHUNK."""
        batch, count = self.batch, len(embeds)
        np.ctypeslib.as_array(batch.embd, (CHUNK, self.model.width))[:count] = embeds
        batch.n_tokens = count
        for i, (row, position) in enumerate(zip(rows, positions, strict=True)):
            batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = position, 1, row, 1

    def step(self) -> None:
        """Computes what was put. Raises `Error` where llama.cpp fails."""
        api = self.library.api
        code = api.llama_decode(self.pointer, self.batch)
        if code:
            raise self.library.failure(f"llama.cpp failed in a step, with code {code}")
        api.llama_synchronize(self.pointer)

    def prefill(self, embeds: np.ndarray) -> None:
        """The prompts: embeds [rows, positions, width] float32, from position 0 on."""
        self.clear()
        for row, prompt in enumerate(embeds):
            for at in range(0, len(prompt), CHUNK):
                part = prompt[at : at + CHUNK]
                self.put(part, [row] * len(part), range(at, at + len(part)))
                self.step()

    def hidden(self, count: int) -> np.ndarray:
        """The last step's first columns after the final norm: float32 [count, width]."""
        get, width = self.library.api.llama_get_embeddings_ith, self.model.width
        return np.stack([np.ctypeslib.as_array(get(self.pointer, i), (width,)).copy() for i in range(count)])
