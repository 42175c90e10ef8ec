"""The guard of instruction counts: what fails it, what does not, and that the committed baseline is one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from kit.commands import fails, run

from bench import counts as c
from bench import counts_run
from bench.app import app
from bench.counts import Count, Counts
from nextstep_rt import Error, InvalidRequest

WIDE = {"COLUMNS": "250"}
GCC = {"compiler": "gcc 12.2.0", "libc": "glibc 2.36", "valgrind": "3.19.0"}
BEFORE = Counts(
    "avx2", GCC, {"linear": Count(100_000, 4096), "token": Count(2_000_000, 8192), "noise": Count(900, None)}
)


def changed(name: str, **changes: Any) -> Counts:
    return replace(BEFORE, cases={**BEFORE.cases, name: replace(BEFORE.cases[name], seconds=1e-5, **changes)})


def verdicts(now: Counts) -> dict[str, str]:
    return {change.name: change.verdict for change in c.compare(BEFORE, now) if change.verdict}


@pytest.mark.parametrize("instructions", [100_000, 102_000, 98_000])
def test_what_is_within_the_tolerance_passes(instructions: int) -> None:
    changes = c.compare(BEFORE, changed("linear", instructions=instructions))
    assert not any(change.failed or change.verdict for change in changes)
    c.check(changes, c.BASELINE)


@pytest.mark.parametrize(
    ("now", "verdict", "said"),
    [
        (changed("linear", instructions=102_001), "more instructions", r"linear: more instructions \(\+2\.00%\)"),
        (changed("noise", instructions=1800), "more instructions", r"noise: more instructions \(\+100\.00%\)"),
        (changed("linear", instructions=97_999), "fewer instructions", r"linear: fewer instructions \(-2\.00%\)"),
        (changed("token", bytes=8193), "bytes were 8192", r"1 of 3 cases .* token: bytes were 8192\. Where"),
        (changed("token", bytes=None), "bytes were 8192", "token: bytes were 8192"),
        (changed("noise", bytes=1), "bytes were None", "noise: bytes were None"),
    ],
)
def test_a_changed_count_fails(now: Counts, verdict: str, said: str) -> None:
    changes = c.compare(BEFORE, now)
    assert [change.verdict for change in changes if change.failed] == [verdict]
    with pytest.raises(Error, match=said):
        c.check(changes, c.BASELINE)


def test_cases_that_come_or_go_fail() -> None:
    fewer = replace(BEFORE, cases={name: case for name, case in BEFORE.cases.items() if name != "noise"})
    assert verdicts(fewer) == {"noise": "only in the baseline"}
    more = replace(BEFORE, cases={**BEFORE.cases, "new": Count(5, 5)})
    assert verdicts(more) == {"new": "not in the baseline"}
    for now in (fewer, more):
        with pytest.raises(Error, match=r"1 of \d cases are not what"):
            c.check(c.compare(BEFORE, now), c.BASELINE)


@pytest.mark.parametrize(
    ("key", "value", "asserted"),
    [("compiler", "gcc 13.1.0", False), ("libc", "glibc 2.39", False), ("valgrind", "3.25.0", True)],
)
def test_instructions_of_another_toolchain_are_not_asserted_but_bytes_are(key: str, value: str, asserted: bool) -> None:
    other = {**GCC, key: value}
    now = replace(changed("linear", instructions=150_000), toolchain=other)
    changes = c.compare(BEFORE, now)
    assert [change.failed for change in changes] == [asserted, False, False]
    reason = c.comparable(BEFORE, now)
    assert reason == (None if asserted else f"{value} here, {GCC[key]} there")
    wrong = replace(changed("linear", bytes=4100), toolchain=other)
    assert c.compare(BEFORE, wrong)[0].failed


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    path = tmp_path / "folder" / "cpu.json"
    c.write(BEFORE, path)
    return path


def command(monkeypatch: pytest.MonkeyPatch, now: Counts) -> None:
    monkeypatch.setattr(counts_run, "measure", lambda folder: now)


def test_the_command_passes_and_fails(monkeypatch: pytest.MonkeyPatch, baseline: Path) -> None:
    command(monkeypatch, changed("linear", instructions=101_000))
    shown = run("counts", "--baseline", str(baseline), app=app, env=WIDE).stdout
    assert "instructions within 2%, and bytes, are those of cpu.json: 3 cases" in shown
    assert "+1.00%" in shown
    command(monkeypatch, changed("linear", instructions=103_000))
    failed = run("counts", "--baseline", str(baseline), app=app, code=1, env=WIDE)
    assert "+3.00%" in failed.stdout
    assert failed.stderr.startswith(
        "error: 1 of 3 cases are not what cpu.json says: linear: more instructions (+3.00%)"
    )
    assert "python -m bench counts --update" in failed.stderr
    command(monkeypatch, replace(changed("linear", instructions=103_000), toolchain={**GCC, "compiler": "clang 17"}))
    shown = run("counts", "--baseline", str(baseline), app=app, env=WIDE).stdout
    assert (
        "note: instructions are shown and not asserted: clang 17 here, gcc 12.2.0 there. Bytes are asserted." in shown
    )
    assert "bytes are those of cpu.json: 3 cases" in shown


def test_the_command_updates(monkeypatch: pytest.MonkeyPatch, baseline: Path, tmp_path: Path) -> None:
    now = changed("token", instructions=5_000_000)
    command(monkeypatch, now)
    for path in (baseline, tmp_path / "new.json"):
        assert f"written: {path}" in run("counts", "--update", "--baseline", str(path), app=app, env=WIDE).stdout
        assert c.read(path).cases["token"] == Count(5_000_000, 8192)
        run("counts", "--baseline", str(path), app=app, env=WIDE)
    assert "seconds" not in baseline.read_text()
    baseline.write_text("{}")
    run("counts", "--update", "--baseline", str(baseline), app=app, env=WIDE)
    assert c.read(baseline).toolchain == GCC


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "is no baseline"),
        ("[]", "is no baseline"),
        ("{}", "'schema_version' is missing"),
        (json.dumps({**BEFORE.to_json(), "schema_version": 2}), "schema_version is 2, not 1"),
        (json.dumps({**BEFORE.to_json(), "toolchain": {}}), "'compiler' is missing"),
        (json.dumps({**BEFORE.to_json(), "cases": {"a": {"instructions": 0, "bytes": 1}}}), "0 is no count"),
        (json.dumps({**BEFORE.to_json(), "cases": {"a": {"instructions": 1, "bytes": True}}}), "True is no count"),
    ],
)
def test_what_is_no_baseline_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=said):
        c.read(path)
    assert "none.json" in fails("counts", "--baseline", str(tmp_path / "none.json"), app=app)


DUMP = """# callgrind format
version: 1
creator: callgrind-3.19.0
pid: 7
cmd:  ./nsrt_counts
part: 1

