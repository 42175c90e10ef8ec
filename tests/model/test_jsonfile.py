"""The one reader of a checkpoint's JSON files: what is ambiguous is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from nextstep_rt.config import GenerationConfig
from nextstep_rt.errors import CheckpointError
from nextstep_rt.jsonfile import MAX_JSON_BYTES, parse_json, read_json
from nextstep_rt.vae import VaeConfig


def test_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, 2.5, null, {"b": "é"}], "c": {"b": 1e308}}', encoding="utf-8")
    assert read_json(path) == {"a": [1, 2.5, None, {"b": "é"}], "c": {"b": 1e308}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"ch": 32, "ch": 64}', "the key 'ch' 2 times"),
        ('{"a": [{"b": 1, "c": 1, "b": 1}]}', "the key 'b' 2 times"),
        ('{"a": NaN}', "'NaN'"),
        ('{"a": [-Infinity]}', "'-Infinity'"),
        ('{"a": 1e400}', "'1e400'"),
        ('{"a": -1e400}', "'-1e400'"),
        ('{"a": ' + "1" * 5000 + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("", "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
        ("{} {}", "not valid JSON"),
        ("[1]", "holds a list: expected a JSON object"),
        ("null", "holds a NoneType"),
    ],
    ids=range(13),
)
def test_refuses(text: str, message: str, tmp_path: Path) -> None:
    for name in ("generation_config.json", "config.json"):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=message) as caught:
        parse_json(text, "this.json")
    assert "this.json" in str(caught.value)
    with pytest.raises(CheckpointError, match=message):
        GenerationConfig.from_folder(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        VaeConfig.from_folder(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        VaeConfig.from_json(text)


def test_refuses_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*No such file"):
        read_json(tmp_path / "none.json")
    with pytest.raises(CheckpointError, match="cannot read"):
        read_json(tmp_path)
    with pytest.raises(CheckpointError, match="cannot read"):
        read_json("a\0b")
    (tmp_path / "bytes.json").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="not UTF-8"):
        read_json(tmp_path / "bytes.json")
    with open(tmp_path / "huge.json", "wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match="too large"):
        read_json(tmp_path / "huge.json")
