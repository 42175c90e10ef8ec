"""The comparisons themselves: what they let through, and what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.compare import assert_close, assert_same_bits, norm_tolerance, sum_tolerance

WANT = np.arange(1.0, 7.0).reshape(2, 3)


def test_close_by_norm_and_by_element() -> None:
    assert_close(WANT * (1 + 1e-6), WANT, 1e-5)
    assert_close(torch.from_numpy(WANT).float(), WANT, 0.0)
    assert_close(WANT + 1e-4, WANT, 1e-4, scale=1.001)
    assert_close(np.zeros((0, 3)), np.zeros((0, 3)), 0.0)
    with pytest.raises(AssertionError, match="relative error"):
        assert_close(WANT * (1 + 1e-4), WANT, 1e-5)
    with pytest.raises(AssertionError, match="1 of 6 elements"):
        assert_close(WANT + np.eye(2, 3)[::-1] * [1, 0, 0], WANT, 0.01, scale=WANT)


def test_a_failure_names_the_worst_place_both_values_and_the_angle() -> None:
    got = WANT.copy()
    got[1, 2] = -6.5
    with pytest.raises(AssertionError) as caught:
        assert_close(got, WANT, 1e-3, what="velocity")
    message = str(caught.value)
    for part in ("velocity", "(1, 2)", "got -6.5", "want 6", "difference -12.5", "by norm 1.31", "cosine 0.17"):
        assert part in message


@pytest.mark.parametrize("scale", [None, 1e9])
def test_nan_and_infinity_must_be_in_the_same_places(scale: float | None) -> None:
    for value, word in ((np.nan, "NaN: 1 in got, 0 in want"), (np.inf, "infinite: 1 in got, 0 in want")):
        got = WANT.copy()
        got[0, 1] = value
        with pytest.raises(AssertionError, match=word + r", of 6, first difference at \(0, 1\)"):
            assert_close(got, WANT, 1e9, scale=scale)
        with pytest.raises(AssertionError, match="places"):
            assert_close(WANT, got, 1e9, scale=scale)
        assert_close(got, got, 0.0, scale=scale)
    with pytest.raises(AssertionError, match="infinities"):
        assert_close([np.inf], [-np.inf], 1e9, scale=scale)
    with pytest.raises(AssertionError, match="shape"):
        assert_close(WANT, WANT[None], 1e9, scale=scale)


def test_same_bits() -> None:
    a = np.array([0.0, 1.0, np.nan], np.float32)
    assert_same_bits(a, a.copy())
    for other in (np.array([-0.0, 1.0, np.nan], np.float32), np.nextafter(a, np.float32(2)), np.roll(a, 1)):
        with pytest.raises(AssertionError, match="differ in bits"):
            assert_same_bits(other, a)
    with pytest.raises(AssertionError, match="dtypes"):
        assert_same_bits(a.astype(np.float64), a)


def test_tolerances_cover_what_numpy_itself_rounds() -> None:
    """And are no wider than a thousandth: float32 sums against float64."""
    rng = np.random.default_rng(0)
    for length in (1, 33, 1000, 5120):
        x, y = rng.standard_normal((2, 50, length)).astype(np.float32)
        want = (x.astype(np.float64) * y).sum(1)
        lanes = np.pad(x * y, ((0, 0), (0, -length % 8))).reshape(50, -1, 8)
        total = np.zeros((50, 8), np.float32)
        for i in range(lanes.shape[1]):
            total += lanes[:, i]
        assert_close(total.sum(1), want, sum_tolerance(length), scale=np.abs(x.astype(np.float64) * y).sum(1))
        assert sum_tolerance(length) < 1e-3
    assert norm_tolerance(16) == 16 * 2.0**-24
    assert norm_tolerance(16, "bfloat16") == 16 * 2.0**-8
