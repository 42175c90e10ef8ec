"""`python -m bench gpu`: what its figures mean, and what it keeps when a stage fails. No GPU is needed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # bench is not installed

from bench.gpu import cli  # noqa: E402
from bench.gpu.baselines import FLOAT32_TOLERANCE, compare  # noqa: E402
from bench.gpu.build import architecture  # noqa: E402
from bench.gpu.correctness import judge  # noqa: E402
from bench.gpu.engine import Axes  # noqa: E402
from bench.gpu.figures import Figures, against_roof, differences, spread, token_bytes  # noqa: E402
from bench.gpu.goldens import read_case, sampling  # noqa: E402
from bench.gpu.prefill import faster_from  # noqa: E402
from bench.gpu.process import TIMED_OUT, Log  # noqa: E402
from bench.gpu.profile import summary  # noqa: E402
from bench.gpu.report import add_roofs, plot, readable, text_table  # noqa: E402
from bench.synthetic import config_of, random_weights, shared_weights  # noqa: E402


def test_bytes_of_a_token_of_the_released_shape() -> None:
    """As docs and specification count them by hand."""
    size = token_bytes(config_of("14b"), "bfloat16", 2, 28, 256)
    layer = 2 * 5120 * 5120 + 2 * 5120 * 1024 + 3 * 5120 * 13824
    assert size["backbone"] == 2 * (48 * layer + 5120 * 64)
    assert size["kv"] == 2 * (2 * 48 * 2 * 256 * 1024)
    assert size["condition"] == 2 * (5120 * 5120 + 1536 * 5120)
    assert size["fm_modulation"] == 2 * 38 * 1536 * 1536
    assert size["fm_steps"] == 28 * 2 * 1536 * (2 * 64 + 2 * 12 * 1536)
    assert size["total"] == sum(value for name, value in size.items() if name != "total")
    rows, steps, positions = ((1, 28, 256), (2, 20, 256), (2, 28, 128))
    for changed, what in ((rows, "kv"), (steps, "fm_steps"), (positions, "kv")):
        other = token_bytes(config_of("14b"), "bfloat16", *changed)
        assert [name for name in size if other[name] != size[name] and name != "total"] == [what]


def test_spread_and_roof() -> None:
    assert spread([0.002, 0.001, 0.003, 0.010, 0.002]) == {
        "ms": 2.0, "p10": 1.0, "p90": 10.0, "min": 1.0, "max": 10.0, "tokens": 5,
    }  # fmt: skip
    assert against_roof(10.0, 30_000_000_000, 4000.0) == {
        "gb_per_token": 30.0, "gbs": 3000.0, "percent_of_read": 75.0, "floor_ms": 7.5, "gap_ms": 2.5,
    }  # fmt: skip
    assert "floor_ms" not in against_roof(10.0, 1, None)


def test_stages_by_differences() -> None:
    """A model of time that is linear in layers and steps is taken apart exactly."""

    def model(layers: int, steps: int) -> float:
        return 0.14 * layers + 0.03 * steps + 0.2

    times = {"default": model(48, 28), "shallow": model(24, 28), "few": model(48, 20), "many": model(48, 50)}
    found = differences(times, (24, 48), (20, 28, 50))
    assert found["backbone_ms"] == pytest.approx(48 * 0.14)
    assert found["fm_steps_ms"] == pytest.approx(28 * 0.03)
    assert found["rest_ms"] == pytest.approx(0.2)


def test_axes_change_one_thing_at_a_time() -> None:
    cases = Axes().cases()
    assert cases[0] == cases[-1] == Axes().default
    for case in cases[1:-1]:
        assert sum(getattr(case, name) != getattr(cases[0], name) for name in ("rows", "steps", "positions")) == 1
    assert [case.steps for case in cases[-3:-1]] == [20, 50]  # where measure() looks for them


def kernel(name: str, begin: float, duration: float) -> dict[str, Any]:
    return {"cat": "kernel", "name": f"void nsrt::{name}<int>(Task)", "ts": begin, "dur": duration}


def test_profile_cuts_a_trace_into_stages() -> None:
    """Kernels overlap: a stage begins where the one before it ended."""
    events: list[dict[str, Any]] = [{"cat": "cpu_op", "name": "x", "ts": 0, "dur": 1}]
    for at in (0.0, 1000.0, 2000.0):
        events += [
            kernel("linear_kernel", at, 100), kernel("attn_decode_kernel", at + 90, 20),
            kernel("take_hidden_kernel", at + 105, 10), kernel("condition_rows_kernel", at + 110, 10),
            kernel("linear_kernel", at + 118, 32), kernel("linear_kernel", at + 140, 40),
            kernel("linear_kernel", at + 150, 100), kernel("fm_head_kernel", at + 240, 410),
        ]  # fmt: skip
    found = summary({"traceEvents": events[::-1]})
    assert found["tokens"] == 2
    assert found["kernels_per_token"] == 8
    assert found["stages_ms"] == {"backbone": 0.115, "condition": 0.035, "modulations": 0.1, "fm_head": 0.4}
    assert found["between_tokens_ms"] == 0.35
    assert found["kernels"]["linear_kernel"] == {"calls": 4.0, "us": 68.0}
    with pytest.raises(RuntimeError, match="saw no kernels"):
        summary({"traceEvents": []})


@pytest.mark.parametrize(("capability", "name"), [("8.0", "80-real"), ("8.9", "89-real"), ("9.0", "90a-real"),
                                                  ("10.0", "100a-real"), ("12.0", "120a-real")])  # fmt: skip
def test_architectures(capability: str, name: str) -> None:
    assert architecture(capability) == name


def test_verdicts_of_a_sanitizer() -> None:
    assert judge(0, "") == "clean"
    assert judge(99, "") == "errors"
    assert judge(TIMED_OUT, "") == "took too long and was ended"
    assert judge(1, "x\n========= Error: Device not supported\n") == "does not work here: Error: Device not supported"


def test_a_command_is_ended_with_its_children(tmp_path: Path) -> None:
    log, begin = Log(tmp_path / "log"), time.monotonic()
    assert log.run(["sh", "-c", "echo before; sleep 60 & sleep 60"], 0.5) == TIMED_OUT
    assert time.monotonic() - begin < 30
    assert log.tail == "before"
    assert log.run(["sh", "-c", "echo after; exit 3"], 30) == 3
    assert log.tail == "after"
    assert [command["status"] for command in log.commands] == [TIMED_OUT, 3]


def test_what_a_failed_stage_had_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that dies leaves its figures; the next stage runs; the JSON on disk has both."""
    options = argparse.Namespace(out=tmp_path / "out", seconds=60.0, shape="tiny", commit="c")
    run = cli.Run(options, None)

    def worker(command: list[str], seconds: float, env: Any = None) -> int:
        figures = Figures(Path(command[command.index("--figures") + 1]))
        figures.put("read_gbs" if "roofs" in command else "name", 4000.0)
        run.log.tail = "RuntimeError: the GPU is gone"
        return 1 if "device" in command else 0

    monkeypatch.setattr(run.log, "run", worker)
    for name in ("device", "roofs", "build"):
        run.stage(name)
    kept = json.loads((tmp_path / "out" / "gpu.json").read_text())["stages"]
    assert kept["device"]["figures"] == {"name": 4000.0}
    assert kept["device"]["error"] == "RuntimeError: the GPU is gone"
    assert kept["roofs"]["ok"]
    assert "did not say for which GPU" in kept["build"]["error"]
    run.stage("engine")
    assert "'build' failed" in run.record["stages"]["engine"]["error"]  # whatever an earlier run has built


