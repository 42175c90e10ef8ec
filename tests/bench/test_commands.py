"""Every command on the tiny shape, what it writes and draws, and what it refuses. No figure here means anything."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from kit.commands import fails, run
from PIL import Image

from bench.app import app
from bench.commands.kernels import op_names
from bench.loop import Load, token_times
from bench.op_cases import Shapes
from bench.subject import load, named
from bench.synthetic import config_of
from nextstep_rt import InvalidRequest
from nextstep_rt.cli import app as product

# Whatever the machine does meanwhile, everything is steady.
QUICK = ["--repeats", "2", "--warmup", "0", "--max-spread", "1e9", "--plot"]
TINY = ["--synthetic", "tiny", "--steps", "2", "--tokens", "2", "--positions", "4", "--threads", "1"]
COMMANDS: dict[str, tuple[list[str], tuple[int, int] | None]] = {
    "roofline": (["--threads", "1,2", "--largest", "1"], (1080, 480)),
    "kernels": (
        ["--synthetic", "tiny", "--rows", "1,2", "--steps", "2", "--positions", "4", "--min-seconds", "0"],
        (1080, 660),
    ),
    "decode": (TINY, None),
    "image": (["--steps", "1", "--threads", "1"], None),
    "scaling": (["--axis", "rows=1,2", "--axis", "positions=4,8", "--axis", "threads=1", "--axis", "model=tiny", *TINY],
                (1152, 852)),
    "peers": (TINY, None),
    "sweep": (["--rows", "1,2", "--dtype", "float32", *TINY], None),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _small(steady_machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.op_cases.last_cache", lambda: 1 << 16)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_shows_writes_and_draws(command: str, tmp_path: Path) -> None:
    arguments, size = COMMANDS[command]
    out = tmp_path / f"{command}.json"
    shown = run(command, *arguments, *QUICK, "--out", str(out), app=app, env={"COLUMNS": "200"})
    assert f"results: {out}" in shown.stdout
    record = json.loads(out.read_text())
    assert (record["schema_version"], record["command"]) == (1, command)
    assert record["arguments"].split()[-len(QUICK) - 2 :] == [*QUICK, "--out", str(out)]
    with Image.open(out.with_suffix(".png")) as picture:
        assert picture.format == "PNG"
        assert picture.size == (size or picture.size)
        assert picture.size[0] >= 900
        assert len(picture.getcolors(1 << 24) or ()) > 50  # something is drawn
    again = run("compare", str(out), str(out), app=app, env={"COLUMNS": "200"}).stdout
    assert "+0.0%" in again or "unsteady" in again
    assert run("--compare", str(out), str(out), app=app, env={"COLUMNS": "200"}).stdout == again
    report(tmp_path)


def report(results: Path) -> None:
    page = results / "page.md"
    where = ["--results", str(results), "--page", str(page)]
    assert "not what the results say" in fails("report", "--check", *where, code=1, app=app)
    run("report", *where, app=app)
    run("report", "--check", *where, app=app)


def test_plan_needs_no_model_here(tmp_path: Path) -> None:
    given = ["--bandwidth", "30", "--peak", "1000", "--barrier", "2"]
    told = run("plan", "--synthetic", "14b", *given, "--out", str(tmp_path / "p.json"), app=app).stdout
    assert "backbone" in told
    data = json.loads((tmp_path / "p.json").read_text())["data"]
    size = data["stages"]["backbone"]["bytes"]
    assert data["stages"]["backbone"]["floor"]["seconds"] == pytest.approx(size / 30e9)
    assert data["memory"]["kv_cache"] > 0
    run("plan", "--synthetic", "tiny", "--threads", "1", "--repeats", "1", app=app)
    out = str(tmp_path / "d.json")
    run("decode", *TINY, "--repeats", "1", "--out", out, app=app)
    run("plan", "--synthetic", "tiny", *given, "--calibrate", out, "--out", out.replace("d.json", "c.json"), app=app)
    calibrated = json.loads((tmp_path / "c.json").read_text())["data"]
    assert calibrated["predicted_seconds"] > calibrated["floor_seconds"]
    assert "result of plan: give one of `decode`" in fails(
        "plan", *given, "--calibrate", str(tmp_path / "p.json"), app=app
    )


def test_unsteady_figures_end_with_an_error_but_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([1.0, 2.0, 4.0] * 100)
    monkeypatch.setattr("bench.native.read_seconds", lambda size, threads: next(times))
    out = tmp_path / "r.json"
    arguments = ["roofline", "--threads", "1", "--largest", "1", "--repeats", "3", "--out", str(out)]
    result = run(*arguments, code=1, app=app, env={"COLUMNS": "200"})
    assert "unsteady (spread" in result.stdout
    assert "error: " in result.stderr
    assert "--allow-unsteady" in result.stderr
    assert not json.loads(out.read_text())["steady"]
    run(*arguments, "--allow-unsteady", app=app)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["decode", "--synthetic", "20m"], "unknown shape '20m'"),
        (["decode", "--rows", "17"], "--rows is 17: it must be from 1 to 16"),
        (["decode", "--synthetic", "tiny", "--dtype", "int8"], "--dtype is 'int8'"),
        (["decode", "--synthetic", "tiny", "--model", "demo"], "both given"),
        (["decode", "--synthetic", "tiny", "--positions", "9000"], "exceed the model's 8192"),
        (["decode", "--synthetic", "tiny", "--threads", "0"], "--threads is 0"),
        (["decode", "--synthetic", "tiny", "--repeats", "0"], "--repeats is 0"),
        (["sweep", "--synthetic", "tiny", "--rows", "1,x"], "--rows is '1,x': give whole numbers"),
        (["sweep", "--synthetic", "tiny", "--rows", ",".join("1" * n for n in range(1, 9))], "it must be from 1 to 16"),
        (["sweep", "--dtype", "int8"], "--dtype is 'int8': give one or more of bfloat16, float32"),
        (["scaling", "--synthetic", "tiny", "--axis", "colour=1"], "'colour' is no axis"),
        (["scaling", "--synthetic", "tiny", "--axis", "positions=99999"], "exceed the model's"),
        (["kernels", "--ops", "sing"], "--ops is 'sing'"),
        (["peers", "--synthetic", "tiny", "--against", "nobody"], "--against is 'nobody'"),
        (["plan", "--bandwidth", "3"], "--bandwidth needs --peak"),
        (["plan", "--bandwidth", "-3", "--peak", "1"], "--bandwidth is -3"),
        (["compare", "none.json", "none.json"], "cannot read none.json"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: list[str], said: str) -> None:
    assert said in fails(*arguments, app=app)


def test_every_op_has_a_case() -> None:
    cases = list(Shapes(config_of("tiny"), "bfloat16", Load(2, 2, 4, 1), cold=1 << 16).all())
    assert {case.op for case in cases} == set(op_names())
    for case in cases:
        case.run()
        assert case.bytes > 0
        assert case.resident >= case.bytes or case.op == "fm_head"  # which reads its weights in every step
    cold = next(case for case in cases if case.what.startswith("q_proj"))
    assert cold.resident >= 1 << 16


def test_a_run_times_the_tokens_after_its_warm_up() -> None:
    engine = load(named("tiny"), "float32").engine(1)
    assert len(token_times(engine, Load(3, 2, 4, 5))) == 5
    assert engine.rows == 3
    assert (Load(rows=3).branches, Load(rows=4).branches) == (1, 2)
    with pytest.raises(InvalidRequest, match="--steps is 0"):
        Load(steps=0)


def test_the_product_s_command_line_has_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "roofline" in run("bench", "--help", app=product).stdout
    assert "Usage: nextstep-rt bench decode" in run("bench", "decode", "--help", app=product).stdout
    assert "unknown shape" in fails("bench", "plan", "--synthetic", "20m", app=product)
    module: Any = importlib.import_module("nextstep_rt.bench.app")
    monkeypatch.setattr(module, "EXTRA", ("no_such_package",))
    said = fails("bench", "plan", "--synthetic", "tiny", code=1, app=product)
    assert said == 'error: bench needs no_such_package: pip install "nextstep-rt[bench]"\n'
    assert "nextstep_rt.bench" in sys.modules
