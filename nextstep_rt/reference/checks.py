"""What the native engine refuses, refused by the oracle too, in the same words where they fit."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from .._core import MAX_ROWS
from ..config import show, whole
from ..errors import Error, InvalidRequest
from .types import ModelShape


def device_of(name: str) -> torch.device:
    """The torch device of "cpu", "cuda", "cuda:<index>" or "auto". Raises Error where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::([0-9]{1,3}))?", name) if isinstance(name, str) else None
    if match is None:
        raise InvalidRequest(f"unknown device {show(name)}; use 'cpu', 'cuda', 'cuda:<index>' or 'auto'")
    index = int(match[1] or 0)
    asked = f"device cuda:{index} was asked for, but torch has"
    if not torch.cuda.is_available():
        raise Error(f"{asked} no CUDA here; use device 'cpu'")
    if index >= torch.cuda.device_count():
        raise Error(f"{asked} {torch.cuda.device_count()} CUDA device(s) here; use one of them, or device 'cpu'")
    return torch.device("cuda", index)


def array_of(name: str, values: Any, kinds: str, wanted: str) -> np.ndarray:
    """`values` as an array whose dtype is of one of numpy's `kinds`, which are called `wanted`."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidRequest(f"{name} cannot be read as an array: {error}") from None
    if array.dtype.kind not in kinds:
        raise InvalidRequest(f"{name} has dtype {array.dtype}; it must be {wanted}")
    return array


def token_ids(ids: Any, vocab: int) -> np.ndarray:
    """Token ids int64 [n]."""
    if isinstance(ids, (list, tuple)) and not ids:
        return np.empty(0, np.int64)
    array = array_of("ids", ids, "iu", "int64")
    if array.ndim != 1:
        raise InvalidRequest(f"ids has shape {array.shape}; it must be (n,)")
    if array.size and (array.min() < 0 or array.max() >= vocab):
        raise InvalidRequest(f"token ids must lie in 0..{vocab - 1}, got {array.min()}..{array.max()}")
    return array.astype(np.int64)


def prefill_arrays(config: ModelShape, embeds: Any, mask: Any, max_new_tokens: Any) -> tuple[np.ndarray, np.ndarray]:
    """The embeddings and which columns are real, of a prefill that can be."""
    array = array_of("embeds", embeds, "f", "float32")
    if array.ndim != 3 or array.shape[2] != config.hidden_size or 0 in array.shape:
        raise InvalidRequest(f"embeds have shape {array.shape}, expected (rows, width, {config.hidden_size})")
    rows, width, positions = array.shape[0], array.shape[1], config.max_position_embeddings
    if rows > MAX_ROWS:
        raise InvalidRequest(f"prefill of {rows} rows; an engine carries 1 to {MAX_ROWS}")
    if width > 2 * positions:
        raise InvalidRequest(
            f"prefill of rows of {width} columns; there must be between 1 and twice the model's {positions} positions"
        )
    keep = np.ones((rows, width), bool) if mask is None else array_of("mask", mask, "buif", "bool").astype(bool)
    if keep.shape != (rows, width):
        raise InvalidRequest(f"mask has shape {keep.shape}, embeds ask for {(rows, width)}")
    if not keep.any(axis=1).all():
        raise InvalidRequest(f"row {int(np.argmin(keep.any(axis=1)))} of the mask is all padding")
    longest = int(keep.sum(axis=1).max())
    new = whole("max_new_tokens", max_new_tokens, 0, 2**62)
    if longest + new > positions:
        raise InvalidRequest(
            f"a row of {longest} prompt tokens and {new} image tokens exceeds the model's {positions} positions; "
            "shorten the prompt or ask for a smaller image"
        )
    return array, keep


def image_seeds(seeds: Any, images: int) -> list[int]:
    """One seed in 0..2^64 - 1 an image."""
    try:
        given = list(seeds)
    except TypeError:
        raise InvalidRequest(f"seeds must be a list of {images} numbers, not {show(seeds)}") from None
    for seed in given:
        if not isinstance(seed, (int, np.integer)) or not 0 <= int(seed) < 2**64:
            raise InvalidRequest(f"seed {show(seed)} is not an integer between 0 and 2^64 - 1")
    if len(given) != images:
        raise InvalidRequest(f"{len(given)} seeds for {images} images; give one for each")
    return [int(seed) for seed in given]