desc: Timerange: Basic block 0 - 12
desc: Trigger: {trigger}

positions: line
events: Ir
summary: {count}

fl=(1) a.cc
fn=(1) f
1 {count}

totals: {count}
"""


def test_dumps_are_read_by_the_name_they_were_asked_for(tmp_path: Path) -> None:
    (tmp_path / "dump.1").write_text(DUMP.format(trigger="Client Request: linear, 2 rows of 3x4", count=123))
    (tmp_path / "dump.2").write_text(DUMP.format(trigger="Client Request: token", count=456))
    (tmp_path / "dump.3").write_text(DUMP.format(trigger="Program termination", count=0))
    assert counts_run.read_dumps(tmp_path) == ({"linear, 2 rows of 3x4": 123, "token": 456}, "3.19.0")
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(Error, match="valgrind dumped no counts"):
        counts_run.read_dumps(tmp_path)


TIMED = {"cases": [{"name": "a", "bytes": 1, "seconds": 1e-6}, {"name": "b", "bytes": None, "seconds": 2e-6}]}
COUNTED = {"compiler": "gcc 1", "libc": "glibc 2", "isa": "avx2", "cases": TIMED["cases"]}


def test_both_runs_make_one_record() -> None:
    made = counts_run.together(TIMED, COUNTED, {"a": 10, "b": 20}, "3")
    assert made == Counts(
        "avx2", {"compiler": "gcc 1", "libc": "glibc 2", "valgrind": "3"},
        {"a": Count(10, 1, 1e-6), "b": Count(20, None, 2e-6)},
    )  # fmt: skip
    assert c.table(c.compare(made, made), made).rows[0] == ("a", "10", "10", "0", "1", "1", "-")
    for instructions in ({"a": 10}, {"a": 10, "b": 0}, {"a": 1, "b": 2, "c": 3}):
        with pytest.raises(Error, match="do not have the same cases"):
            counts_run.together(TIMED, COUNTED, instructions, "3")


def test_what_is_missing_or_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(counts_run, "find_tool", lambda name: None if name == "valgrind" else f"/bin/{name}")
    with pytest.raises(Error, match=r"counting instructions needs valgrind \(apt-get install valgrind"):
        counts_run.need_tools()
    monkeypatch.setattr(counts_run, "ROOT", tmp_path)
    assert "an installed package has no source tree" in fails("counts", app=app)
    with pytest.raises(Error, match=r"sh ended with 3: .*: it broke"):
        counts_run.run(["sh", "-c", "echo it broke >&2; exit 3"])
    with pytest.raises(Error, match="/none cannot be run: No such file"):
        counts_run.run(["/none"])
    with pytest.raises(Error, match="printed no JSON"):
        counts_run.told("hello")


# ---- the committed baseline


def test_the_committed_baseline_holds_every_op_with_a_cost() -> None:
    found = c.read(c.BASELINE)
    assert found.isa == counts_run.ISA
    kinds = {name.split(",")[0].split(" ")[0] for name in found.cases}
    assert kinds >= {
        "linear", "rms_norm", "layer_norm", "rope", "attention", "silu_mul", "guidance", "solver_update", "stage"
    }  # fmt: skip
    for dtype in ("bfloat16", "float32"):
        stages = {name.split(": ")[1] for name in found.cases if name.startswith(f"stage {dtype}")}
        assert stages >= {"advance", "condition", "modulate", "start", "step", "finish", "token"}


def test_the_committed_bytes_are_the_cost_model_s() -> None:
    """By hand: each operand once, weights as stored, the rest float32."""
    cases = c.read(c.BASELINE).cases
    for dtype, item in (("bfloat16", 2), ("float32", 4)):
        for rows in (1, 2, 8, 16):
            moved = 256 * 512 * item + 4 * (rows * (256 + 512) + 256)
            assert cases[f"linear {dtype} 256x512, {rows} row{'s' if rows > 1 else ''}"].bytes == moved
        assert cases[f"attention {dtype}, 300 and 77 positions"].bytes == 2 * 377 * 2 * 64 * item + 4 * 2 * 2 * 8 * 64
    assert cases["silu_mul, 2816"].bytes == 3 * 4 * 2816
    assert cases["solver_update, 1024"].bytes == 4 * 4 * 1024
    assert cases["normal_noise, 256"].bytes is None
