"""Comparisons that say what went wrong, and tolerances that follow from the arithmetic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# Unit roundoff: the largest relative error of rounding one number to nearest.
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}
# The narrowest vector of any instruction set level: a sum of n numbers is at least this many chains beside each other.
MIN_LANES = 8


def sum_tolerance(length: int, dtype: str = "float32", extra: int = 4) -> float:
    """Bound of a sum of `length` rounded terms, relative to the sum of their magnitudes (give that as `scale`).

    A term takes part in its lane's additions, the tree over the lanes and `extra` roundings before and after.
    """
    return (math.ceil(length / MIN_LANES) + math.log2(MIN_LANES) + extra) * ROUNDOFF[dtype]


def rounding_tolerance(roundings: float, dtype: str = "float32") -> float:
    """Bound of a chain of `roundings` rounded operations without cancellation."""
    return roundings * ROUNDOFF[dtype]


def norm_tolerance(roundings: float, dtype: str = "float32", safety: float = 4.0) -> float:
    """Expected relative error by norm after `roundings` in a row: they are independent, so they add like a walk."""
    return safety * math.sqrt(roundings) * ROUNDOFF[dtype]


def as_numpy(value: Any) -> np.ndarray:
    """numpy float64 of a numpy array or a torch tensor of any dtype."""
    if hasattr(value, "detach"):
        value = value.detach().double().numpy()
    return np.asarray(value, np.float64)


def relative_norm(got: Any, want: Any) -> float:
    """|got - want| / |want|; of two zeros 0, of a nonzero against zero the norm of the nonzero."""
    g, w = as_numpy(got), as_numpy(want)
    size = np.linalg.norm(w)
    return float(np.linalg.norm(g - w) / (size if size > 0 else 1.0))


def cosine(got: Any, want: Any) -> float:
    """The angle's cosine between two arrays, taken as vectors; NaN where one is zero."""
    g, w = as_numpy(got).ravel(), as_numpy(want).ravel()
    size = np.linalg.norm(g) * np.linalg.norm(w)
    return float(g @ w / size) if size > 0 else math.nan


def describe(got: Any, want: Any, error: np.ndarray | None = None) -> str:
    """Where two arrays of one shape differ most (by `error`, else by absolute difference) and how they compare."""
    g, w = as_numpy(got), as_numpy(want)
    if g.size == 0:
        return "empty arrays"
    both = np.isfinite(g) & np.isfinite(w)
    if error is None:
        with np.errstate(invalid="ignore"):
            error = np.abs(g - w)
    error = np.where(both, error, -1.0)
    worst = np.unravel_index(int(np.argmax(error)), g.shape)
    finite_g, finite_w = np.where(both, g, 0.0), np.where(both, w, 0.0)
    lines = [
        f"shape {g.shape}, worst at {tuple(int(i) for i in worst)}: got {g[worst]:.9g}, want {w[worst]:.9g}, "
        f"difference {g[worst] - w[worst]:.3g}",
        f"relative error by norm {relative_norm(finite_g, finite_w):.3g}, cosine {cosine(finite_g, finite_w):.9f}",
    ]
    for kind, find in (("NaN", np.isnan), ("infinite", np.isinf)):
        mine, theirs = find(g), find(w)
        if mine.any() or theirs.any():
            first = np.argwhere(mine != theirs)
            where = f", first difference at {tuple(int(i) for i in first[0])}" if len(first) else ", the same ones"
            lines.append(f"{kind}: {int(mine.sum())} in got, {int(theirs.sum())} in want, of {g.size}{where}")
    return "\n".join(lines)


def assert_close(got: Any, want: Any, tolerance: float, *, scale: Any = None, what: str = "arrays") -> None:
    """Fail unless got is want within tolerance, with NaN and infinities in the same places.

    Without `scale`: relative, by norm. With it: |got - want| <= tolerance * scale, element by element (`scale` is
    broadcast; it is what the rounding errors are proportional to, e.g. the sum of a dot product's magnitudes).
    """
    g, w = as_numpy(got), as_numpy(want)
    assert g.shape == w.shape, f"{what}: got shape {g.shape}, want {w.shape}"
    if not np.array_equal(np.isnan(g), np.isnan(w)):
        raise AssertionError(f"{what}: NaN in different places\n{describe(g, w)}")
    infinite = np.isinf(g) | np.isinf(w)
    if not np.array_equal(g[infinite], w[infinite]):
        raise AssertionError(f"{what}: infinities in different places\n{describe(g, w)}")
    finite = np.isfinite(w)
    if scale is None:
        error = relative_norm(g[finite], w[finite])
        if error > tolerance:
            raise AssertionError(f"{what}: relative error {error:.3g} > {tolerance:.3g}\n{describe(g, w)}")
        return
    allowed = tolerance * np.broadcast_to(as_numpy(scale), w.shape)
    with np.errstate(invalid="ignore", divide="ignore"):
        excess = np.where(finite, np.abs(g - w), 0.0)
        times = np.where(excess > 0, excess / np.where(allowed > 0, allowed, np.finfo(np.float64).tiny), 0.0)
    if times.size and times.max() > 1:
        count = int((times > 1).sum())
        raise AssertionError(
            f"{what}: {count} of {w.size} elements beyond tolerance {tolerance:.3g}, "
            f"the worst by {times.max():.3g} times\n{describe(g, w, times)}"
        )


def assert_same_bits(got: Any, want: Any, *, what: str = "arrays") -> None:
    """Fail unless two float32 arrays are equal bit for bit (so that NaN equals NaN and 0 differs from -0)."""
    g, w = np.ascontiguousarray(got), np.ascontiguousarray(want)
    assert g.dtype == w.dtype == np.float32, f"{what}: dtypes {g.dtype} and {w.dtype}"
    assert g.shape == w.shape, f"{what}: got shape {g.shape}, want {w.shape}"
    different = g.view(np.uint32) != w.view(np.uint32)
    if different.any():
        raise AssertionError(f"{what}: {int(different.sum())} of {g.size} numbers differ in bits\n{describe(g, w)}")
