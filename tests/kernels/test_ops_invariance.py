"""What must not change a single bit, and what must not vanish: NaN."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from kit.cases import LEVELS, ROWS, normal, weight_of
from kit.compare import assert_same_bits

from nextstep_rt import _core, ops

pytestmark = pytest.mark.parametrize("isa", LEVELS)
DTYPES = ("float32", "bfloat16")


def linear(x: np.ndarray, isa: str, dtype: str, *, n: int = 37, **options: Any) -> np.ndarray:
    k = x.shape[1]
    weight, bias = weight_of(normal(n, k, seed=1), dtype), normal(n, seed=2)
    return ops.linear(x, weight, bias, silu=True, isa=isa, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("round_x", [False, True])
@pytest.mark.parametrize("k", [31, 33, 130])
def test_linear_repeats_whatever_the_threads(isa: str, dtype: str, round_x: bool, k: int) -> None:
    for b in (1, 2, 5, 16, 40):
        x = normal(b, k)
        want = linear(x, isa, dtype, round_x=round_x)
        for threads in (1, 2, 3):
            for _ in range(2):
                got = linear(x, isa, dtype, round_x=round_x, threads=threads)
                assert_same_bits(got, want, what=f"{threads} threads")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("round_x", [False, True])
def test_a_row_of_linear_alone_and_among_others(isa: str, dtype: str, round_x: bool) -> None:
    x = normal(64, 77)
    alone = [linear(x[r : r + 1], isa, dtype, round_x=round_x)[0] for r in range(64)]
    for b in (*ROWS, 17, 33, 48, 64):
        for first in {0, max(16 - b, 0)}:
            got = linear(x[first : first + b], isa, dtype, round_x=round_x)
            assert_same_bits(got, np.stack(alone[first : first + b]), what=f"rows {first} to {first + b}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [3, 40])
def test_a_column_of_linear_alone_and_among_others(isa: str, dtype: str, rows: int) -> None:
    x, weight = normal(rows, 77), weight_of(normal(37, 77, seed=1), dtype)
    for round_x in (False, True):
        want = ops.linear(x, weight, isa=isa, round_x=round_x)
        for n in (1, 4, 5, 8, 16, 33, 36):
            got = ops.linear(x, weight[:n], isa=isa, round_x=round_x)
            assert_same_bits(got, want[:, :n], what=f"{n} columns")


def test_rows_of_every_other_op_alone_and_among_others(isa: str) -> None:
    x, y, z, w, bias = (normal(16, 45, seed=i) for i in range(5))
    heads, positions = normal(16, 3, 30), np.arange(16) * 37
    rowwise: dict[str, Any] = {
        "rms_norm": lambda r: ops.rms_norm(x[r], w[0], eps=1e-6, isa=isa),
        "layer_norm": lambda r: ops.layer_norm(x[r], w[0], bias[0], shift=y[r], scale=z[r], isa=isa),
        "token_norm": lambda r: ops.token_norm(x[r], isa=isa),
        "rope": lambda r: ops.rope(heads[r], positions[r], theta=1e4, isa=isa),
        "silu_mul": lambda r: ops.silu_mul(x[r], y[r], isa=isa),
        "solver_update": lambda r: ops.solver_update(x[r], y[r], z[r], cx=0.3, cv=0.7, ce=0.1, isa=isa),
        "guidance": lambda r: ops.guidance(np.concatenate([x[r], y[r]]), branches=2, scale=3.3, renorm=True, isa=isa),
    }
    for name, op in rowwise.items():
        want = op(slice(0, 16))
        assert_same_bits(op(slice(0, 16)), want, what=f"{name} again")
        for rows in (slice(0, 1), slice(7, 8), slice(15, 16), slice(3, 16)):
            assert_same_bits(op(rows), want[rows], what=f"{name}, rows {rows}")


@pytest.mark.parametrize("n", [1, 8, 31, 33, 45])
def test_an_element_does_not_depend_on_its_place_in_the_vector(isa: str, n: int) -> None:
    """A number is worked on in a full vector or in the rest: its bits must not tell."""
    x, y, z = normal(1, n), normal(1, n, seed=1), normal(1, n, seed=2)
    wide = [np.concatenate([a, a, a, a], axis=1) for a in (x, y, z)]
    once = ops.silu_mul(x, y, isa=isa), ops.solver_update(x, y, z, cx=0.3, cv=0.7, ce=0.1, isa=isa)
    many = ops.silu_mul(*wide[:2], isa=isa), ops.solver_update(*wide, cx=0.3, cv=0.7, ce=0.1, isa=isa)
    for a, b in zip(once, many, strict=True):
        assert_same_bits(b, np.concatenate([a, a, a, a], axis=1))


def test_the_level_in_use_is_the_default(isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSRT_ISA", isa)
    assert _core.isa() == isa
    x, weight = normal(3, 200), normal(33, 200, seed=1)
    assert_same_bits(ops.linear(x, weight), ops.linear(x, weight, isa=isa))


NAN_AT = (0, 5, 31, 32, 44)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf])
def test_nan_and_infinity_come_out_of_their_row_only(isa: str, value: float) -> None:
    weight = normal(9, 45, seed=1)
    for at in NAN_AT:
        x = normal(3, 45)
        x[1, at] = value
        got = {
            "linear": ops.linear(x, weight, isa=isa),
            "linear silu": ops.linear(x, np.abs(weight), silu=True, isa=isa),
            "linear bfloat16": ops.linear(x, weight_of(weight, "bfloat16"), round_x=True, isa=isa),
            "layer_norm": ops.layer_norm(x, isa=isa),
            "token_norm": ops.token_norm(x, isa=isa),
        }
        for name, y in got.items():
            assert not np.isfinite(y[1]).any(), f"{name}: {value} at {at} gave finite numbers"
            assert np.isfinite(y[[0, 2]]).all(), f"{name}: {value} at {at} reached another row"
        y = ops.rms_norm(x, np.ones(45, np.float32), eps=1e-6, isa=isa)
        assert not np.isfinite(y[1, at])
        assert np.isfinite(y[[0, 2]]).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_a_weight_comes_out_of_its_column_only(isa: str, dtype: str) -> None:
    for at in NAN_AT:
        weight = normal(9, 45, seed=1)
        weight[4, at] = np.nan
        y = ops.linear(normal(7, 45), weight_of(weight, dtype), round_x=True, isa=isa)
        assert np.isnan(y[:, 4]).all()
        assert np.isfinite(np.delete(y, 4, axis=1)).all()


def test_nan_comes_out_of_elementwise_ops_where_it_went_in(isa: str) -> None:
    for at in NAN_AT:
        x, y = normal(2, 45), normal(2, 45, seed=1)
        x[1, at] = np.nan
        expected = np.isnan(x)
        for got in (
            ops.silu_mul(x, y, isa=isa),
            ops.silu_mul(y, x, isa=isa),
            ops.solver_update(x, y, cx=0.5, cv=0.5, isa=isa),
            ops.solver_update(y, x, cx=0.5, cv=0.5, isa=isa),
            ops.solver_update(y, y, x, cx=0.5, cv=0.5, ce=0.5, isa=isa),
            ops.guidance(np.concatenate([x, y]), branches=2, scale=3.0, isa=isa),
            ops.guidance(np.concatenate([y, x]), branches=2, scale=3.0, isa=isa),
        ):
            assert np.array_equal(np.isnan(got), expected)
        renormed = ops.guidance(np.concatenate([x, y]), branches=2, scale=3.0, renorm=True, isa=isa)
        assert np.isnan(renormed[1, at])
        assert np.isfinite(renormed[0]).all()
        heads = normal(2, 1, 46)
        heads[1, 0, at] = np.nan
        turned = np.isnan(ops.rope(heads, np.array([3, 4]), theta=1e4, isa=isa))
        assert set(np.flatnonzero(turned[1])) == {at, (at + 23) % 46}
        assert not turned[0].any()
