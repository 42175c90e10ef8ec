"""Damaged safetensors files: only CheckpointError may come out, and what the safetensors library refuses is refused.

Ours may refuse more: keys given twice, ranks over 16, dtypes other than float32 and bfloat16, tensors that do not fit
config.json, tensors that are missing.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from kit.models import config_of, random_weights, stored_as, write_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file

from nextstep_rt import Checkpoint, CheckpointError

TINY = {
    "hidden_size": 4,
    "intermediate_size": 3,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "attention_bias": False,
    "vocab_size": 6,
    "latent_channels": 1,
    "fm_head_dim": 2,
    "fm_head_layers": 1,
    "fm_head_mlp_ratio": 1.0,
}
WEIGHTS = random_weights(config_of(**TINY))
MIXED = {n: (WEIGHTS if i % 2 else stored_as(WEIGHTS, "bfloat16"))[n] for i, n in enumerate(WEIGHTS)}
fuzz = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


class File:
    """A good file's bytes, in parts; short when printed."""

    def __init__(self, data: bytes) -> None:
        size = struct.unpack("<Q", data[:8])[0]
        self.all, self.header, self.data = data, data[8 : 8 + size], data[8 + size :]

    def __repr__(self) -> str:
        return f"<{len(self.all)} bytes>"

    def with_header(self, header: bytes) -> bytes:
        return struct.pack("<Q", len(header)) + header + self.data


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("fuzz"), MIXED, **TINY)


@pytest.fixture(scope="module")
def good(folder: Path) -> File:
    return File((folder / "model.safetensors").read_bytes())


def library_refuses(file: Path) -> str:
    """What the safetensors library says against the file; empty where it takes it."""
    try:
        with safe_open(file, "pt") as opened:
            list(opened.keys())
    except Exception as error:  # it has its own class, and others for what its bindings cannot convert
        return f"{type(error).__name__}: {error}"
    return ""


def check(folder: Path, data: bytes) -> bool:
    """Whether ours takes the bytes; fails where the library does not, or where the contents differ."""
    # Another file each time: a mapped one must not be changed, and maps may outlive this call.
    file = folder / "model.safetensors"
    file.unlink(missing_ok=True)
    file.write_bytes(data)
    refusal = library_refuses(file)
    checkpoint, error = None, ""
    try:
        checkpoint = Checkpoint(str(folder))
    except CheckpointError as refused:
        error = str(refused)
    if checkpoint is None:
        assert 10 < len(error) < 4000
        return False
    assert not refusal, f"taken, but the safetensors library says: {refusal}"
    library = load_file(file)
    for name in checkpoint:
        got, want = torch.from_dlpack(checkpoint[name]), library.get(name, library.get("model." + name))
        assert want is not None
        assert got.dtype == want.dtype
        assert torch.equal(got.contiguous().view(torch.uint8), want.contiguous().view(torch.uint8)), name
    checkpoint.verify()
    return True


def test_the_whole_file_is_taken(folder: Path, good: File) -> None:
    assert check(folder, good.all)


PIECES = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b",", b":", b"0", b"-1", b"1e9", b"9223372036854775807", b"18446744073709551616",
     b"null", b"true", b"\\u0000", b"\\ud800", b"F32", b"BF16", b"F16", b"I64", b"1.5", b'"a":', b" ", b"\n", b"\0",
     b"\xff", b"\xc3\xa9", b'"__metadata__":{"a":"b"},', b'"__metadata__":{"a":1},']
)  # fmt: skip
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "delete", "insert", "replace", "copy", "cut"]),
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 255),
        PIECES,
    ),
    min_size=1,
    max_size=3,
)


def edited(data: bytes, edits: list[tuple[str, float, int, bytes]], reach: int) -> bytes:
    out = bytearray(data)
    for kind, where, number, piece in edits:
        at = int(where * min(reach, len(out)))
        if kind == "flip" and out:
            out[at] ^= 1 << number % 8
        elif kind == "set" and out:
            out[at] = number
        elif kind == "delete":
            del out[at : at + 1 + number % 12]
        elif kind == "insert":
            out[at:at] = piece
        elif kind == "replace":
            out[at : at + len(piece)] = piece
        elif kind == "copy":
            out[at:at] = out[at : at + number % 40]
        elif kind == "cut":
            del out[at:]
    return bytes(out)


