"""A checkpoint of random weights in the released layout, written in blocks: it is never in memory as a whole."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from nextstep_rt import Error, ModelConfig

from .results import SEED

BLOCK = 1 << 22  # numbers of a block that is written again and again
SHARD = 1 << 30  # bytes of a file at most, but for a tensor that is larger
SCALE = 0.02  # of the numbers: values stay finite in any shape
DTYPES = {"bfloat16": ("BF16", 2), "float32": ("F32", 4)}
Shapes = Mapping[str, tuple[int, ...]]


def write_checkpoint(folder: Path, keys: Mapping[str, Any], dtype: str, shard: int = SHARD) -> int:
    """Writes config.json, files of weights and their index, and the embedded model's tokenizer and VAE beside them.

    keys: a config.json with that tokenizer's ids. Returns the bytes of the weights. Raises `Error` where they cannot be
    written, e.g. to a full disk.
    """
    from nextstep_rt.reference import expected_shapes

    shapes: Shapes = dict(expected_shapes(ModelConfig.from_json(json.dumps(dict(keys)))))
    item = DTYPES[dtype][1]
    total = sum(item * math.prod(shape) for shape in shapes.values())
    try:
        free = shutil.disk_usage(folder).free
        if total > free:
            raise Error(f"a checkpoint of {total} bytes does not fit {folder}, which has {free}: give another --folder")
        (folder / "config.json").write_text(json.dumps(dict(keys)), encoding="utf-8")
        _copy_companions(folder)
        parts = _split(shapes, item, shard)
        names = [f"model-{i + 1:05d}-of-{len(parts):05d}.safetensors" for i in range(len(parts))]
        block = _block(dtype)
        for name, part in zip(names, parts, strict=True):
            with (folder / name).open("wb") as file:
                _write_shard(file, part, dtype, block)
        index = {tensor: name for name, part in zip(names, parts, strict=True) for tensor in part}
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": index})
        (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    except OSError as error:
        raise Error(
            f"no checkpoint can be written to {folder}: {error.strerror or error}; give another --folder"
        ) from None
    return total


def embedded() -> Path:
    """The folder of the embedded model. Raises `Error` where it is missing."""
    import nextstep_rt

    for folder in nextstep_rt.__path__:
        path = Path(folder) / "demo"
        if (path / "tokenizer.json").is_file():
            return path
    raise Error("the embedded model is missing from this installation: install the package again")


def companion_keys() -> dict[str, Any]:
    """What a config.json must state so that the embedded model's tokenizer and VAE belong to it."""
    keys = json.loads((embedded() / "config.json").read_text(encoding="utf-8"))
    names = (
        "vocab_size", "boi", "eoi", "image_placeholder_id", "pad_token_id_added", "latent_channels",
        "latent_patch_size", "vae_name_or_path",
    )  # fmt: skip
    return {name: keys[name] for name in names}


def _copy_companions(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        shutil.copyfile(embedded() / name, folder / name)
    shutil.copytree(embedded() / "vae", folder / "vae")


def _split(shapes: Shapes, item: int, shard: int) -> list[dict[str, tuple[int, ...]]]:
    """The tensors of each file, in order; a file ends before it would exceed `shard` bytes."""
    parts: list[dict[str, tuple[int, ...]]] = [{}]
    held = 0
    for name, shape in shapes.items():
        size = item * math.prod(shape)
        if held + size > shard and parts[-1]:
            parts.append({})
            held = 0
        parts[-1][name] = shape
        held += size
    return parts


def _block(dtype: str) -> NDArray[Any]:
    """Normal numbers times SCALE, as the dtype stores them: bfloat16 is the upper half of a float32."""
    numbers: NDArray[Any] = np.random.default_rng(SEED).standard_normal(BLOCK, dtype=np.float32)
    numbers *= np.float32(SCALE)
    if dtype == "float32":
        return numbers
    halves: NDArray[Any] = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    return halves


def _write_shard(file: BinaryIO, shapes: Shapes, dtype: str, block: NDArray[Any]) -> None:
    """A safetensors file: the header's size, the header padded to 8 bytes, and the tensors one after another."""
    kind, item = DTYPES[dtype]
    header: dict[str, Any] = {}
    at = 0
    for name, shape in shapes.items():
        size = item * math.prod(shape)
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    left = at // item
    while left > 0:
        part = block[: min(left, BLOCK)]
        file.write(part.data)
        left -= len(part)
    file.flush()
    os.fsync(file.fileno())  # nothing is still being written while times are taken