def record() -> dict[str, Any]:
    case = {"rows": 2, "steps": 28, "positions": 256, **spread([0.008]), "prefill_ms": 3.0, "bytes": {"total": 30e9}}
    stages = {"roofs": {"read_gbs": 4300.0}, "engine": {"cases": [case]}, "torch": {"graph": spread([0.016])}}
    return {
        "shape": "14b", "commit": "c", "emulated": False,
        "stages": {
            name: {"ok": True, "seconds": 1.0, "figures": figures} for name, figures in stages.items()
        },
    }  # fmt: skip


def test_the_table_and_the_plot(tmp_path: Path) -> None:
    made = record()
    add_roofs(made)
    shown = readable(made)
    row = next(line for line in shown.splitlines() if line.startswith("2 rows, 28 steps, 256 positions"))
    assert row.split()[6:] == ["8.000", "8.000", "8.000", "30.000", "3750.000", "87.200", "6.977", "1.023", "3.000"]
    assert "2.000" in next(line for line in shown.splitlines() if line.startswith("torch, CUDA graph"))
    assert "emulated, no figure of a GPU" in readable({**made, "emulated": True})
    assert plot(made, tmp_path / "gpu.png") is None
    assert (tmp_path / "gpu.png").read_bytes().startswith(b"\x89PNG")
    assert text_table(("a", "b"), [("x", None), ("long", 1.0)]) == "a         b\n----  -----\nx         -\nlong  1.000"


