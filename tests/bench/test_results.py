"""Results in files, two of them compared, and the page made of them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from bench.comparison import compare_records, samples, table
from bench.environment import machine, software
from bench.measure import Sample, Unsteady
from bench.reporting import page
from bench.results import check_steady, destination, new_record, read, unsteady, write
from nextstep_rt import Error, InvalidRequest


def sample(*values: float) -> dict[str, Any]:
    return Sample(values or (1e-3, 1.1e-3, 1e-3)).to_json()


def peers(**times: dict[str, Any]) -> dict[str, Any]:
    given = {"a": sample(1e-3), "b": sample(3e-3), "ratio": sample(3.0), **times}
    peer = {"name": "reference", "what": "torch", "version": "2", "pinned": False, **given}
    return {"backend": "cpu/x", "weights": "own layers", "peers": [peer]}


SETTINGS = {"model": "tiny", "dtype": "float32", "rows": 2, "steps": 3, "threads": 1, "max_spread": 0.25}


def record(**times: dict[str, Any]) -> dict[str, Any]:
    return new_record("peers", "python -m bench peers --synthetic tiny", SETTINGS, peers(**times))


def test_a_record_survives_its_file(tmp_path: Path) -> None:
    made = record()
    path = destination(tmp_path / "folder", "peers", SETTINGS)
    assert path.name == "peers-tiny-float32-2rows.json"
    assert destination(tmp_path / "x.json", "peers", SETTINGS) == tmp_path / "x.json"
    write(made, path)
    assert read(path) == made
    assert made["steady"]
    assert set(made["machine"]) == {"cpu", "cores", "physical_cores", "caches", "memory_bytes", "isa", "kernel"}
    assert {"version", "commit", "dirty", "compiler", "python", "torch", "numpy"} <= set(software())
    assert machine()["cores"] >= 1


def test_unsteady_figures_are_kept_and_refused(tmp_path: Path) -> None:
    made = record(b=sample(1e-3, 2e-3, 9e-3))
    assert not made["steady"]
    assert list(unsteady(made["data"])) == ["peers[0].b"]
    write(made, tmp_path / "a.json")
    assert read(tmp_path / "a.json")["data"]["peers"][0]["b"]["samples"] == [1e-3, 2e-3, 9e-3]
    with pytest.raises(Unsteady, match=r"1 of the times .* 0\.25.* \(peers\[0\]\.b\).*--allow-unsteady"):
        check_steady(made)
    check_steady(record())
    check_steady(record(b={**sample(1e-3, 2e-3, 9e-3), "minor": True}))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"schema_version": 2}, "schema_version 2, and this version reads 1"),
        ({"machine": None}, "'machine' is a NoneType; expected a dict"),
        ({"command": "dance"}, "command 'dance' is none of"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, damage: dict[str, Any], said: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({**record(), **damage}))
    with pytest.raises(InvalidRequest, match=said):
        read(path)
    for text in ("[", "[]"):
        path.write_text(text)
        with pytest.raises(InvalidRequest, match=r"a\.json"):
            read(path)
    with pytest.raises(InvalidRequest, match="No such file"):
        read(tmp_path / "none.json")
    with pytest.raises(Error, match="name another --out"):
        write(record(), path / "in-a-file.json")


def stages(**seconds: float) -> dict[str, Any]:
    return {name: {"seconds": sample(value, 1.02 * value, 0.99 * value)} for name, value in seconds.items()}


def test_a_comparison_says_what_changed_and_what_one_lacks() -> None:
    a, b = record(), record()
    for made, found in ((a, stages(x=1e-3, y=2e-3, old=1.0)), (b, stages(x=0.5e-3, y=2.01e-3, new=1.0))):
        made["command"], made["data"] = "decode", {"stages": found, "token": sample()}
    b["settings"]["rows"] = 4
    changes, notes = compare_records(a, b)
    by_name = {change.name: change for change in changes}
    assert by_name["stages.x"].ratio == pytest.approx(0.5)
    verdicts = {name: change.verdict for name, change in by_name.items()}
    assert verdicts == {
        "stages.x": "lower", "stages.y": "no difference shown", "stages.old": "only in A", "stages.new": "only in B",
        "token": "no difference shown",
    }  # fmt: skip
    assert notes == ["settings rows: 2 in A, 4 in B"]
    rows = {row[0]: row[1:] for row in table(changes, "t").rows}
    assert rows["stages.x (ms)"] == ("1", "0.5", "0.5", "-50.0%", "lower")
    assert rows["stages.old (ms)"][1:4] == ("-", "-", "-")
    wild = copy.deepcopy(b)
    wild["data"]["stages"]["x"]["seconds"] = sample(1.0, 2.0, 3.0)
    assert {c.name: c for c in compare_records(a, wild)[0]}["stages.x"].verdict == "unsteady"
    with pytest.raises(InvalidRequest, match="A is a result of decode and B of peers"):
        compare_records(a, record())
    assert dict(samples(peers())).keys() == {"peers[reference].a", "peers[reference].b", "peers[reference].ratio"}


def test_the_page_is_the_results_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "bench" / "results"
    write(record(), folder / "b.json")
    write({**record(a=sample(1.0, 2.0, 3.0)), "note": "A note."}, folder / "a.json")
    (folder / "a.png").write_bytes(b"")
    text = page(folder, tmp_path / "docs")
    assert text == page(folder, tmp_path / "docs")
    assert text.index("[a](../bench/results/a.json)") < text.index("[b](../bench/results/b.json)")
    assert "unsteady (spread 0.80)" in text
    assert "![a](../bench/results/a.png)" in text
    assert "\nA note.\n" in text
    assert "    python -m bench peers --synthetic tiny\n" in text
    assert str(tmp_path) not in text
    with pytest.raises(InvalidRequest, match="--results"):
        page(tmp_path / "none", tmp_path)


def test_the_committed_page_is_up_to_date() -> None:
    root = Path(__file__).parents[2]
    text = (root / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text == page(root / "bench" / "results", root / "docs"), "write it with `python -m bench report`"
