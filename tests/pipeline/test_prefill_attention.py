"""The choice of prefill's attention, with clocks that tests set. tests/cuda has the engines that are given it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kit.commands import run
from kit.compare import assert_close
from kit.isolated import run_python
from kit.models import small_engine

from nextstep_rt import InvalidRequest, _core, prefill_attention
from nextstep_rt.prefill_attention import CANDIDATES, RELEASED, Choice, HeadShape, choose, fastest, measure, time_each


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(prefill_attention.VARIABLE, raising=False)
    monkeypatch.setattr(prefill_attention, "_measured", {})


def clock(monkeypatch: pytest.MonkeyPatch, times: dict[str, Any], missing: dict[str, str] | None = None) -> list[Any]:
    """Candidates take these times, raise these errors, or are missing for these reasons. Returns who is timed."""
    timed: list[Any] = []

    def microseconds(name: str, device: int, shape: HeadShape) -> float:
        timed.append((name, device, shape))
        if isinstance(times[name], Exception):
            raise times[name]
        return float(times[name])

    monkeypatch.setattr(prefill_attention, "_microseconds", microseconds)
    monkeypatch.setattr(prefill_attention, "_missing", lambda name, _: (missing or {}).get(name))
    return timed


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({}, "kernel"),
        ({"kernel": 50.0}, "kernel"),
        ({"kernel": 50.0, "flash-attn": 20.0, "sdpa": 30.0}, "flash-attn"),
        ({"kernel": 50.0, "flash-attn": 30.0, "sdpa": 20.0}, "sdpa"),
        ({"kernel": 50.0, "flash-attn": 60.0, "sdpa": 20.0}, "sdpa"),
        ({"kernel": 20.0, "flash-attn": 30.0, "sdpa": 50.0}, "kernel"),
        ({"kernel": 50.0, "sdpa": 46.0}, "kernel"),  # noise decides nothing
        ({"kernel": 50.0, "flash-attn": 20.0, "sdpa": 19.0}, "flash-attn"),
        ({"sdpa": 50.0}, "sdpa"),
        ({"flash-attn": 50.0, "sdpa": 10.0}, "sdpa"),
    ],
)
def test_the_fastest_is_taken(times: dict[str, float], chosen: str) -> None:
    assert fastest(times) == chosen
    assert fastest(dict(reversed(times.items()))) == chosen


def test_a_candidate_that_fails_is_dropped() -> None:
    def no_image() -> float:
        raise RuntimeError("no kernel image is available for execution on the device\nCompile with TORCH_USE_CUDA_DSA")

    times, reasons = time_each({"kernel": lambda: 12.345, "flash-attn": no_image, "sdpa": lambda: 7.0})
    assert times == {"kernel": 12.3, "sdpa": 7.0}
    assert reasons == {"flash-attn": "RuntimeError: no kernel image is available for execution on the device"}
    with pytest.raises(KeyboardInterrupt):
        time_each({"kernel": lambda: (_ for _ in ()).throw(KeyboardInterrupt)})


def test_a_choice_and_its_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, {"kernel": 90, "sdpa": ValueError("off by 0.4")}, {"flash-attn": "flash-attn is not installed"})
    choice = measure(0, RELEASED)
    assert choice == Choice(
        "kernel",
        microseconds={"kernel": 90.0},
        notes={"flash-attn": "flash-attn is not installed", "sdpa": "ValueError: off by 0.4"},
    )
    assert choice.to_json() == {"chosen": "kernel", "microseconds": choice.microseconds, "notes": choice.notes}


def test_each_gpu_and_head_shape_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = clock(monkeypatch, {"kernel": 90, "flash-attn": 40, "sdpa": 50})
    other = HeadShape(8, 8, 64)
    for _ in range(2):
        assert choose(0).chosen == choose(1).chosen == choose(0, other).chosen == "flash-attn"
    assert timed == [(name, d, s) for d, s in ((0, RELEASED), (1, RELEASED), (0, other)) for name in CANDIDATES]


def test_the_kernel_alone_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = clock(monkeypatch, {}, {"flash-attn": "no", "sdpa": "no"})
    assert choose(0) == Choice("kernel", notes={"flash-attn": "no", "sdpa": "no"})
    assert not timed


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = clock(monkeypatch, {"kernel": 90, "sdpa": 50}, {"flash-attn": "flash-attn is not installed"})
    monkeypatch.setenv(prefill_attention.VARIABLE, "kernel")
    assert choose(0) == Choice("kernel", forced=True)
    assert not timed
    monkeypatch.setenv(prefill_attention.VARIABLE, "sdpa")
    assert (choose(0).chosen, choose(0).forced) == ("sdpa", True)
    monkeypatch.setenv(prefill_attention.VARIABLE, "flash-attn")
    with pytest.raises(InvalidRequest, match="'flash-attn', which does not run on cuda:0: flash-attn is not installed"):
        choose(0)
    monkeypatch.setenv(prefill_attention.VARIABLE, "Flash")
    with pytest.raises(InvalidRequest, match="is 'Flash'; name one of kernel, flash-attn, sdpa, or unset it"):
        choose(0)
    monkeypatch.setenv(prefill_attention.VARIABLE, "")
    assert choose(0).forced is False


@pytest.mark.parametrize(("rows", "positions"), [(1, 1), (1, 9), (7, 7), (5, 9), (33, 40)])
@pytest.mark.parametrize(("h_q", "h_kv"), [(2, 2), (4, 2), (4, 1), (5, 1)])
def test_sdpa_is_causal_from_the_last_position_on(h_q: int, h_kv: int, rows: int, positions: int) -> None:
    torch.manual_seed(0)
    q = torch.randn(rows, h_q, 16)
    k, v = (torch.randn(h_kv, 64, 16)[:, :positions] for _ in range(2))  # of a larger cache
    out = torch.full_like(q, math.nan)
    prefill_attention.sdpa(q, k, v, out)
    for row in range(rows):
        for head in range(h_q):
            seen = positions - rows + row + 1
            keys, values = (x[head * h_kv // h_q, :seen].double() for x in (k, v))
            want = (keys @ q[row, head].double()).softmax(0) @ values
            assert_close(out[row, head], want, 1e-5)


def test_an_engine_that_takes_none() -> None:
    engine = small_engine("bfloat16")
    assert not engine.takes_prefill_attention
    assert prefill_attention.install(engine) is None
    with pytest.raises(InvalidRequest, match=r"cpu/.* in bfloat16 computes the attention of prefill itself"):
        engine.set_prefill_attention(print)
    engine.set_prefill_attention(None)


def test_torch_comes_with_a_measurement_only() -> None:
    run_python(
        """
        import sys
        from nextstep_rt import prefill_attention
        assert prefill_attention.choose(0).chosen == "kernel"
        assert not {"torch", "numpy"} & {*sys.modules}
        """,
        **{prefill_attention.VARIABLE: "kernel"},
    )


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """As if the build had CUDA, with these products."""

    def pretend(products: str) -> None:
        info = {**_core.build_info(), "cuda": "on", "cuda_prefill": products}
        monkeypatch.setattr(_core, "build_info", lambda: info)
        monkeypatch.setattr(_core, "cuda_devices", lambda: ["one", "two"])

    return pretend


def test_doctor(two_gpus: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, {"kernel": 90, "sdpa": 50}, {"flash-attn": "flash-attn is not installed"})
    two_gpus("cutlass sm_90a")
    report = json.loads(run("doctor", "--json").stdout)["prefill_attention"]
    assert report == {f"cuda:{i}": choose(i).to_json() for i in range(2)}
    lines = [line.split(maxsplit=1) for line in run("doctor").stdout.splitlines()]
    for line in (["chosen", "sdpa"], ["kernel", "90.0"], ["sdpa", "50.0"],
                 ["flash-attn", "flash-attn is not installed"]):  # fmt: skip
        assert lines.count(line) == 2
    monkeypatch.setenv(prefill_attention.VARIABLE, "fastest")
    assert "cuda:1 cannot be chosen: NSRT_PREFILL_ATTENTION is 'fastest'" in run("doctor", code=1).stderr


def test_doctor_where_there_is_no_choice(two_gpus: Callable[[str], None]) -> None:
    if _core.build_info()["cuda"] != "on":
        assert "prefill_attention" not in json.loads(run("doctor", "--json").stdout)
    two_gpus("linear kernels in chunks of 64")
    assert "kernel, in chunks of rows" in run("doctor").stdout
