"""Inputs of the op tests: sizes around the vector widths, seeded arrays, and their float64 meaning."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nextstep_rt import _core

LEVELS = _core.isa_levels()
# Around the lanes of every level (8, 16, and 32 of a bf16 dot product), and no multiple of any.
SIZES = (1, 2, 7, 8, 15, 31, 32, 33, 63, 65, 100, 257)
ROWS = tuple(range(1, 17))


def normal(*shape: int, seed: int = 0, size: float = 1.0) -> np.ndarray:
    """float32 normals; another seed for every array of a test."""
    return (np.random.default_rng([seed, *shape]).standard_normal(shape) * size).astype(np.float32)


def bf16(array: np.ndarray) -> torch.Tensor:
    """The array rounded to torch.bfloat16."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(torch.bfloat16)


def weight_of(array: np.ndarray, dtype: str) -> Any:
    """The array as a weight: itself, or torch.bfloat16 of it."""
    return array if dtype == "float32" else bf16(array)


def exact(array: Any) -> np.ndarray:
    """float64, of what is really stored."""
    return array.double().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, np.float64)


def rounded(array: np.ndarray) -> np.ndarray:
    """float64 of the array rounded to bfloat16 and back."""
    return bf16(array).double().numpy()
