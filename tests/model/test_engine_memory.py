"""Memory that runs out within the engine is an Error, and the next request works; weights beyond it are refused."""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.commands import fails
from kit.isolated import run_python
from kit.models import SMALL

from nextstep_rt import Error, InvalidRequest, ModelConfig, Pipeline
from nextstep_rt.reference import expected_shapes

SETUP = """
import resource
import numpy as np
from kit.models import config_of, random_weights, sampling, stored_as
from nextstep_rt import Engine, Error

config = config_of(fm_head_dim=192, fm_head_layers=4, max_position_embeddings=100000)
embeds = np.random.default_rng(0).standard_normal((2, 3, config.hidden_size)).astype(np.float32)
few, many = (sampling(num_tokens=2, num_inference_steps=n, branches=1) for n in (3, 1000))
engine = Engine(config, stored_as(random_weights(config), "float32"), dtype="float32", threads=2)

def small():
    engine.prefill(embeds, max_new_tokens=2)
    return engine.decode(few, seeds=[1, 2])

def limited(extra, call):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.RLIM_INFINITY))
    try:
        call()
        return "done"
    except (Error, MemoryError) as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

want = small()
"""


def test_a_plan_that_did_not_fit_leaves_none_behind() -> None:
    code = (
        SETUP
        + """
engine.prefill(embeds, max_new_tokens=2)
first = engine.decode(few, 1, seeds=[1, 2])
said = limited(1 << 20, lambda: engine.decode(many, 1, seeds=[1, 2]))
assert "out of memory" in said, said
second = engine.decode(few, 1, seeds=[1, 2])
assert np.array_equal(np.concatenate([first, second], axis=1), want)
"""
    )
    run_python(code)


def test_rows_that_did_not_fit_leave_the_engine_usable() -> None:
    code = (
        SETUP
        + """
# Wherever within reserve() it fails: caches, partial sums or tables of angles.
answers = set()
for megabytes in (0, 8, 32, 64, 96, 128, 160, 200, 260, 340):
    answers.add(limited(megabytes << 20, lambda: engine.prefill(embeds, max_new_tokens=60000))[:13])
    assert np.array_equal(small(), want), megabytes
assert "out of memory" in answers, answers
"""
    )
    run_python(code)


# ---- weights beyond memory

SHAPE_14B = {
    "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 152064, "latent_channels": 16, "fm_head_dim": 1536,
    "fm_head_layers": 12, "fm_head_mlp_ratio": 1.0,
}  # fmt: skip


def sparse_checkpoint(folder: Path, **keys: Any) -> int:
    """A bfloat16 checkpoint whose file is a header and a hole: it takes no disk. Returns the bytes of its weights."""
    text = json.dumps({**SMALL, **keys})
    (folder / "config.json").write_text(text)
    header: dict[str, Any] = {}
    end = 0
    for name, shape in expected_shapes(ModelConfig.from_json(text)).items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    packed = json.dumps(header).encode()
    packed += b" " * (-len(packed) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(packed)) + packed)
        file.truncate(8 + len(packed) + end)
    return end


def cached_bytes(path: Path) -> int:
    """How much of a file is in the page cache, that is, has been read by anyone, mapped or not."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        resident = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
        address = ctypes.c_void_p(np.frombuffer(mapped, np.uint8).ctypes.data)
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(address, ctypes.c_size_t(len(mapped)), resident) == 0, ctypes.get_errno()
        return mmap.PAGESIZE * bytes(resident).count(1)


def refused(folder: Path, available: float, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Error:
    """What loading is refused with, on a machine with so many bytes; nothing but the header may be read for it."""
    monkeypatch.setattr("nextstep_rt._core.available_memory", lambda: int(available))
    weights = folder / "model.safetensors"
    before = cached_bytes(weights)
    clock = time.process_time()
    with pytest.raises(Error) as caught:
        Pipeline.from_pretrained(folder, device="cpu", **options)
    assert time.process_time() - clock < 1
    assert cached_bytes(weights) - before < 4 << 20  # what a page fault reads ahead
    return caught.value


def test_what_was_read_of_a_file_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "hole"
    with path.open("wb") as file:
        file.truncate(32 << 20)
    assert cached_bytes(path) == 0
    path.read_bytes()
    assert cached_bytes(path) == 32 << 20


def test_copies_of_a_14b_that_do_not_fit_are_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sparse_checkpoint(tmp_path, **SHAPE_14B) > 28e9
    error = refused(tmp_path, 40e9, monkeypatch, backend="reference", dtype="float32")
    assert isinstance(error, InvalidRequest)
    assert str(error) == (
        "loading the weights as float32 needs 56.7 GB and 40 GB are available: use backend='native' with "
        "dtype='bfloat16', which reads them from the file without a copy"
    )


@pytest.mark.parametrize("options", [{}, {"dtype": "float32"}, {"backend": "reference"}])
def test_a_14b_beyond_memory_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str]
) -> None:
    sparse_checkpoint(tmp_path, **SHAPE_14B)
    error = refused(tmp_path, 24e9, monkeypatch, **options)
    assert type(error) is Error
    assert str(error) == (
        "the weights take 28.4 GB and 24 GB of memory are available: every image token would read them from the disk "
        "again; free memory, or use a machine with more or a smaller model"
    )


def test_the_command_line_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sparse_checkpoint(tmp_path, **SHAPE_14B)
    monkeypatch.setattr("nextstep_rt._core.available_memory", lambda: int(24e9))
    said = fails("generate", "a", "--model", str(tmp_path), "-o", str(tmp_path / "a.png"), code=1)
    assert said.startswith("error: the weights take 28.4 GB and 24 GB of memory are available: ")