@fuzz
@given(edits=EDITS, reach=st.sampled_from([8, 16, 400, 1 << 30]))
def test_damaged_files(folder: Path, good: File, edits: Any, reach: int) -> None:
    check(folder, edited(good.all, edits, reach))


@fuzz
@given(edits=EDITS, reach=st.sampled_from([300, 1 << 30]))
def test_damaged_headers_of_the_right_length(folder: Path, good: File, edits: Any, reach: int) -> None:
    check(folder, good.with_header(edited(good.header, edits, reach)))


ENTRY = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "F16", "F64", "I8", "BOOL", "F8_E4M3", "f32", "", None, 3]),
        "shape": st.one_of(
            st.lists(st.sampled_from([0, 1, 2, 4, 6, 2**31, 2**63 - 1, 2**64, -1, 1.0, "4", None]), max_size=4),
            st.just([1] * 20),
            st.sampled_from([None, 4, "4"]),
        ),
        "data_offsets": st.lists(
            st.sampled_from([0, 1, 4, 8, 16, 100, 2**63, 2**64, -1, 0.0, None]), min_size=1, max_size=3
        ),
        "extra": st.sampled_from([1, None, [[]]]),
    },
)


@fuzz
@example(changes={"__metadata__": {"format": 1}}, drop=[])
@example(changes={"__metadata__": {"format": None}}, drop=[])
@example(changes={"__metadata__": "pt"}, drop=[])
@example(changes={"__metadata__": ["pt"]}, drop=[])
@example(changes={"__metadata__": None}, drop=[])
@example(changes={"__metadata__": {"format": "pt"}}, drop=[])
@example(changes={"position_ids": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}, drop=[])
@example(changes={"position_ids": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, drop=[])
@given(
    changes=st.dictionaries(
        st.sampled_from([*WEIGHTS, "__metadata__", "extra", "position_ids", ""]), ENTRY, max_size=3
    ),
    drop=st.lists(st.sampled_from(sorted(WEIGHTS)), max_size=2),
)
def test_wrong_entries(folder: Path, good: File, changes: dict[str, Any], drop: list[str]) -> None:
    entries = json.loads(good.header)
    for name, change in changes.items():
        entries[name] = {**entries.get(name, {}), **change} if isinstance(change, dict) else change
    for name in drop:
        entries.pop(name, None)
    check(folder, good.with_header(json.dumps(entries).encode()))


def test_every_truncation(folder: Path, good: File) -> None:
    start, end = 8 + len(good.header), len(good.all)
    for length in [*range(24), *range(24, start, 97), *range(start, end, 211), end - 1]:
        assert not check(folder, good.all[:length]), f"{length} of {end} bytes were taken"


@pytest.mark.parametrize("header", [0, 1, 7, 10**8, 10**8 + 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1])
def test_header_lengths(folder: Path, good: File, header: int) -> None:
    assert not check(folder, struct.pack("<Q", header) + good.all[8:])


@pytest.mark.parametrize("data", [b"", b"{}", b"\0" * 8, b"\0" * 100, struct.pack("<Q", 2) + b"{}"])
def test_files_without_tensors(folder: Path, data: bytes) -> None:
    assert not check(folder, data)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'"shape":[4]', b'"shape":[04]'),
        (b'"shape":[4]', b'"shape":[+4]'),
        (b'"shape":[4]', b'"shape":[4.0]'),
        (b'"shape":[4]', b'"shape":[4e0]'),
        (b'"shape":[4]', b'"shape":[4,]'),
        (b'"shape":[4]', b'"shape":[4],"shape":[4]'),
        (b'"data_offsets":[0,', b'"data_offsets":[-0,'),
        (b'"data_offsets":[0,', b'"data_offsets":[0,0,'),
        (b'{"', b' {"'),
        (b'{"', b'\xef\xbb\xbf{"'),
        (b'{"', b'{//\n"'),
        (b'"dtype":"F32"', b'"dtype":"F32\\u0000"'),
        (b'"norm.weight"', b'"norm.weight\\ud800"'),
        (b'"norm.weight"', b'"norm\\u002eweight"'),
        (b'"norm.weight"', b"'norm.weight'"),
    ],
)
def test_almost_json(folder: Path, good: File, before: bytes, after: bytes) -> None:
    assert before in good.header
    check(folder, good.with_header(good.header.replace(before, after, 1)))