@pytest.mark.parametrize(
    ("library", "kernels", "first"),
    [
        ({"16": 3.0, "64": 3.0, "128": 3.0}, {"16": 1.0, "64": 2.0, "128": 4.0}, 128),
        (
            {"16": 3.0, "64": 1.0, "128": 5.0},
            {"16": 1.0, "64": 2.0, "128": 4.0},
            None,
        ),  # once, not from there on
        ({"16": 1.0, "64": 1.0}, {"16": 2.0, "64": 2.0, "128": 4.0}, 16),  # 128: no time was left for it
        ({}, {}, None),
    ],
)
def test_from_where_the_library_pays(library: dict[str, float], kernels: dict[str, float], first: int | None) -> None:
    assert faster_from({"library": library, "kernels": kernels}) == first


def test_prefill_is_told_of() -> None:
    figures = {
        "layers": 4,
        "products": "cutlass sm_90a",
        "ms": {"library": {"16": 1.0}, "kernels": {"16": 2.0, "64": 3.0}},
    }
    made = record()
    made["stages"]["prefill"] = {"ok": True, "seconds": 1.0, "figures": {**figures, "library_is_faster_from": 16}}
    lines = readable(made).splitlines()
    assert next(line for line in lines if line.startswith("library ")).split() == ["library", "1.000", "-"]
    assert next(line for line in lines if line.startswith("kernels ")).split() == ["kernels", "2.000", "3.000"]
    assert "library: cutlass sm_90a, measured faster from 16 rows on" in lines


def test_golden_cases_are_read_without_the_tests_helpers() -> None:
    from kit.golden import ALL, load_case

    for name, case in ALL:
        expected = load_case(name, case)
        call, tensors = read_case(ROOT / "tests" / "golden" / name / f"{case}.safetensors")
        assert call == expected.call
        assert all((tensors[key] == expected[key]).all() for key in ("tokens", "noise", "input_ids", "attention_mask"))
        params = sampling(call, tensors)
        for key, value in expected.sampling().items():
            assert getattr(params, key) == pytest.approx(value), key


def test_shared_layers_are_one_array_each() -> None:
    shared = shared_weights("tiny", torch.float32, 2)
    assert {k: v.shape for k, v in shared.items()} == {
        k: v.shape for k, v in random_weights(config_of("tiny"), torch.float32).items()
    }
    assert shared["layers.0.mlp.up_proj.weight"] is shared["layers.1.mlp.up_proj.weight"]
    blocks = [shared[f"image_head.net.res_blocks.{i}.mlp.0.weight"] for i in range(2)]
    assert not torch.equal(*blocks)


def test_torch_baselines_agree() -> None:
    assert compare("tiny", "float32", "cpu", 3, 5) < FLOAT32_TOLERANCE / 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would begin to measure")
def test_without_a_gpu_it_says_so_and_ends(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "gpu", "--out", str(tmp_path / "out")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "finds no CUDA device; nothing was built" in done.stderr
    assert not (tmp_path / "out").exists()
