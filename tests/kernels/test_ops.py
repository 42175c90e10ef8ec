"""Products, norms and elementwise ops of every instruction set level against float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kit.cases import LEVELS, ROWS, SIZES, exact, normal, rounded, weight_of
from kit.compare import assert_close, rounding_tolerance, sum_tolerance

from nextstep_rt import ops
from nextstep_rt.reference import rms_norm as reference_rms_norm

pytestmark = pytest.mark.parametrize("isa", LEVELS)
DTYPES = ("float32", "bfloat16")
# exp() is right to 2 units in the last place; silu adds a sum and a quotient.
SILU_ROUNDINGS = 6


def silu(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return x / (1 + np.exp(-x))


def check_linear(isa: str, dtype: str, b: int, n: int, k: int, *, extras: bool, round_x: bool, seed: int = 0) -> None:
    x, weight = normal(b, k, seed=seed), weight_of(normal(n, k, seed=seed + 1), dtype)
    bias = normal(n, seed=seed + 2) if extras else None
    residual = normal(b, n, seed=seed + 3) if extras else None
    got = ops.linear(x, weight, bias, residual, silu=extras, round_x=round_x, isa=isa)
    xs, w = exact(x), exact(weight)
    dot = round_x and dtype == "bfloat16" and isa.endswith("_bf16")
    if dot:
        xs = rounded(x)
    want, scale = xs @ w.T, np.abs(xs) @ np.abs(w).T
    tolerance = sum_tolerance(k)
    if extras:
        assert bias is not None
        assert residual is not None
        want = silu(want + bias) + residual
        # |silu'| <= 1.1; what silu and the residual's addition round is proportional to their own results.
        scale = 1.1 * (scale + np.abs(bias)) + np.abs(residual)
        tolerance += rounding_tolerance(SILU_ROUNDINGS)
    assert_close(got, want, tolerance, scale=scale, what=f"linear b={b} n={n} k={k} {dtype}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("k", SIZES)
def test_linear_sizes(isa: str, dtype: str, k: int) -> None:
    for n in SIZES:
        for b in (1, 2, 7):
            check_linear(isa, dtype, b, n, k, extras=n % 2 == 1, round_x=b == 2, seed=k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("b", ROWS)
def test_linear_rows(isa: str, dtype: str, b: int) -> None:
    for n, k in ((33, 65), (5, 129)):
        check_linear(isa, dtype, b, n, k, extras=False, round_x=False, seed=b)
        check_linear(isa, dtype, b, n, k, extras=True, round_x=True, seed=b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(8))
def test_linear_random_shapes(isa: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    b, n, k = int(rng.integers(1, 17)), int(rng.integers(1, 200)), int(rng.integers(1, 700))
    check_linear(isa, dtype, b, n, k, extras=bool(seed & 1), round_x=bool(seed & 2), seed=seed)


def test_linear_of_widely_different_sizes(isa: str) -> None:
    """Terms that cancel: the error stays proportional to the magnitudes, not to the result."""
    x = normal(3, 333) * np.exp(4 * normal(3, 333, seed=1))
    weight = normal(9, 333, seed=2)
    got = ops.linear(x, weight, isa=isa)
    scale = np.abs(exact(x)) @ np.abs(exact(weight)).T
    assert_close(got, exact(x) @ exact(weight).T, sum_tolerance(333), scale=scale)


@pytest.mark.parametrize("b", [1, 2, 5, 16])
def test_each_part_of_the_epilogue(isa: str, b: int) -> None:
    x, weight, bias, residual = normal(b, 40), normal(33, 40, seed=1), normal(33, seed=2), normal(b, 33, seed=3)
    product = exact(ops.linear(x, weight, isa=isa))
    with_bias = exact(ops.linear(x, weight, bias, isa=isa))
    few = rounding_tolerance(1)
    assert_close(with_bias, product + bias, few, scale=np.abs(product) + np.abs(bias))
    assert_close(ops.linear(x, weight, None, residual, isa=isa), product + residual, few, scale=3 + np.abs(product))
    active = ops.linear(x, weight, bias, silu=True, isa=isa)
    assert_close(active, silu(with_bias), rounding_tolerance(SILU_ROUNDINGS), scale=np.abs(with_bias))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("b", [1, 7, 13])
def test_rms_norm(isa: str, b: int, n: int) -> None:
    x, weight, eps = normal(b, n, size=3.0), normal(n, seed=1), 1e-5
    got = ops.rms_norm(x, weight, eps=eps, isa=isa)
    want = reference_rms_norm(torch.from_numpy(exact(x)), torch.from_numpy(exact(weight)), float(np.float32(eps)))
    # Half of the sum's relative error (a square root), its quotient and root, two products.
    tolerance = 0.5 * sum_tolerance(n) + rounding_tolerance(5)
    assert_close(got, want, tolerance, scale=np.abs(want.numpy()))


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("parts", ["plain", "affine", "modulated", "both"])
def test_layer_norm(isa: str, n: int, parts: str) -> None:
    b, eps = 5, 1e-3
    x = normal(b, n, size=2.0) + 1
    given: dict[str, Any] = {}
    if parts in ("affine", "both"):
        given |= {"weight": normal(n, seed=1), "bias": normal(n, seed=2)}
    if parts in ("modulated", "both"):
        given |= {"shift": normal(b, n, seed=3), "scale": normal(b, n, seed=4)}
    got = ops.layer_norm(x, **given, eps=eps, isa=isa)
    xs = exact(x)
    mean, spread = xs.mean(1, keepdims=True), np.abs(xs).mean(1, keepdims=True)
    root = np.sqrt(xs.var(1, keepdims=True) + eps)
    want = (xs - mean) / root
    # The mean's error moves every element; the variance's scales it. Then four roundings of the normalised number.
    scale = (spread + np.abs(xs)) / root + np.abs(want)
    if "weight" in given:
        want = want * given["weight"] + given["bias"]
        scale = scale * np.abs(given["weight"]) + np.abs(given["bias"])
    if "scale" in given:
        want = want * (1 + exact(given["scale"])) + given["shift"]
        scale = scale * (1 + np.abs(given["scale"])) + np.abs(given["shift"])
    assert_close(got, want, sum_tolerance(n) + rounding_tolerance(6), scale=scale, what=parts)


@pytest.mark.parametrize("n", [1, 31, 32, 33, 64])
def test_token_norm(isa: str, n: int) -> None:
    x = normal(7, n) * 4 + 2
    got = ops.token_norm(x, isa=isa)
    assert np.array_equal(got, ops.layer_norm(x, eps=1e-6, isa=isa))
    want = torch.nn.functional.layer_norm(torch.from_numpy(exact(x)), (n,), eps=1e-6)
    root = np.sqrt(exact(x).var(1, keepdims=True) + 1e-6)
    assert_close(got, want, sum_tolerance(n) + rounding_tolerance(6), scale=12 / root + 1)


@pytest.mark.parametrize("d", [2, 8, 30, 32, 34, 62, 64, 66, 128, 256])
@pytest.mark.parametrize("theta", [10000.0, 1e6])
def test_rope(isa: str, d: int, theta: float) -> None:
    positions = np.array([0, 1, 2, 63, 257, 1000, 131071])
    x = normal(len(positions), 3, d)
    got = ops.rope(x, positions, theta=theta, isa=isa)
    angle = positions[:, None, None] * theta ** (-np.arange(0, d, 2) / d)
    first, second = exact(x)[..., : d // 2], exact(x)[..., d // 2 :]
    cos, sin = np.cos(angle), np.sin(angle)
    want = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    size = np.hypot(first, second)
    # The tables are rounded once; two products and their sum.
    assert_close(got, want, rounding_tolerance(4), scale=np.concatenate([size, size], axis=-1) * np.sqrt(2))
    assert np.array_equal(got[0], x[0])


@pytest.mark.parametrize("n", SIZES)
def test_silu_mul(isa: str, n: int) -> None:
    gate, up = normal(3, n, size=10.0), normal(3, n, seed=1)
    want = silu(exact(gate)) * exact(up)
    # exp(-x) is proportional to |x| in its argument's rounding: none here, the argument is exact.
    assert_close(ops.silu_mul(gate, up, isa=isa), want, rounding_tolerance(SILU_ROUNDINGS + 1), scale=np.abs(want))


@pytest.mark.parametrize("sign", [1, -1])
def test_silu_of_large_numbers(isa: str, sign: int) -> None:
    sizes = np.array([[20, 50, 80, 87, 88, 88.5, 89, 100, 1e3, 1e4, 1e10, 1e30, 1e38, 3.4e38]], np.float32)
    got = ops.silu_mul(sign * sizes, np.ones_like(sizes), isa=isa)
    want = silu(exact(sign * sizes))
    # From -87.3 down the sigmoid is below float32's normal range, and may be anything from there to zero: silu falls to
    # zero from 88 times that.
    scale = np.abs(want) + 88 * np.finfo(np.float32).tiny / rounding_tolerance(SILU_ROUNDINGS)
    assert_close(got, want, rounding_tolerance(SILU_ROUNDINGS), scale=scale)


def test_silu_near_zero_keeps_its_sign(isa: str) -> None:
    x = np.array([[0.0, -0.0, 1e-30, -1e-30, 1e-6, -1e-6]], np.float32)
    got = ops.silu_mul(x, np.ones_like(x), isa=isa)
    assert_close(got, silu(exact(x)), rounding_tolerance(SILU_ROUNDINGS), scale=np.abs(x))
    assert np.array_equal(np.signbit(got), np.signbit(x))
