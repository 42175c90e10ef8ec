"""What the ops take and give: DLPack both ways, any layout, read-only memory, nothing at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kit.cases import LEVELS, bf16, normal
from kit.compare import assert_same_bits
from kit.isolated import run_python
from kit.op_cases import CASES, LENGTHS

from nextstep_rt import ops


def strided(array: np.ndarray) -> np.ndarray:
    """The same numbers, every axis with a gap."""
    wide = np.full([2 * n for n in array.shape], np.nan, array.dtype)
    view = wide[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def reversed_axes(array: np.ndarray) -> np.ndarray:
    """The same numbers, stored column by column."""
    return np.ascontiguousarray(array.T).T


def backwards(array: np.ndarray) -> np.ndarray:
    """The same numbers with negative strides."""
    flip = tuple(slice(None, None, -1) for _ in array.shape)
    return np.ascontiguousarray(array[flip])[flip]


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


def misaligned(array: np.ndarray) -> np.ndarray:
    raw = np.zeros(array.nbytes + 1, np.uint8)
    view = raw[1:].view(array.dtype).reshape(array.shape)
    view[...] = array
    assert not view.flags.aligned
    return view


LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "strided": strided,
    "transposed": reversed_axes,
    "backwards": backwards,
    "read-only": read_only,
    "misaligned": misaligned,
    "torch": lambda a: torch.from_numpy(a.copy()),
    "torch strided": lambda a: torch.from_numpy(strided(a)),
    "torch transposed": lambda a: torch.from_numpy(reversed_axes(a)),
    "torch offset": lambda a: torch.cat([torch.zeros(1), torch.from_numpy(a.copy()).flatten()])[1:].view(a.shape),
    "torch parameter": lambda a: torch.nn.Parameter(torch.from_numpy(a.copy())).detach(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CASES)
def test_layouts(name: str, layout: str) -> None:
    op, arguments = CASES[name]
    want = op(arguments)
    assert_same_bits(op({key: LAYOUTS[layout](array) for key, array in arguments.items()}), want)
    for key, array in arguments.items():
        before = array.copy()
        assert_same_bits(op({**arguments, key: LAYOUTS[layout](array)}), want, what=f"{key} {layout}")
        assert_same_bits(array, before, what=f"{key} was written to")


@pytest.mark.parametrize("layout", ["strided", "transposed", "offset"])
def test_bfloat16_layouts(layout: str) -> None:
    weight, cache, x = bf16(normal(11, 21)), bf16(normal(2, 2, 9, 12)), normal(3, 21)

    def laid_out(t: torch.Tensor) -> torch.Tensor:
        if layout == "transposed":
            return t.transpose(-1, -2).contiguous().transpose(-1, -2)
        if layout == "strided":
            return torch.stack([t, t * 0 + 9], dim=-1)[..., 0]
        return torch.cat([torch.zeros(1, dtype=t.dtype), t.flatten()])[1:].view(t.shape)

    assert_same_bits(ops.linear(x, laid_out(weight)), ops.linear(x, weight))
    q = normal(2, 4, 12)
    assert_same_bits(
        ops.attention(q, laid_out(cache), laid_out(cache), LENGTHS), ops.attention(q, cache, cache, LENGTHS)
    )


@pytest.mark.parametrize("name", CASES)
def test_results_are_fresh_arrays_that_dlpack_takes(name: str) -> None:
    op, arguments = CASES[name]
    got = op(arguments)
    assert type(got) is np.ndarray
    assert got.dtype == np.float32
    assert got.flags.c_contiguous
    assert got.flags.writeable
    assert not any(np.shares_memory(got, array) for array in arguments.values())
    tensor = torch.from_dlpack(got)
    assert tensor.dtype == torch.float32
    copy = got.copy()
    del got
    assert_same_bits(tensor.numpy(), copy)


def test_int64_arguments_take_any_layout() -> None:
    x = normal(3, 2, 8)
    want = ops.rope(x, np.array([5, 0, 9]), theta=1e4)
    for positions in (np.array([5, 1, 0, 1, 9])[::2], torch.tensor([5, 0, 9]), torch.tensor([9, 0, 5]).flip(0)):
        assert_same_bits(ops.rope(x, positions, theta=1e4), want)


EMPTY = [
    "ops.linear(zeros(0, 8), zeros(9, 8), isa=isa)",
    "ops.linear(zeros(0, 8), torch.zeros(9, 8, dtype=torch.bfloat16), round_x=True, isa=isa)",
    "ops.linear(zeros(2, 8), zeros(0, 8), isa=isa)",
    "ops.linear(zeros(2, 0), zeros(3, 0), isa=isa)",
    "ops.rms_norm(zeros(0, 8), zeros(8), eps=1e-6, isa=isa)",
    "ops.rms_norm(zeros(2, 0), zeros(0), eps=1e-6, isa=isa)",
    "ops.layer_norm(zeros(0, 8), isa=isa)",
    "ops.rope(zeros(0, 2, 8), np.zeros(0, np.int64), theta=1e4, isa=isa)",
    "ops.attention(zeros(0, 2, 8), zeros(0, 1, 4, 8), zeros(0, 1, 4, 8), np.zeros(0, np.int64), isa=isa)",
    "ops.attention(zeros(1, 0, 8), zeros(1, 1, 4, 8), zeros(1, 1, 4, 8), np.array([4]), isa=isa)",
    "ops.attention(zeros(1, 2, 0), zeros(1, 1, 4, 0), zeros(1, 1, 4, 0), np.array([4]), isa=isa)",
    "ops.silu_mul(zeros(0, 8), zeros(0, 8), isa=isa)",
    "ops.guidance(zeros(0, 8), branches=2, scale=2.0, renorm=True, isa=isa)",
    "ops.solver_update(zeros(0, 8), zeros(0, 8), cx=1.0, cv=1.0, isa=isa)",
]


@pytest.mark.parametrize("isa", LEVELS)
def test_empty_arrays_give_empty_results(isa: str) -> None:
    """In a process of its own: reading an empty array may crash. A sum over nothing is zero."""
    code = """
    import sys
    import numpy as np, torch
    from nextstep_rt import ops

    def zeros(*shape):
        return np.zeros(shape, np.float32)

    isa = sys.argv[1]
    for call in sys.argv[2:]:
        print(call, flush=True)
        got = eval(call)
        assert not got.any(), got
    """
    run_python(code, isa, *EMPTY)
