"""Finding a model and its VAE."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from kit.golden import ROOT

from nextstep_rt import Checkpoint, CheckpointError, InvalidRequest, ModelConfig, Pipeline
from nextstep_rt.checkpoint import Geometry, resolve_model, resolve_vae
from nextstep_rt.pipeline import resolve_device


def test_demo_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(resolve_model("demo"), "config.json").is_file()
    assert resolve_model(tmp_path) == str(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert resolve_model("owner/name") == str(tmp_path / "owner" / "name")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("/no/such/folder", "no folder"),
        ("nothing", "no folder"),
        ("../up/one", "no folder"),
        ("a/b/c", "no folder"),
        ("", "no folder"),
        ("a\0b", "NUL"),
        (__file__, "is a file"),
    ],
)
def test_no_such_model(model: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        resolve_model(model)


@pytest.mark.parametrize("model", [None, 3, ["demo"]])
def test_models_that_are_no_names(model: Any) -> None:
    with pytest.raises(InvalidRequest, match="model must be"):
        resolve_model(model)


def test_a_revision_needs_the_hub() -> None:
    with pytest.raises(InvalidRequest, match="leave revision out"):
        resolve_model("demo", "v1")
    with pytest.raises(InvalidRequest, match="revision must be"):
        resolve_model("owner/name", 3)  # type: ignore[arg-type]


def test_the_hub_is_asked_with_the_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Any] = []

    def download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repo, revision))
        assert not any(pattern.endswith(".py") for pattern in allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert resolve_model("owner/name", "abc123") == str(tmp_path)
    assert asked == [("owner/name", "abc123")]


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(CheckpointError, match=r"could not be fetched: no route .*local folder"):
        resolve_model("owner/name")


def vae_at(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_vae_inside_the_model(tmp_path: Path) -> None:
    vae_at(tmp_path / "vae")
    vae_at(tmp_path / "parts" / "vae")
    for stated in ("vae/", "vae", "./vae", "", str(tmp_path / "vae")):
        assert resolve_vae(str(tmp_path), stated) == str(tmp_path / "vae")
    assert resolve_vae(str(tmp_path), "parts/vae") == str(tmp_path / "parts" / "vae")


def test_vae_elsewhere(tmp_path: Path) -> None:
    model, other = tmp_path / "model", vae_at(tmp_path / "other")
    model.mkdir()
    assert resolve_vae(str(model), str(other)) == str(other)
    with pytest.raises(CheckpointError, match="no VAE"):
        resolve_vae(str(model), "/gone/away")
    vae_at(model / "vae")
    assert resolve_vae(str(model), "/gone/away") == str(model / "vae")


@pytest.mark.parametrize("stated", ["../other", "vae/../../other", "..", "a\\..\\b"])
def test_vae_does_not_leave_the_model(stated: str, tmp_path: Path) -> None:
    vae_at(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"leaves the model's folder"):
        resolve_vae(str(tmp_path / "model"), stated)


@pytest.mark.parametrize("stated", ["owner/vae", "v\0ae"])
def test_vae_that_is_no_folder(stated: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="vae_name_or_path"):
        resolve_vae(str(tmp_path), stated)


def test_geometry() -> None:
    folder = ROOT / "tiny" / "model"
    config = ModelConfig.from_json((folder / "config.json").read_text())
    geometry = Geometry.of(config, str(folder / "vae"))
    assert (geometry.native_height, geometry.native_width, geometry.factor) == (256, 256, 16)
    assert (geometry.token_dim, geometry.native_tokens) == (64, 256)


@pytest.mark.parametrize("levels", [None, 3, [], list(range(9)), "1234"])
def test_vae_levels_that_cannot_be(levels: Any, tmp_path: Path) -> None:
    config = ModelConfig.from_json((ROOT / "tiny/model/config.json").read_text())
    with pytest.raises(CheckpointError, match="ch_mult"):
        Geometry.of(config, str(vae_at(tmp_path / "vae", ch_mult=levels)))


def test_a_model_without_its_vae(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tiny" / "model", tmp_path / "model", ignore=shutil.ignore_patterns("vae"))
    with pytest.raises(CheckpointError, match="no VAE"):
        Pipeline.from_pretrained(tmp_path / "model")


def test_devices() -> None:
    assert resolve_device("auto") in ("cpu", "cuda")
    assert resolve_device("cuda:1") == "cuda:1"
    for device in ("gpu", "cuda:", "cuda:x", "cpu:0", "", 3, None, "cuda:²"):
        with pytest.raises(InvalidRequest, match="device"):
            resolve_device(device)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options", [{"dtype": "float16"}, {"backend": "torch"}, {"threads": 0}, {"threads": True}, {"threads": 10**9}]
)
def test_wrong_loading_options(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        Pipeline.from_pretrained("demo", **options)


def test_a_conversion_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Checkpoint(resolve_model("demo")).nbytes * 3 // 2
    monkeypatch.setattr("nextstep_rt._core.available_memory", lambda: room)
    with pytest.raises(InvalidRequest, match=r"float32 needs .* MB .*without a copy"):
        Pipeline.from_pretrained("demo", dtype="float32", device="cpu", backend="reference")
    # The engine widens the weights as it reads them.
    assert Pipeline.from_pretrained("demo", dtype="float32", device="cpu").engine.memory()["converted"] == 0
