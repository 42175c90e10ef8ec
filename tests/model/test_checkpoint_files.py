"""Checkpoint folders: contents, shards, links, damage found by verify, and tensors that outlive their Checkpoint."""

from __future__ import annotations

import gc
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.golden import CHECKPOINTS, ROOT, load_tensors
from kit.isolated import run_python
from kit.models import config_of, random_weights, stored_as, write_checkpoint
from safetensors.torch import load_file, save_file

from nextstep_rt import Checkpoint, CheckpointError

WEIGHTS = random_weights(config_of())
HALF = stored_as(WEIGHTS, "bfloat16")
INDEX = "model.safetensors.index.json"


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32)


def check_contents(checkpoint: Checkpoint, want: dict[str, torch.Tensor]) -> None:
    assert sorted(checkpoint.keys()) == sorted(want)
    assert list(checkpoint) == checkpoint.keys()
    assert len(checkpoint) == len(want)
    assert checkpoint.nbytes == sum(t.nbytes for t in want.values())
    for name, tensor in want.items():
        got = checkpoint[name]
        assert name in checkpoint
        assert got.shape == tuple(tensor.shape)
        assert got.dtype == str(tensor.dtype).removeprefix("torch.")
        assert got.nbytes == tensor.nbytes
        assert torch.equal(bits(torch.from_dlpack(got)), bits(tensor)), name


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_golden_contents(name: str) -> None:
    checkpoint = Checkpoint(str(ROOT / name / "model"))
    check_contents(checkpoint, load_tensors(name))
    assert checkpoint.verify() == []
    assert all(os.path.isabs(file) for file in checkpoint.files)
    assert "nothing" not in checkpoint
    with pytest.raises(KeyError, match="nothing"):
        checkpoint["nothing"]


@pytest.mark.parametrize("weights", [WEIGHTS, HALF, {n: (WEIGHTS if i % 3 else HALF)[n] for i, n in enumerate(HALF)}])
def test_contents_of_both_dtypes(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, weights)
    check_contents(Checkpoint(str(folder)), load_file(folder / "model.safetensors"))


def test_unaligned_tensors_are_read_all_the_same(tmp_path: Path) -> None:
    """A file whose data begin at an odd byte: legal, though no current library writes one."""
    folder = write_checkpoint(tmp_path, WEIGHTS)
    data = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    for shift in (1, 2, 3):
        header = data[8 : 8 + size].rstrip() + b" " * shift
        if (8 + len(header)) % 4 == 0:
            header += b" "
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + data[8 + size :])
        check_contents(Checkpoint(str(folder)), WEIGHTS)


# ---- tensors


def test_tensors_share_the_mapping(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(write_checkpoint(tmp_path, HALF)))
    for name in ("norm.weight", "lm_head.weight"):
        first, second = (torch.from_dlpack(checkpoint[name]) for _ in range(2))
        assert first.data_ptr() == second.data_ptr()
        assert first.dtype == torch.bfloat16
        assert checkpoint[name].__dlpack_device__() == (1, 0)


def test_numpy_takes_float32_tensors_read_only(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(write_checkpoint(tmp_path, WEIGHTS)))
    array = np.from_dlpack(checkpoint["lm_head.weight"])
    assert not array.flags.writeable
    assert np.array_equal(array, WEIGHTS["lm_head.weight"].numpy())
    assert array.ctypes.data == torch.from_dlpack(checkpoint["lm_head.weight"]).data_ptr()


KEEP: dict[str, Callable[[Checkpoint], Any]] = {
    "tensor": lambda checkpoint: checkpoint["lm_head.weight"],
    "torch": lambda checkpoint: torch.from_dlpack(checkpoint["lm_head.weight"]),
    "capsule": lambda checkpoint: checkpoint["lm_head.weight"].__dlpack__(),
    "versioned capsule": lambda checkpoint: checkpoint["lm_head.weight"].__dlpack__(max_version=(1, 0)),
    "names": iter,
    "config": lambda checkpoint: checkpoint.config,
}


@pytest.mark.parametrize("keep", KEEP)
def test_what_is_kept_outlives_the_checkpoint(keep: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, HALF)
    checkpoint = Checkpoint(str(folder))
    kept = KEEP[keep](checkpoint)
    del checkpoint
    gc.collect()
    (folder / "model.safetensors").unlink()
    if keep == "names":
        assert sorted(kept) == sorted(HALF)
    elif keep == "config":
        assert kept.hidden_size == 44
    else:
        got = kept if keep == "torch" else torch.from_dlpack(kept)
        assert torch.equal(bits(got), bits(HALF["lm_head.weight"]))


