"""The start that `startup` measures: its checkpoint, its fresh interpreters, what it refuses. No time is asserted."""

from __future__ import annotations

import json
import tracemalloc
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from kit.commands import fails, run

from bench import startup as s
from bench import startup_files as files
from bench.app import app
from bench.measure import Policy
from bench.startup_view import startup as view
from bench.synthetic import keys_of
from nextstep_rt import Checkpoint, Error

ONCE = Policy(repeats=1, warmup=0, max_spread=1e9)
Usage = namedtuple("Usage", "total used free")


def keys(**changes: int) -> dict[str, object]:
    return {**keys_of("tiny"), **files.companion_keys(), **changes}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_checkpoint_is_of_the_released_layout(tmp_path: Path, dtype: str) -> None:
    written = files.write_checkpoint(tmp_path, keys(), dtype, shard=200_000)
    checkpoint = Checkpoint(str(tmp_path))
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert len(shards) > 3
    assert checkpoint.nbytes == written
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["metadata"]["total_size"] == written
    assert checkpoint["norm.weight"].dtype == dtype
    assert checkpoint.verify() == []  # all finite
    sizes = [path.stat().st_size for path in tmp_path.glob("*.safetensors")]
    assert written < sum(sizes) < 1.5 * written
    deviation = float(torch.from_dlpack(checkpoint["embed_tokens.weight"]).float().std())
    assert deviation == pytest.approx(files.SCALE, rel=0.1)


def test_the_checkpoint_is_never_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "BLOCK", 1 << 16)
    tracemalloc.start()
    try:
        written = files.write_checkpoint(tmp_path, keys(vocab_size=100_000), "bfloat16")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert written > 25e6
    assert peak < 5e6
    assert Checkpoint(str(tmp_path)).nbytes == written


def test_a_folder_that_takes_no_checkpoint_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Error, match="none: No such file or directory; give another --folder"):
        files.write_checkpoint(tmp_path / "none", keys(), "bfloat16")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: Usage(2, 1, 1))
    with pytest.raises(Error, match=r"a checkpoint of \d+ bytes does not fit .*, which has 1: give another --folder"):
        files.write_checkpoint(tmp_path, keys(), "bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_the_command_measures_and_leaves_nothing(tmp_path: Path) -> None:
    shown = run(
        "startup", "--synthetic", "tiny", "--threads", "1", "--repeats", "2", "--warmup", "0", "--max-spread", "1e9",
        "--folder", str(tmp_path), "--out", str(tmp_path / "out.json"), app=app, env={"COLUMNS": "200"},
    ).stdout  # fmt: skip
    for row in ("import nextstep_rt, without torch", "engine ready", "one token of one step", "pipeline ready"):
        assert row in shown
    assert "< 100" in shown
    assert "< 1000" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
    run("report", "--results", str(tmp_path), "--page", str(tmp_path / "page.md"), app=app)
    assert "## Until something can be drawn" in (tmp_path / "page.md").read_text()


def test_figures_are_those_of_fresh_interpreters(tmp_path: Path) -> None:
    written = files.write_checkpoint(tmp_path, keys(), "bfloat16")
    started = s.measure_import(ONCE, s.Fresh())
    loaded = s.measure_folder(tmp_path, "bfloat16", 1, ONCE, s.Fresh())
    data = s.figures(started, loaded, written)
    assert tuple(data["phases"]) == s.PHASES
    medians = {name: value["median"] for name, value in data["phases"].items()}
    assert all(seconds > 0 for seconds in medians.values())
    assert data["ready"]["median"] == pytest.approx(sum(medians[name] for name in s.READY))
    assert data["first_token"]["median"] == pytest.approx(sum(medians.values()))
    assert data["process"]["median"] > data["import"]["median"]
    assert data["weight_bytes"] <= data["file_bytes"] == written
    assert 0 < data["private_bytes"] < 1 << 30
    settings = {"model": "tiny", "dtype": "bfloat16", "threads": 1}
    rows = [row for table in view({"settings": settings, "data": data}) for row in table.rows]
    assert len(rows) == 4 + len(s.PHASES) + 2


def test_a_start_that_loads_torch_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s, "IMPORT", "import torch\n" + s.IMPORT)
    with pytest.raises(Error, match=r"import nextstep_rt also loads torch, numpy: .*importtime"):
        s.measure_import(ONCE, s.Fresh())


def test_a_start_that_loads_torch_later_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_checkpoint(tmp_path, keys(), "bfloat16")
    monkeypatch.setattr(s, "PIPELINE", s.PIPELINE.replace("import json", "import json, torch"))
    with pytest.raises(Error, match="loading a checkpoint also loads torch"):
        s.measure_folder(tmp_path, "bfloat16", 1, ONCE, s.Fresh())


def test_weights_that_are_converted_are_an_error(tmp_path: Path) -> None:
    files.write_checkpoint(tmp_path, keys(), "float32")
    with pytest.raises(Error, match="weights were converted to bfloat16, and none had to be"):
        s.measure_folder(tmp_path, "bfloat16", 1, ONCE, s.Fresh())


def test_a_start_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Error, match=r"ended with 1: .*CheckpointError: .*is not a folder"):
        s.measure_folder(tmp_path / "none", "bfloat16", 1, ONCE, s.Fresh())
    with pytest.raises(Error, match="/none/python could not be measured"):
        s.measure_import(ONCE, s.Fresh("/none/python"))
    monkeypatch.setattr("nextstep_rt._core.available_memory", lambda: 1000)
    said = fails("startup", "--synthetic", "tiny", app=app)
    assert "tiny in bfloat16 takes" in said
    assert "the page cache may have 1 kB: take a smaller shape" in said
