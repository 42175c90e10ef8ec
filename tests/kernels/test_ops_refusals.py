"""What the ops refuse, with the argument's name in the message."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kit.cases import bf16, normal
from kit.compare import assert_same_bits
from kit.op_cases import CASES, PLACES

from nextstep_rt import InvalidRequest, ops


class Odd:
    """An object whose __dlpack__ gives or raises what it was made with."""

    def __init__(self, given: Any) -> None:
        self.given = given

    def __dlpack__(self, **_: Any) -> Any:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


NOT_ARRAYS: dict[str, Any] = {
    "list": [[1.0, 2.0], [3.0, 4.0]],
    "string": "abc",
    "bytes": b"abc",
    "number": 3.0,
    "object": object(),
    "dict": {},
    "numpy scalar": np.float32(1),
    "float64": np.zeros((3, 21)),
    "float16": np.zeros((3, 21), np.float16),
    "int32": np.zeros((3, 21), np.int32),
    "complex64": np.zeros((3, 21), np.complex64),
    "big endian": np.zeros((3, 21), ">f4"),
    "structured": np.zeros(3, [("a", "f4")]),
    "objects": np.array([None, "a"]),
    "strings": np.array(["a", "b"]),
    "torch float64": torch.zeros(3, 21, dtype=torch.float64),
    "torch float16": torch.zeros(3, 21, dtype=torch.float16),
    "torch int32": torch.zeros(3, 21, dtype=torch.int32),
    "torch meta": torch.zeros(3, 21, device="meta"),
    "torch with gradient": torch.zeros(3, 21, requires_grad=True),
    "torch sparse": torch.zeros(3, 21).to_sparse(),
    "raising": Odd(ValueError("no")),
    "0-d": np.zeros((), np.float32),
    "5-d": np.zeros((1, 1, 1, 1, 1), np.float32),
}


@pytest.mark.parametrize("bad", NOT_ARRAYS)
@pytest.mark.parametrize(("name", "argument"), PLACES)
def test_what_is_no_fitting_array_is_refused_by_name(name: str, argument: str, bad: str) -> None:
    op, arguments = CASES[name]
    with pytest.raises(InvalidRequest, match=rf"\b{argument}\b"):
        op({**arguments, argument: NOT_ARRAYS[bad]})


# The first axis of an op's only array, or of what is held to its rows: any length fits.
FREE = {("rms_norm", "x", 0), ("token_norm", "x", 0), ("token_norm", "x", 1), ("rope", "x", 1), ("guidance", "v", 1)}


@pytest.mark.parametrize(("name", "argument"), PLACES)
def test_wrong_shapes_are_refused(name: str, argument: str) -> None:
    op, arguments = CASES[name]
    good = arguments[argument]
    # Where the array that others are held to is changed, one of the others is named.
    names = [*arguments, "positions", "lengths", "query", "head_dim", "branches"]
    for axis in range(good.ndim):
        if (name, argument, axis) in FREE:
            continue
        wrong = np.zeros([n + (i == axis) for i, n in enumerate(good.shape)], np.float32)
        with pytest.raises(InvalidRequest, match="|".join(rf"\b{other}\b" for other in names)):
            op({**arguments, argument: wrong})
    for ndim in (good.ndim - 1, good.ndim + 1):
        with pytest.raises(InvalidRequest, match=rf"\b{argument}\b"):
            op({**arguments, argument: np.zeros([2] * ndim, np.float32)})


def test_dlpack_that_gives_no_capsule() -> None:
    with pytest.raises(InvalidRequest, match=r"\bgate\b"):
        ops.silu_mul(Odd(3), normal(3, 21))


def test_bfloat16_where_float32_is_needed() -> None:
    for name, argument in PLACES:
        if (name, argument) in (("linear", "weight"), ("attention", "k")):
            continue
        op, arguments = CASES[name]
        with pytest.raises(InvalidRequest, match=rf"\b{argument}\b.*bfloat16"):
            op({**arguments, argument: bf16(arguments[argument])})


class DLTensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


def capsule_of(device_type: int, code: int = 2, bits: int = 32, lanes: int = 1, name: bytes = b"dltensor") -> Any:
    """A DLPack tensor [3, 21] that says it is on some device and of some type."""
    array = np.zeros((3, 21), np.float64)
    shape = (ctypes.c_int64 * 2)(3, 21)
    tensor = DLTensor(array.ctypes.data, device_type, 0, 2, code, bits, lanes, shape, None, 0, None, None)
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    keep.extend((array, shape, tensor, name))
    return Odd(new(ctypes.addressof(tensor), name, None))


keep: list[Any] = []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device_type": 2}, r"gate.*device"),
        ({"device_type": 8}, r"gate.*device"),
        ({"device_type": 1, "bits": 64}, r"gate.*64 bits"),
        ({"device_type": 1, "bits": 16}, r"gate.*16 bits"),
        ({"device_type": 1, "lanes": 4}, r"gate.*dtype"),
        ({"device_type": 1, "code": 5}, r"gate.*dtype"),
        ({"device_type": 1, "name": b"used_dltensor"}, r"gate"),
        ({"device_type": 1, "name": b"other"}, r"gate.*other"),
    ],
)
def test_foreign_capsules(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ops.silu_mul(capsule_of(**changes), normal(3, 21))


def test_a_foreign_capsule_that_fits() -> None:
    assert_same_bits(ops.silu_mul(capsule_of(1), normal(3, 21)), np.zeros((3, 21), np.float32) * normal(3, 21))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.rope(normal(2, 3, 7), np.array([0, 1]), theta=1e4), "head_dim is 7"),
        (lambda: ops.rope(normal(2, 3, 8), np.array([0, 1, 2]), theta=1e4), "positions"),
        (lambda: ops.rope(normal(2, 3, 8), np.array([0.0, 1.0], np.float32), theta=1e4), "positions.*int64"),
        (lambda: ops.rope(normal(2, 3, 8), [0, 1], theta=1e4), "positions is a list"),
        (lambda: ops.rope(normal(2, 3, 8), np.array([0, 1]), theta=0.0), "theta is 0"),
        (lambda: ops.rope(normal(2, 3, 8), np.array([0, 1]), theta=float("nan")), "theta is nan"),
        (lambda: ops.attention(normal(1, 3, 8), normal(1, 2, 5, 8), normal(1, 2, 5, 8), np.array([5])), "3 query"),
        (lambda: ops.attention(normal(1, 2, 8), normal(1, 2, 5, 8), normal(1, 2, 5, 8), np.array([6])), "lengths.*6"),
        (lambda: ops.attention(normal(1, 2, 8), normal(1, 2, 5, 8), normal(1, 2, 5, 8), np.array([0])), "lengths.*0"),
        (lambda: ops.attention(normal(1, 2, 8), normal(1, 2, 5, 8), bf16(normal(1, 2, 5, 8)), np.array([1])), "v has"),
        (lambda: ops.attention(normal(1, 2, 8), normal(1, 0, 5, 8), normal(1, 0, 5, 8), np.array([1])), "0 key"),
        (lambda: ops.guidance(normal(4, 8), branches=0, scale=1.0), "branches is 0"),
        (lambda: ops.guidance(normal(4, 8), branches=4, scale=1.0), "branches is 4"),
        (lambda: ops.guidance(normal(4, 8), branches=3, scale=1.0), "4 rows"),
        (lambda: ops.solver_update(normal(2, 3), normal(2, 3), cx=1.0, cv=1.0, ce=0.5), "noise"),
        (lambda: ops.layer_norm(normal(2, 3), normal(3)), "bias"),
        (lambda: ops.layer_norm(normal(2, 3), shift=normal(2, 3)), "scale"),
        (lambda: ops.linear(normal(2, 3), normal(4, 3), threads=-1), "threads is -1"),
        (lambda: ops.linear(normal(2, 3), normal(4, 3), threads=10**6), "threads is 1000000"),
        (lambda: ops.linear(normal(2, 3), normal(4, 3), isa="sse9"), "sse9.*portable"),
        (lambda: ops.token_norm(normal(2, 3), isa=""), "instruction set"),
    ],
)
def test_impossible_calls(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        call()
