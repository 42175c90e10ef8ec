"""The CUDA kernels on arrays of a GPU: outputs are allocated here, arguments are checked by the native module."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from .. import _core
from ..errors import Error

CUDA = 2  # kDLCUDA, DLPack's number of the device type


def is_cuda(array: Any) -> bool:
    """Whether an array lies on a GPU."""
    device = getattr(array, "__dlpack_device__", None)
    try:
        return device is not None and device()[0] == CUDA
    except (BufferError, RuntimeError, ValueError):  # torch's "meta" and the like, which have no place
        return False


def native() -> Any:
    """The native functions; raises Error in a build without CUDA."""
    module = getattr(_core, "cuda", None)
    if module is None:
        raise Error("these arrays are on a GPU, but this package was built without CUDA; build it with NSRT_CUDA=ON")
    return module


def dtype_of(array: Any) -> str:
    """An array's dtype by name, of any library."""
    return str(getattr(array, "dtype", "none")).removeprefix("torch.")


def result_dtype(array: Any) -> str:
    """The dtype of activations like these; what is refused later counts as float32."""
    return "bfloat16" if dtype_of(array) == "bfloat16" else "float32"


def size(array: Any, axis: int) -> int:
    """One dimension; 0 of what has none, which the native module then refuses by name."""
    shape = getattr(array, "shape", ())
    return int(shape[axis]) if -len(shape) <= axis < len(shape) else 0


def empty(shape: Sequence[int], dtype: str = "float32", device: int = 0) -> Any:
    """A new uninitialised array on a GPU, "float32", "bfloat16" or "int32".

    It has ``__dlpack__``, ``fill(host_array)`` and ``numpy()``. Raises Error where there is no such device or no room.
    """
    return native().DeviceArray(list(shape), dtype, device)


def to_device(array: Any, device: int = 0) -> Any:
    """A copy of a host array on a GPU."""
    made = empty(array.shape, dtype_of(array), device)
    made.fill(array)
    return made


class Call:
    """One op's place: where its outputs are allocated and on which stream it runs."""

    def __init__(self, first: Any, stream: int | None) -> None:
        self._first = first
        torch = sys.modules.get("torch")
        self._torch = torch if torch is not None and isinstance(first, torch.Tensor) else None
        if stream is None and self._torch is not None:
            stream = self._torch.cuda.current_stream(first.device).cuda_stream
        self.stream = stream

    def out(self, given: Any, shape: Sequence[int], dtype: str) -> Any:
        """`given`, or a new array beside the first argument."""
        if given is not None:
            return given
        if self._torch is not None:
            return self._first.new_empty(shape, dtype=getattr(self._torch, dtype))
        return empty(shape, dtype, self._first.__dlpack_device__()[1])


def linear(
    x: Any,
    weight: Any,
    bias: Any,
    residual: Any,
    silu: bool,
    norm_weight: Any,
    eps: float,
    out: Any,
    stream: int | None,
) -> Any:
    """See ops.linear."""
    call = Call(x, stream)
    dtype = "float32" if residual is not None else activations(x, weight, norm_weight)
    out = call.out(out, (size(x, 0), size(weight, 0)), dtype)
    native().linear(x, weight, bias, residual, silu, norm_weight, eps, out, call.stream)
    return out


def activations(x: Any, weight: Any, norm_weight: Any) -> str:
    """The dtype in which a product's rows are: x's, or behind a norm, the weight's."""
    return result_dtype(x if norm_weight is None else weight)


def gated_linear(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any],
    norm_weight: Any,
    eps: float,
    out: Any,
    stream: int | None,
) -> Any:
    """See ops.gated_linear."""
    call = Call(x, stream)
    gate, up = weights
    out = call.out(out, (size(x, 0), size(gate, 0)), activations(x, gate, norm_weight))
    native().gated_linear(x, gate, up, *biases, norm_weight, eps, out, call.stream)
    return out


def qkv_linear(
    x: Any,
    weights: Sequence[Any],
    biases: Sequence[Any],
    tables: Sequence[Any],
    places: Any,
    caches: Sequence[Any],
    norm_weight: Any,
    eps: float,
    out: Any,
    stream: int | None,
) -> Any:
    """See ops.qkv_linear."""
    call = Call(x, stream)
    d_head = size(caches[0], 3)
    shape = (size(x, 0), size(weights[0], 0) // max(d_head, 1), d_head)
    out = call.out(out, shape, activations(x, weights[0], norm_weight))
    native().qkv_linear(
        x, list(weights), list(biases), list(tables), places, *caches, norm_weight, eps, out, call.stream
    )
    return out


def attn_decode(q: Any, k: Any, v: Any, places: Any, starts: Any, out: Any, stream: int | None) -> Any:
    """See ops.attn_decode."""
    call = Call(q, stream)
    out = call.out(out, q.shape, result_dtype(q))
    native().attn_decode(q, k, v, places, starts, out, call.stream)
    return out


def rms_norm(x: Any, weight: Any, eps: float, out: Any, stream: int | None) -> Any:
    """See ops.rms_norm."""
    call = Call(x, stream)
    out = call.out(out, x.shape, "float32")
    native().rms_norm(x, weight, eps, out, call.stream)
    return out


def add_position(hidden: Any, position: Any, dtype: str, out: Any, stream: int | None) -> Any:
    """See ops.add_position."""
    call = Call(hidden, stream)
    out = call.out(out, hidden.shape, dtype)
    native().add_position(hidden, position, out, call.stream)
    return out


def fm_modulations(
    condition: Any, times: Any, cond: Sequence[Any], modulation: Sequence[Any], out: Any, stream: int | None
) -> Any:
    """See ops.fm_modulations."""
    call = Call(condition, stream)
    shape = (size(times, 0) * size(condition, 0), size(modulation[0], 0))
    out = call.out(out, shape, result_dtype(condition))
    native().fm_modulations(condition, times, *cond, *modulation, out, call.stream)
    return out


def fm_head(
    weights: Sequence[Any],
    modulations: Any,
    noise: Any,
    plan: Sequence[float],
    branches: int,
    scales: tuple[float, float],
    flags: tuple[bool, bool],
    image_in: Sequence[Any],
    outputs: tuple[Any, Any],
    stream: int | None,
) -> tuple[Any, Any]:
    """See ops.fm_head."""
    call = Call(modulations, stream)
    images, d_tok = size(noise, 1), size(noise, 2)
    tokens = call.out(outputs[0], (images, d_tok), "float32")
    embeds = call.out(outputs[1], (branches * images, size(image_in[0], 0)), "float32") if image_in else None
    native().fm_head(
        list(weights), modulations, noise, list(plan), branches, *scales, *flags, list(image_in), tokens, embeds,
        call.stream,
    )  # fmt: skip
    return tokens, embeds