def test_capsules_nobody_takes_are_freed(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(write_checkpoint(tmp_path, HALF)))
    tensor = checkpoint["norm.weight"]
    for _ in range(1000):
        tensor.__dlpack__()
        tensor.__dlpack__(max_version=(1, 1))
    assert torch.equal(bits(torch.from_dlpack(tensor)), bits(HALF["norm.weight"]))


def test_writing_to_a_torch_view_is_no_crash_and_does_not_reach_the_file(tmp_path: Path) -> None:
    """torch has no read-only tensors: a write must fail as an error, or stay in this process."""
    folder = write_checkpoint(tmp_path, HALF)
    code = """
    import sys, torch
    from nextstep_rt import Checkpoint
    checkpoint = Checkpoint(sys.argv[1])
    try:
        torch.from_dlpack(checkpoint["norm.weight"]).zero_()
    except (RuntimeError, BufferError) as error:
        print(error)
    """
    before = (folder / "model.safetensors").read_bytes()
    run_python(code, str(folder))
    assert (folder / "model.safetensors").read_bytes() == before


# ---- verify


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_verify_names_what_is_not_finite(stored: str, value: float, tmp_path: Path) -> None:
    weights = {name: t.clone() for name, t in (HALF if stored == "bfloat16" else WEIGHTS).items()}
    bad = {"norm.weight": 0, "lm_head.weight": -1, "layers.1.self_attn.k_proj.bias": 40}
    for name, place in bad.items():
        weights[name].view(-1)[place] = value
    largest = torch.finfo(weights["image_out_projector.bias"].dtype)
    weights["image_out_projector.bias"][:4] = torch.tensor([largest.max, largest.min, largest.tiny, 0.0])
    checkpoint = Checkpoint(str(write_checkpoint(tmp_path, weights)))
    assert sorted(checkpoint.verify()) == sorted(bad)
    seen: list[tuple[int, int]] = []
    assert sorted(checkpoint.verify(lambda *a: seen.append(a))) == sorted(bad)
    assert seen[-1] == (checkpoint.nbytes, checkpoint.nbytes)
    with pytest.raises(ZeroDivisionError):
        checkpoint.verify(lambda *_: 1 // 0)


# ---- shards


def write_shards(folder: Path, count: int = 3) -> dict[str, str]:
    """The weights over `count` files with an index; returns its weight map."""
    (folder / "config.json").write_text(write_checkpoint(folder, HALF).joinpath("config.json").read_text())
    (folder / "model.safetensors").unlink()
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    weight_map = {tensor: names[i % count] for i, tensor in enumerate(HALF)}
    for name in names:
        save_file({t: HALF[t] for t, file in weight_map.items() if file == name}, folder / name)
    write_index(folder, weight_map)
    return weight_map


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def test_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    checkpoint = Checkpoint(str(tmp_path))
    check_contents(checkpoint, HALF)
    assert len(checkpoint.files) == 3


def test_shards_that_are_links(tmp_path: Path) -> None:
    """As the hub's cache lays them out: relative links out of the snapshot's folder into the blobs'."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    write_shards(blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    check_contents(Checkpoint(str(snapshot)), HALF)
    (tmp_path / "link").symlink_to(snapshot, target_is_directory=True)
    check_contents(Checkpoint(str(tmp_path / "link")), HALF)
    (blobs / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model-00002-of-00003"):
        Checkpoint(str(snapshot))


@pytest.mark.parametrize(
    "name",
    [
        "missing.safetensors",
        "/etc/passwd",
        "/tmp/model.safetensors",
        "../model.safetensors",
        "a/../../model.safetensors",
        "..",
        ".",
        "",
        "a\\..\\model.safetensors",
        "model\0.safetensors",
        "model.bin",
        "config.json",
        7,
        None,
        ["model.safetensors"],
    ],
)
def test_index_names_that_are_refused(name: Any, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    weight_map: dict[str, Any] = dict(write_shards(folder))
    save_file({"norm.weight": HALF["norm.weight"]}, tmp_path / "model.safetensors")
    weight_map["norm.weight"] = name
    write_index(folder, weight_map)
    with pytest.raises(CheckpointError, match=r"norm\.weight|missing\.safetensors|model\.bin|config\.json"):
        Checkpoint(str(folder))


@pytest.mark.parametrize("weight_map", [None, {}, [], 3, "model.safetensors"])
def test_indexes_without_a_map(weight_map: Any, tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_index(tmp_path, weight_map)
    with pytest.raises(CheckpointError, match="weight_map"):
        Checkpoint(str(tmp_path))


def test_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in ("", "nothing/here", str(tmp_path / "file"), "a\0b", str(tmp_path)):
        with pytest.raises(CheckpointError):
            Checkpoint(path)
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="regular file"):
        Checkpoint(str(tmp_path))
