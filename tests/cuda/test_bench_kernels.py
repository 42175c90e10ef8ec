"""`python -m bench gpu` checks the kernels itself, on machines without pytest: here, by the emulated device."""

from __future__ import annotations

from typing import Any

import pytest

from bench.gpu import kernels, linear, profile
from bench.gpu.figures import Figures, token_bytes
from bench.gpu.report import add_roofs, readable
from bench.synthetic import config_of


def test_the_kernels_are_near_float64(emulator: Any) -> None:
    del emulator
    figures = Figures()
    kernels.check(figures, small=True)
    assert {name.split()[0] for name in figures["errors"]} >= {
        "linear", "gated_linear", "qkv_linear", "attn_decode", "rms_norm", "fm_modulations", "fm_head",
    }  # fmt: skip


def test_a_wrong_kernel_is_named(monkeypatch: pytest.MonkeyPatch, emulator: Any) -> None:
    del emulator
    monkeypatch.setattr(kernels.double, "silu", lambda x: x)
    with pytest.raises(RuntimeError, match="ops too far from float64: gated_linear 2 x 72 x 136 float32"):
        kernels.check(Figures(), small=True)


def test_tensor_cores_pay_from_where_they_are_measured_faster() -> None:
    """Of a whole layer: a small product that is slower does not outweigh a large one that is faster."""
    gbs = {
        "o": {"tensor": {"1": 1.0, "2": 1.0}, "fma": {"1": 2.0, "2": 2.0}},
        "down": {"tensor": {"1": 1.9, "2": 3.0}, "fma": {"1": 2.0, "2": 2.0}},
    }
    sizes = {"o": (8, 8), "down": (8, 80)}
    assert linear.tensor_rows_from(gbs, sizes) == 2
    gbs["down"]["tensor"]["2"] = 1.0
    assert linear.tensor_rows_from(gbs, sizes) is None
    del gbs["down"]  # was not reached in time
    assert linear.tensor_rows_from(gbs, sizes) is None


def test_the_report_has_bandwidths_of_stages_and_kernels() -> None:
    def stage(**figures: Any) -> dict[str, Any]:
        return {"ok": True, "seconds": 1.0, "error": None, "figures": figures}

    products = {"o": {"tensor": {"1": 3100.0, "8": 2900.0}, "fma": {"1": 2000.0}}}
    record = {
        "shape": "14b", "commit": "abc", "emulated": False,
        "stages": {
            "roofs": stage(read_gbs=4000.0),
            "linear": stage(products_gbs=products, tensor_rows_from=1, attention_gbs={"256": {"1": 55.5}}),
            "profile": stage(
                method="a trace", kernels={}, stages_ms={"backbone": 7.0}, stage_bytes={"backbone": 26_000_000_000}
            ),
        },
    }  # fmt: skip
    add_roofs(record)
    assert record["stages"]["profile"]["figures"]["stages"]["backbone"] == {
        "ms": 7.0, "gb_per_token": 26.0, "gbs": 3714.286, "percent_of_read": 92.9, "floor_ms": 6.5, "gap_ms": 0.5,
    }  # fmt: skip
    text = readable(record)
    for said in ("3714.286", "92.900", "o, tensor", "2900.000", "attention, 256 positions", "faster from 1 rows on"):
        assert said in text


def test_bytes_of_the_profiled_stages_are_those_of_a_token() -> None:
    config = config_of("14b")
    size = token_bytes(config, "bfloat16", 2, 28, 256)
    assert sum(profile.stage_bytes(config, 2, 28, 256).values()) == size["total"]
