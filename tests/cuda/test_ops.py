"""nextstep_rt.ops on arrays of a GPU, or of the CPU that emulates one, against the same ops in host memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kit.compare import assert_close, assert_same_bits
from kit.fused import attn_case, fm_case, linear_case, normal, qkv_case

from nextstep_rt import InvalidRequest, SamplingParams, ops
from nextstep_rt.ops import cuda

TOLERANCE = {"float32": 2e-5, "bfloat16": 3e-2}
MATRICES = {"weight", "weights", "gate", "up", "cond_weight", "image_in"}


def half(array: Any) -> torch.Tensor:
    return torch.tensor(array).to(torch.bfloat16)


def halved(array: Any) -> Any:
    """Rounded to bfloat16, and float32 again."""
    return half(array).float().numpy()


def on_device(value: Any, dtype: str, *, as_dtype: bool) -> Any:
    """Arrays to the GPU; those that `as_dtype` names are converted, one-dimensional ones stay float32."""
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [on_device(item, dtype, as_dtype=as_dtype) for item in value]
    if not isinstance(value, np.ndarray):
        return value
    converted = as_dtype and dtype == "bfloat16" and value.ndim > 1 and value.dtype == np.float32
    return cuda.to_device(half(value) if converted else value)


def moved(case: dict[str, Any], dtype: str, activations: set[str]) -> dict[str, Any]:
    return {name: on_device(value, dtype, as_dtype=name in MATRICES | activations) for name, value in case.items()}


def rounded(case: dict[str, Any], dtype: str, activations: set[str]) -> dict[str, Any]:
    """The host's arguments, rounded as the GPU's are."""
    if dtype == "float32":
        return dict(case)

    def of(value: Any) -> Any:
        if isinstance(value, list):
            return [of(item) for item in value]
        if not isinstance(value, np.ndarray) or value.ndim < 2 or value.dtype != np.float32:
            return value
        return halved(value)

    return {name: of(value) if name in MATRICES | activations else value for name, value in case.items()}


def compare(op: Callable[..., Any], case: dict[str, Any], dtype: str, activations: set[str]) -> None:
    want = op(**rounded(case, dtype, activations))
    given = moved(case, dtype, activations)
    got, again = op(**given).numpy(), op(**given).numpy()
    assert_close(got, want, TOLERANCE[dtype], what=op.__name__)
    assert_same_bits(got, again)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 2, 5, 16])
def test_linear(dtype: str, rows: int) -> None:
    case = linear_case(np.random.default_rng(rows), rows, 70, 104)
    normed = {name: case[name] for name in ("x", "weight", "norm_weight")}
    plain = {name: case[name] for name in ("x", "weight", "bias")}
    compare(ops.linear, {**case, "silu": True}, dtype, set())
    compare(ops.linear, normed, dtype, set())
    compare(ops.linear, plain, dtype, {"x"})


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_gated_linear(dtype: str) -> None:
    case = linear_case(np.random.default_rng(3), 4, 56, 72)
    gate = {"x": case["x"], "gate": case["weight"], "up": case["weight"][::-1].copy(), "gate_bias": case["bias"]}
    compare(ops.gated_linear, gate, dtype, {"x"})
    compare(ops.gated_linear, {**gate, "norm_weight": case["norm_weight"]}, dtype, set())


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("h_q", "h_kv", "d"), [(4, 2, 40), (6, 1, 64)])
def test_qkv_linear_writes_the_caches(dtype: str, h_q: int, h_kv: int, d: int) -> None:
    case = qkv_case(np.random.default_rng(d), 5, 72, h_q, h_kv, d)
    caches = {"k_cache", "v_cache"}
    host, device = rounded(case, dtype, caches), moved(case, dtype, caches)
    host |= {name: host[name].copy() for name in caches}
    assert_close(ops.qkv_linear(**device).numpy(), ops.qkv_linear(**host), TOLERANCE[dtype], what="q")
    for name in caches:
        assert_close(device[name].numpy(), host[name], TOLERANCE[dtype], what=name)
        untouched = np.ones(host[name].shape, bool)
        untouched[case["places"][:, 0], :, case["places"][:, 1]] = False
        assert_same_bits(device[name].numpy()[untouched], host[name][untouched])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("h_q", "h_kv", "d"), [(4, 2, 40), (8, 2, 64), (5, 1, 128)])
def test_attn_decode(dtype: str, h_q: int, h_kv: int, d: int) -> None:
    case = attn_case(np.random.default_rng(d), 5, h_q, h_kv, d, 150)
    compare(ops.attn_decode, case, dtype, {"q", "k_cache", "v_cache"})
    compare(ops.attn_decode, {**case, "starts": None}, dtype, {"q", "k_cache", "v_cache"})


def test_rms_norm_and_add_position() -> None:
    rng = np.random.default_rng(5)
    x, weight = normal(rng, 3, 72), normal(rng, 72)
    compare(ops.rms_norm, {"x": x, "weight": weight, "eps": 1e-5}, "float32", set())
    compare(ops.add_position, {"hidden": x, "position": weight}, "float32", set())
    got = ops.add_position(cuda.to_device(x), dtype="bfloat16")
    assert got.dtype == "bfloat16"
    assert_same_bits(got.numpy(), halved(x))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("solver", ["euler", "heun", "sde"])
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_fm_head(dtype: str, solver: str, branches: int) -> None:
    rng = np.random.default_rng(branches)
    params = SamplingParams(num_tokens=4, solver=solver, num_inference_steps=3)
    made, head = fm_case(rng, params, branches, 2, 48)
    compare(ops.fm_modulations, made, dtype, {"condition"})
    modulations = ops.fm_modulations(**rounded(made, dtype, {"condition"}))
    want = ops.fm_head(modulations=modulations, **rounded(head, dtype, set()))
    device = moved({"modulations": modulations, **head}, dtype, {"modulations"})
    for got, wanted, name in zip(ops.fm_head(**device), want, ("tokens", "embeds"), strict=True):
        assert_close(got.numpy(), wanted, 5 * TOLERANCE[dtype], what=name)
    assert ops.fm_head(**{**device, "image_in": []})[1] is None


def test_out_takes_the_result_and_says_its_dtype() -> None:
    case = linear_case(np.random.default_rng(9), 2, 24, 40)
    x, weight = cuda.to_device(half(case["x"])), cuda.to_device(half(case["weight"]))
    out = cuda.empty((2, 24))
    assert ops.linear(x, weight, out=out) is out
    assert_close(out.numpy(), halved(case["x"]) @ halved(case["weight"]).T, 1e-5)


class Skewed:
    """An array that says it is elsewhere or otherwise."""

    def __init__(self, array: Any, device: tuple[int, int] = (2, 0)) -> None:
        self.array, self.device, self.dtype, self.shape = array, device, array.dtype, array.shape

    def __dlpack__(self, **options: Any) -> Any:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "host weight": ({"weight": np.zeros((24, 40), np.float32)}, "weight is on device type 1; move it to the GPU"),
    "another GPU": ({"weight": Skewed(np.zeros((24, 40), np.float32), (2, 1))}, "weight is on cuda:1 and the op runs"),
    "no array": ({"weight": [1.0]}, "weight is a list; give an array of a CUDA device"),
    "width": ({"weight": (24, 48)}, "their last dimensions must be the same"),
    "dimensions": ({"weight": (24,)}, r"weight has shape \[24\]; it must be \[\*, \*\]"),
    "bias": ({"bias": (23,)}, r"bias has shape \[23\]; it must be \[24\]"),
    "out": ({"out": (3, 24)}, r"out has shape \[3, 24\]; it must be \[2, 24\]"),
    "rows": ({"x": (65, 40)}, "linear takes 1 to 64 rows, not 65|at most 16 rows at a time"),
    "odd width": ({"x": (2, 42), "weight": (24, 42)}, "multiple of 8, not 42"),
    "threads": ({"threads": 2}, "threads, isa and round_x are the CPU's"),
    "stream": ({"stream": -4}, "stream is -4"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    changes, message = REFUSED[name]
    given: dict[str, Any] = {"x": (2, 40), "weight": (24, 40)} | changes
    arrays = {
        key: cuda.to_device(np.zeros(value, np.float32)) if isinstance(value, tuple) else value
        for key, value in given.items()
    }
    if name == "another GPU":
        arrays["weight"] = changes["weight"]
    with pytest.raises(InvalidRequest, match=message):
        ops.linear(**arrays)


def test_dtypes_that_do_not_fit_are_refused() -> None:
    x, integers = cuda.to_device(np.zeros((2, 40), np.float32)), cuda.to_device(np.zeros((24, 40), np.int32))
    with pytest.raises(InvalidRequest, match="weight has dtype int32; it must be float32 or bfloat16"):
        ops.linear(x, integers)
    with pytest.raises(InvalidRequest, match="float32 weights need float32 activations"):
        ops.linear(cuda.to_device(half(np.zeros((2, 40)))), cuda.to_device(np.zeros((24, 40), np.float32)))
    rows = cuda.to_device(np.zeros((16, 16), np.float32))
    with pytest.raises(InvalidRequest, match="out shares memory with an input"):
        ops.linear(rows, cuda.to_device(np.zeros((16, 16), np.float32)), out=rows)
    with pytest.raises(InvalidRequest, match="dtype is 'float16'"):
        cuda.empty((1,), "float16")
    with pytest.raises(InvalidRequest, match="values has shape"):
        x.fill(np.zeros((3, 40), np.float32))
