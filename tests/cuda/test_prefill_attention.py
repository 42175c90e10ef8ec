"""Prefill's attention by a function of the caller's, in the kernel's place: what it is given, and that nothing else
changes. The emulator's device memory is the host's: there, functions work on it through torch's CPU tensors.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from kit.compare import assert_close, assert_same_bits, norm_tolerance
from kit.models import config_of, generate, random_weights, request, sampling, stored_as

from nextstep_rt import Engine, Error, InvalidRequest, Pipeline, prefill_attention
from nextstep_rt.cli.doctor import examine
from nextstep_rt.ops import cuda

SIZES = {"hidden_size": 72, "intermediate_size": 104, "latent_channels": 6, "fm_head_dim": 56, "fm_head_mlp_ratio": 1.0}
NARROW = {**SIZES, "hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 1,
          "head_dim": 32}  # fmt: skip
Tensors = Callable[..., None]


@pytest.fixture(autouse=True)
def always_the_library(monkeypatch: pytest.MonkeyPatch, emulator: Any) -> None:
    """test_torch_gpu.py has what a real GPU can be asked for."""
    monkeypatch.setenv("NSRT_PREFILL_ROWS", "1")
    monkeypatch.delenv(prefill_attention.VARIABLE, raising=False)


class DLTensor(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
    ]


def host_tensor(array: Any, stream: int) -> torch.Tensor:
    """The same memory as a CPU tensor: an emulated device's addresses are the host's."""
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = array.__dlpack__(stream=stream)
    place = DLTensor.from_address(pointer(capsule, b"dltensor"))
    assert (place.device_type, place.device_id) == array.__dlpack_device__() == (cuda.CUDA, 0)
    place.device_type = 1  # kDLCPU
    return torch.from_dlpack(capsule)


def on_host(attention: Tensors, calls: list[Any] | None = None) -> Callable[..., None]:
    """A function for the engine; each call is noted as (rows, positions)."""

    def enqueue(q: Any, k: Any, v: Any, out: Any, stream: int) -> None:
        if calls is not None:
            calls.append((q.shape[0], k.shape[1]))
        host_tensor(out, stream).fill_(torch.nan)
        attention(*(host_tensor(array, stream) for array in (q, k, v, out)))

    return enqueue


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor) -> None:
    """The definition, in float64."""
    rows, positions, shared = q.shape[0], k.shape[1], q.shape[1] // k.shape[0]
    keys, values = (x.double().repeat_interleave(shared, 0) for x in (k, v))
    scores = q.double().transpose(0, 1) @ keys.mT
    later = torch.arange(positions)[None] > torch.arange(positions - rows, positions)[:, None]
    out.copy_((scores.masked_fill(later, -torch.inf).softmax(-1) @ values).transpose(0, 1))


def make(dtype: str = "bfloat16", **changes: Any) -> Engine:
    config = config_of(**{**SIZES, **changes})
    return Engine(config, stored_as(random_weights(config), dtype), dtype=dtype, device="cuda")


@pytest.mark.parametrize("attention", [exact, prefill_attention.sdpa])
@pytest.mark.parametrize(("h_q", "h_kv", "d_head"), [(3, 3, 40), (4, 2, 64), (4, 1, 32), (5, 1, 128), (10, 2, 40)])
def test_a_function_and_the_kernel_agree(h_q: int, h_kv: int, d_head: int, attention: Tensors) -> None:
    engine = make(num_attention_heads=h_q, num_key_value_heads=h_kv, head_dim=d_head)
    params = sampling(branches=2)
    given = request(engine.config, params, 2, 30)

    def run() -> tuple[np.ndarray, np.ndarray]:
        engine.prefill(*given[:2], max_new_tokens=params.num_tokens)
        hidden: np.ndarray = engine.state("hidden")
        return hidden, engine.decode(params, noise=given[2])

    want = run()
    calls: list[Any] = []
    engine.set_prefill_attention(on_host(attention, calls))
    got = run()
    assert calls == [(n, n) for n in given[1].sum(1)] * 2  # layers
    assert_close(got[0], want[0], norm_tolerance(16, "bfloat16"), what="hidden")
    assert_close(got[1], want[1], norm_tolerance(64, "bfloat16"), what="tokens")
    engine.set_prefill_attention(None)
    for mine, theirs in zip(run(), want, strict=True):
        assert_same_bits(mine, theirs)


@pytest.mark.parametrize("attention", [exact, prefill_attention.sdpa])
def test_prompts_longer_than_a_pass(attention: Tensors) -> None:
    """A pass of 1024 rows ends within a sequence; the next one's rows see what it left in the cache."""
    engine, seen, lent = make(**NARROW), [], []
    embeds = np.random.default_rng(0).standard_normal((3, 560, 16)).astype(np.float32)
    mask = np.arange(560)[None] >= np.array([[0], [40], [559]])

    def watched(q: Any, k: Any, v: Any, out: Any, stream: int) -> None:
        assert {array.dtype for array in (q, k, v, out)} == {"bfloat16"}
        assert (q.shape, k.shape) == (out.shape, v.shape) == ((q.shape[0], 2, 32), (1, k.shape[1], 32))
        lent.append(stream)
        on_host(attention, seen)(q, k, v, out, stream)

    def run() -> np.ndarray:
        engine.prefill(embeds, mask, max_new_tokens=2)
        hidden: np.ndarray = engine.state("hidden")
        return hidden

    want = run()
    engine.set_prefill_attention(watched)
    assert_close(run(), want, norm_tolerance(16, "bfloat16"), what="hidden")
    assert seen == [(560, 560), (464, 464)] * 2 + [(56, 520), (1, 1)] * 2
    assert len({*lent}) == 1


