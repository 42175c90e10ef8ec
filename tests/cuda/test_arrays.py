"""What the GPU's ops say of arrays that lie otherwise than they must, and of memory that there is not."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kit.compare import assert_close
from kit.fused import attn_case, fm_case, linear_case, qkv_case

from nextstep_rt import Error, InvalidRequest, SamplingParams, ops
from nextstep_rt.ops import cuda

CAPSULE = b"dltensor"
OUT_OF_MEMORY, INVALID_VALUE = 2, 1


class Tensor(ctypes.Structure):
    """DLPack's DLManagedTensor, in the layout of its first version."""

    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("context", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class Lying:
    """The memory of an array of the GPU, at an offset or with strides."""

    def __init__(self, array: Any, offset: int = 0, strides: tuple[int, ...] | None = None) -> None:
        self.array, self.shape, self.dtype = array, array.shape, array.dtype
        self._pointer = ctypes.pythonapi.PyCapsule_GetPointer
        self._pointer.restype, self._pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        self._capsule = array.__dlpack__()
        given = Tensor.from_address(self._pointer(self._capsule, CAPSULE))
        self._tensor = Tensor.from_buffer_copy(given)
        self._tensor.byte_offset, self._tensor.context, self._tensor.deleter = offset, None, None
        if strides is not None:
            self._strides = (ctypes.c_int64 * len(strides))(*strides)
            self._tensor.strides = ctypes.cast(self._strides, ctypes.POINTER(ctypes.c_int64))

    def __dlpack__(self, **_: Any) -> Any:
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        return new(ctypes.addressof(self._tensor), CAPSULE, None)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (2, 0)


def strided(array: Any) -> Lying:
    """Its rows twice as far apart as they are long."""
    strides = [1]
    for n in reversed(array.shape[1:]):
        strides.insert(0, strides[0] * n)
    strides[0] *= 2
    return Lying(array, strides=tuple(strides))


WRONG: dict[str, tuple[Callable[[Any], Lying], str]] = {
    "strided": (strided, "is strided; give a contiguous copy"),
    "4 bytes off": (lambda array: Lying(array, 4), "no multiple of 16 bytes; give a copy"),
    "8 bytes off": (lambda array: Lying(array, 8), "no multiple of 16 bytes; give a copy"),
}


def on_device(value: Any) -> Any:
    """Arrays, and lists of arrays, to the GPU."""
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [on_device(item) for item in value]
    return cuda.to_device(value) if isinstance(value, np.ndarray) else value


def arguments(op: str) -> dict[str, Any]:
    """Right ones of an op, on the device."""
    rng = np.random.default_rng(0)
    params = SamplingParams(num_tokens=4, solver="euler", num_inference_steps=2)
    made, head = fm_case(rng, params, 2, 1, 48)
    times = made["times"].shape[0]
    x = {"x": rng.standard_normal((2, 40)).astype(np.float32)}
    cases: dict[str, dict[str, Any]] = {
        "linear": linear_case(rng, 2, 24, 40),
        "gated_linear": {**x, "gate": linear_case(rng, 2, 24, 40)["weight"], "up": np.ones((24, 40), np.float32)},
        "qkv_linear": qkv_case(rng, 2, 40, 2, 1, 8),
        "attn_decode": attn_case(rng, 2, 2, 1, 8, 16),
        "rms_norm": {**x, "weight": np.ones(40, np.float32), "eps": 1e-6},
        "add_position": {"hidden": x["x"], "position": np.ones(40, np.float32)},
        "fm_modulations": made,
        "fm_head": {"modulations": np.zeros((times * 2, 8 * 56), np.float32), **head},
    }
    return {name: on_device(value) for name, value in cases[op].items()}


MATRICES = (
    ("linear", "x"), ("linear", "weight"), ("linear", "residual"), ("gated_linear", "gate"), ("gated_linear", "up"),
    ("qkv_linear", "x"), ("qkv_linear", "k_cache"), ("qkv_linear", "v_cache"), ("attn_decode", "q"),
    ("attn_decode", "k_cache"), ("attn_decode", "v_cache"), ("rms_norm", "x"), ("add_position", "hidden"),
    ("fm_modulations", "condition"), ("fm_modulations", "weight"), ("fm_head", "modulations"), ("fm_head", "noise"),
)  # fmt: skip
VECTORS = (("linear", "bias"), ("linear", "norm_weight"), ("rms_norm", "weight"), ("fm_modulations", "bias"))


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(("op", "name"), MATRICES)
def test_matrices_that_lie_otherwise(op: str, name: str, wrong: str) -> None:
    lie, said = WRONG[wrong]
    given = arguments(op)
    with pytest.raises(InvalidRequest, match=said):
        getattr(ops, op)(**{**given, name: lie(given[name])})


@pytest.mark.parametrize(("op", "name"), VECTORS)
def test_vectors_that_lie_otherwise(op: str, name: str) -> None:
    given = arguments(op)
    with pytest.raises(InvalidRequest, match="no multiple of 16 bytes; give a copy"):
        getattr(ops, op)(**{**given, name: Lying(given[name], 4)})


@pytest.mark.parametrize("wrong", WRONG)
def test_results_that_lie_otherwise(wrong: str) -> None:
    lie, said = WRONG[wrong]
    given = arguments("linear")
    with pytest.raises(InvalidRequest, match=f"out .*{said}"):
        ops.linear(given["x"], given["weight"], out=lie(cuda.empty((2, 24))))


def test_an_array_that_lies_right_is_taken() -> None:
    """At another multiple of 16 bytes: what the tests above refuse, they refuse for no other reason."""
    case = linear_case(np.random.default_rng(0), 3, 24, 40)
    x, weight = cuda.to_device(case["x"]), cuda.to_device(case["weight"])
    shifted = Lying(x, 160)  # a row further on
    shifted._tensor.shape = ctypes.cast((ctypes.c_int64 * 2)(2, 40), ctypes.POINTER(ctypes.c_int64))
    shifted.shape = (2, 40)
    got = ops.linear(shifted, weight, out=cuda.empty((2, 24)))
    assert_close(got.numpy(), case["x"][1:] @ case["weight"].T, 1e-5)


def test_no_room_for_a_workspace_says_how_much_was_wanted(emulator: Any) -> None:
    given = arguments("linear")
    emulator.fail_next("cudaMallocAsync", OUT_OF_MEMORY)
    with pytest.raises(Error, match=r"no room for \d+ MiB of an op's workspace: \d+ MiB are free"):
        ops.linear(**given)
    ops.linear(**given)


def test_a_workspace_that_cannot_be_given_back_spoils_no_other_call(emulator: Any) -> None:
    given = arguments("linear")
    want = ops.linear(**given).numpy()
    emulator.fail_next("cudaFreeAsync", INVALID_VALUE)
    for _ in range(2):
        assert np.array_equal(ops.linear(**given).numpy(), want)
