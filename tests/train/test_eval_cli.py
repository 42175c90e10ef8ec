"""`nextstep-rt eval`: what it writes and prints, and how it fails."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kit.commands import fails, run
from kit.isolated import run_python
from kit.painter import Painter
from PIL import Image

from nextstep_rt import Pipeline
from nextstep_rt.cli import evaluate as command
from nextstep_rt.train.evaluate import evaluate
from nextstep_rt.train.prompts import make_prompts
from nextstep_rt.train.report import Report

COUNT = 2
FAST = ["--count", str(COUNT)]


@pytest.fixture(autouse=True)
def painter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A painter is what loads; its options are under "loaded"."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NSRT_DEBUG", raising=False)
    made: dict[str, Any] = {"pipe": Painter(tmp_path / "model", make_prompts(COUNT))}

    def load(model: str, **options: Any) -> Painter:
        made["loaded"] = {"model": model, **options}
        return made["pipe"]

    monkeypatch.setattr(Pipeline, "from_pretrained", load)
    return made


def test_it_writes_a_report_and_a_sheet(painter: dict[str, Any]) -> None:
    printed = run("eval", *FAST, "-o", "out/new").stdout
    for line in ("single object", "colour attribution", "overall", "editing", "95 % interval", "autoencoder", "100.0"):
        assert line in printed
    assert printed.splitlines()[-2:] == ["out/new/report.json", "out/new/sheet.png"]
    report = Report.from_json(json.loads(Path("out/new/report.json").read_text()))
    assert report.overall is not None
    assert report.overall.score == 1.0
    assert set(report.ceiling) == {"reader", "autoencoder"}
    with Image.open("out/new/sheet.png") as image:
        assert image.width > 1000
    assert painter["loaded"]["model"] == "demo"
    assert sorted(p.name for p in Path("out/new").iterdir()) == ["report.json", "sheet.png"]


def test_every_option_arrives(painter: dict[str, Any]) -> None:
    run(
        "eval",
        "some/folder", *FAST, "--seeds", "7, 9", "--steps", "12", "--guidance", "2", "--image-guidance", "1.5",
        "--solver", "heun", "--backend", "reference", "--dtype", "float32", "--threads", "1", "--device", "cpu",
        "--categories", "two-objects,Editing", "-q",
    )  # fmt: skip
    assert painter["loaded"] == {
        "model": "some/folder", "revision": None, "device": "cpu", "dtype": "float32", "backend": "reference",
        "threads": 1,
    }  # fmt: skip
    settings = {"num_inference_steps": 12, "guidance_scale": 2.0, "solver": "heun"}
    texts, options = painter["pipe"].calls[0]
    assert options == {**settings, "seed": [7 << 32, 9 << 32, (7 << 32) + 1, (9 << 32) + 1]}
    assert len(texts) == 4
    assert painter["pipe"].calls[-1][1]["image_guidance_scale"] == 1.5
    report = json.loads(Path("evaluation/report.json").read_text())
    assert list(report["scores"]) == ["two objects", "editing"]
    assert report["overall"] is None


def test_quiet_prints_the_paths_only() -> None:
    printed = run("eval", *FAST, "--categories", "colours", "-q").stdout
    assert printed.splitlines() == ["evaluation/report.json", "evaluation/sheet.png"]


def test_the_sheet_holds_the_first_picture_of_each_prompt(
    painter: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "ON_SHEET", 1)
    drawn = command._Drawn()
    evaluate(painter["pipe"], count=COUNT, categories=["colours", "editing"], ceiling=False, on_image=drawn.add)
    assert [(tile.category, tile.source is None) for tile in drawn.tiles] == [("colours", True), ("editing", False)]
    monkeypatch.setattr(command, "ON_SHEET", 48)
    drawn = command._Drawn()
    evaluate(painter["pipe"], count=COUNT, categories=["colours"], seeds=(3, 4, 5), ceiling=False, on_image=drawn.add)
    assert len(drawn.tiles) == COUNT


def test_a_wrong_picture_is_never_left_out_of_the_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "ON_SHEET", 2)
    drawn = command._Drawn()
    prompt = SimpleNamespace(category="colours", source=None, text="a red circle")
    for number, ok in enumerate((True, False, True, False, True)):
        drawn.add(prompt, SimpleNamespace(number=number, ok=ok, reason=str(number)), Image.new("RGB", (4, 4)))
    assert [tile.reason for tile in drawn.tiles] == ["0", "1", "3"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--count", "0"], "count is 0"),
        (["--seeds", "1,x"], "--seeds is '1,x': give whole numbers with commas between"),
        (["--seeds", "1,1"], "all different"),
        (["--seeds", ""], "--seeds is ''"),
        (["--categories", "colors"], "did you mean 'colours'"),
        (["--categories", ""], "unknown category ''"),
        (["--steps", "0"], "error: --steps is 0"),
        (["--solver", "eular"], "did you mean 'euler'"),
        (["-o", "file"], "the output file is a file: name a folder"),
        (["-o", "file/sub"], "cannot make the folder file/sub"),
    ],
)
def test_wrong_arguments(painter: dict[str, Any], arguments: list[str], message: str) -> None:
    Path("file").write_text("")
    assert message in fails("eval", *arguments)
    assert painter["pipe"].calls == []


def test_a_model_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert "no folder" in fails("eval", "/nowhere", *FAST)


def test_without_scipy_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert 'pip install "nextstep-rt[train]"' in fails("eval", *FAST, code=1)
    assert not Path("evaluation").exists()


def test_the_command_line_loads_none_of_it() -> None:
    run_python(
        """
        import sys
        from typer.testing import CliRunner
        from nextstep_rt.cli import app
        assert "eval" in CliRunner().invoke(app, ["--help"]).stdout
        assert CliRunner().invoke(app, ["eval", "--help"]).exit_code == 0
        assert not (found := {"torch", "scipy", "numpy", "PIL", "nextstep_rt.train"} & {*sys.modules}), found
        """
    )