def test_only_many_rows_ask_for_it(monkeypatch: pytest.MonkeyPatch, emulator: Any) -> None:
    calls: list[Any] = []
    monkeypatch.delenv("NSRT_PREFILL_ROWS")
    engine, params = make(), sampling(branches=1)
    engine.set_prefill_attention(on_host(exact, calls))
    generate(engine, params, request(engine.config, params, 1, 64))
    assert not calls
    emulator.reset_launches()
    engine.prefill(np.ones((1, 65, 72), np.float32), max_new_tokens=3)
    assert calls == [(65, 65)] * 2  # layers
    assert not [name for name in emulator.launches() if "attn" in name]
    engine.decode(params, seeds=[1])
    assert calls == [(65, 65)] * 2


class OwnError(Exception):
    pass


def test_its_errors_reach_the_caller_and_the_next_request_works() -> None:
    engine, params = make(), sampling(branches=2)
    given = request(engine.config, params, 1, 20)
    want = generate(engine, params, given)
    error = OwnError("mine")

    def raises(*_: Any) -> None:
        raise error

    def second_layer(*arguments: Any) -> None:
        on_host(exact)(*arguments)
        engine.set_prefill_attention(None)

    engine.set_prefill_attention(raises)
    with pytest.raises(OwnError) as caught:
        generate(engine, params, given)
    assert caught.value is error
    assert engine.rows == 0
    with pytest.raises(InvalidRequest, match="prefill"):
        engine.decode(params, noise=given[2])
    engine.set_prefill_attention(second_layer)
    with pytest.raises(Error, match="busy"):
        generate(engine, params, given)
    engine.set_prefill_attention(on_host(exact))
    assert_close(generate(engine, params, given), want, norm_tolerance(64, "bfloat16"), what="tokens")
    engine.set_prefill_attention(None)
    assert_same_bits(generate(engine, params, given), want)


def test_arrays_are_lent_for_a_call_and_to_its_stream() -> None:
    kept: list[Any] = []

    def attention(q: Any, k: Any, v: Any, out: Any, stream: int) -> None:
        for other in (None, stream + 8):
            with pytest.raises(InvalidRequest, match=f"ready on stream {stream} and was asked for on"):
                k.__dlpack__(stream=other)
        on_host(exact)(q, k, v, out, -1)
        kept.extend((q, k, v, out))

    engine = make()
    engine.set_prefill_attention(attention)
    engine.prefill(np.ones((1, 70, 72), np.float32), max_new_tokens=1)
    assert len(kept) == 4 * 2
    for array in kept:
        with pytest.raises(InvalidRequest, match="lent for one call, which is over"):
            array.__dlpack__(stream=-1)


def test_who_takes_one() -> None:
    assert make().takes_prefill_attention
    wide = make("float32")
    assert not wide.takes_prefill_attention
    with pytest.raises(InvalidRequest, match=r"cuda:0/sm_\d+ in float32 computes the attention of prefill itself"):
        wide.set_prefill_attention(on_host(exact))
    with pytest.raises(InvalidRequest, match=r"attention is a int; give a function of \(q, k, v, out, stream\)"):
        make().set_prefill_attention(3)


def test_pipelines_install_what_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that sees no GPU leaves the kernel; a library that is named all the same is an error."""
    choice = prefill_attention.install(make())
    assert choice is not None
    assert choice.chosen == "kernel"
    assert choice.notes["sdpa"] == "torch does not see this GPU"
    assert prefill_attention.install(make("float32")) is None
    asked: list[Any] = []
    monkeypatch.setattr(prefill_attention, "install", asked.append)
    pipe = Pipeline.from_pretrained("demo", device="cuda")
    assert asked == [pipe.engine]
    monkeypatch.undo()
    monkeypatch.setenv(prefill_attention.VARIABLE, "sdpa")
    with pytest.raises(InvalidRequest, match="is 'sdpa', which does not run on cuda:0: torch does not see this GPU"):
        prefill_attention.install(make())
    prefill_attention.install(make("float32"))  # which has no choice


def test_a_chosen_function_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill_attention, "choose", lambda *_: prefill_attention.Choice("sdpa"))
    calls: list[Any] = []
    monkeypatch.setattr(prefill_attention, "hook", lambda name: on_host(prefill_attention.FUNCTIONS[name], calls))
    engine, params = make(), sampling(branches=1)
    given = request(engine.config, params, 1, 40)
    want = generate(engine, params, given)
    prefill_attention.install(engine)
    assert_close(generate(engine, params, given), want, norm_tolerance(64, "bfloat16"), what="tokens")
    assert calls


def test_doctor_says_which() -> None:
    report = examine()
    assert report["prefill_attention"]["cuda:0"]["chosen"] == "kernel"
    assert set(report["prefill_attention"]["cuda:0"]["notes"]) == {"sdpa", "flash-attn"}
