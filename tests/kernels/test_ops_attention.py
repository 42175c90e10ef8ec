"""Decode attention of every instruction set level against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.cases import LEVELS, exact, normal, weight_of
from kit.compare import ROUNDOFF, assert_close, assert_same_bits

from nextstep_rt import ops

pytestmark = pytest.mark.parametrize("isa", LEVELS)
DTYPES = ("float32", "bfloat16")


def oracle(q: Any, k: Any, v: Any, lengths: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The result [b, h_q, d], the weighted magnitudes of the values alike, and the largest sum of |q k| a row."""
    q, k, v = exact(q), exact(k), exact(v)
    group, d = q.shape[1] // k.shape[1], q.shape[2]
    want, size, reach = np.zeros_like(q), np.zeros_like(q), np.zeros((len(q), 1, 1))
    for b, n in enumerate(lengths):
        for h in range(q.shape[1]):
            keys, values = k[b, h // group, :n], v[b, h // group, :n]
            scores = keys @ q[b, h] / np.sqrt(d)
            share = np.exp(scores - scores.max())
            share /= share.sum()
            want[b, h], size[b, h] = share @ values, share @ np.abs(values)
            reach[b] = max(reach[b, 0, 0], (np.abs(keys) @ np.abs(q[b, h])).max() / np.sqrt(d))
    return want, size, reach


def tolerance(d: int, lengths: Any, reach: np.ndarray) -> np.ndarray:
    """A score's absolute error is a relative one of its weight; the weighted sum adds one rounding a position."""
    score = (d / 8 + 6) * reach
    # The sums over the positions: of the weights in lanes, of the values one by one in blocks of 256.
    sums = np.minimum(np.asarray(lengths), 256).reshape(-1, 1, 1) * 1.5 + 16
    return (2 * score + sums) * ROUNDOFF["float32"]


def check(isa: str, q: Any, k: Any, v: Any, lengths: Any, **options: Any) -> np.ndarray:
    lengths = np.asarray(lengths)
    got = ops.attention(q, k, v, lengths, isa=isa, **options)
    want, size, reach = oracle(q, k, v, lengths)
    assert_close(got, want, 1.0, scale=size * tolerance(q.shape[2], lengths, reach), what=f"lengths {lengths}")
    return got


def inputs(b: int, h_q: int, h_kv: int, capacity: int, d: int, dtype: str, seed: int = 0) -> tuple[Any, Any, Any]:
    k, v = normal(b, h_kv, capacity, d, seed=seed + 1), normal(b, h_kv, capacity, d, seed=seed + 2)
    return normal(b, h_q, d, seed=seed), weight_of(k, dtype), weight_of(v, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("length", [1, 2, 31, 32, 33, 63, 65, 255, 256, 257, 513])
def test_lengths(isa: str, dtype: str, length: int) -> None:
    check(isa, *inputs(1, 4, 2, length + 3, 40, dtype, seed=length), [length])
    check(isa, *inputs(1, 4, 2, length, 40, dtype, seed=length), [length])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 7, 31, 32, 33, 64, 72, 128, 136, 200, 256])
def test_head_dims(isa: str, dtype: str, d: int) -> None:
    check(isa, *inputs(2, 3, 1, 70, d, dtype, seed=d), [70, 33])


@pytest.mark.parametrize(("h_q", "h_kv"), [(1, 1), (5, 1), (5, 5), (6, 2), (7, 1), (8, 4), (16, 2)])
def test_head_ratios(isa: str, h_q: int, h_kv: int) -> None:
    check(isa, *inputs(2, h_q, h_kv, 40, 32, "bfloat16"), [40, 9])


@pytest.mark.parametrize("b", [1, 2, 7, 13, 16])
def test_ragged_rows(isa: str, b: int) -> None:
    lengths = np.random.default_rng(b).integers(1, 301, b)
    q, k, v = inputs(b, 4, 2, 300, 48, "float32", seed=b)
    together = check(isa, q, k, v, lengths)
    for threads in (2, 3):
        assert_same_bits(ops.attention(q, k, v, lengths, threads=threads, isa=isa), together, what=f"{threads} threads")
    for r in range(b):
        alone = ops.attention(q[r : r + 1], k[r : r + 1], v[r : r + 1], lengths[r : r + 1], isa=isa)
        assert_same_bits(alone[0], together[r], what=f"row {r} alone")
        # Its cache ends where it ends: what lies behind is not looked at.
        n = int(lengths[r])
        short = ops.attention(q[r : r + 1], k[r : r + 1, :, :n], v[r : r + 1, :, :n], lengths[r : r + 1], isa=isa)
        assert_same_bits(short[0], together[r], what=f"row {r} with a cache of its own length")


@pytest.mark.parametrize("length", [1, 33, 300])
def test_what_lies_behind_the_length_does_not_matter(isa: str, length: int) -> None:
    q, k, v = inputs(1, 2, 1, 310, 32, "float32")
    clean = ops.attention(q, k, v, np.array([length]), isa=isa)
    k[:, :, length:], v[:, :, length:] = np.nan, np.inf
    assert_same_bits(ops.attention(q, k, v, np.array([length]), isa=isa), clean)


@pytest.mark.parametrize("size", [30.0, 1e4, 1e15])
def test_huge_scores_do_not_overflow(isa: str, size: float) -> None:
    """The largest score takes all; its value comes out as it is."""
    q, k, v = inputs(1, 2, 1, 300, 32, "float32")
    q *= np.float32(size)
    k *= np.float32(size)
    got = ops.attention(q, k, v, np.array([300]), isa=isa)
    scores = exact(k)[0, 0] @ exact(q)[0].T
    assert_close(got[0], v[0, 0][scores.argmax(0)], 4 * ROUNDOFF["float32"])


def test_equal_huge_scores_share(isa: str) -> None:
    q, k, v = np.full((1, 1, 32), 1e18, np.float32), np.full((1, 1, 300, 32), 1e18, np.float32), normal(1, 1, 300, 32)
    got = ops.attention(q, k, v, np.array([300]), isa=isa)
    assert_close(got[0, 0], exact(v)[0, 0].mean(0), 400 * ROUNDOFF["float32"], scale=np.abs(v[0, 0]).mean(0))
    got = ops.attention(-q, k, v, np.array([300]), isa=isa)
    assert_close(got[0, 0], exact(v)[0, 0].mean(0), 400 * ROUNDOFF["float32"], scale=np.abs(v[0, 0]).mean(0))


@pytest.mark.parametrize("position", [0, 1, 5, 31, 255, 256, 299])
@pytest.mark.parametrize("which", ["q", "k", "v"])
def test_nan_comes_out(isa: str, which: str, position: int) -> None:
    q, k, v = inputs(2, 2, 1, 300, 40, "float32")
    clean = ops.attention(q, k, v, np.array([300, 300]), isa=isa)
    if which == "q":
        q[0, 0, position % 40] = np.nan
    else:
        {"k": k, "v": v}[which][0, 0, position, 3] = np.nan
    got = ops.attention(q, k, v, np.array([300, 300]), isa=isa)
    if which == "v":
        assert np.isnan(got[0, :, 3]).all()
    else:
        assert np.isnan(got[0, 0]).all()
    assert_same_bits(got[1], clean[1], what="the other row")
