"""Loading of the autoencoder: layouts, dtypes, hostile and broken folders."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from kit.golden import ROOT
from safetensors.torch import save_file

from nextstep_rt.errors import CheckpointError
from nextstep_rt.vae import VAE, VaeConfig

SMALL = VaeConfig(ch=32, ch_mult=(1, 2), num_res_blocks=1, z_channels=4)


def make_vae(**changes: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(VaeConfig(**{**asdict(SMALL), **changes})).requires_grad_(False).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config.json and no weights yet."""
    (tmp_path / "config.json").write_text(json.dumps(asdict(SMALL)))
    return tmp_path


def small_state() -> dict[str, torch.Tensor]:
    return dict(make_vae().state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("layout", ["bare", "nested", "safetensors", "sharded"])
def test_layouts_and_dtypes(folder: Path, layout: str, dtype: torch.dtype) -> None:
    state = {name: tensor.to(dtype) for name, tensor in small_state().items()}
    if layout == "sharded":
        names = sorted(state)
        save_file({name: state[name] for name in names[::2]}, folder / "model-00001-of-00002.safetensors")
        save_file({name: state[name] for name in names[1::2]}, folder / "model-00002-of-00002.safetensors")
    elif layout == "safetensors":
        save_file(state, folder / "model.safetensors")
    else:
        torch.save({"state_dict": state, "step": 3} if layout == "nested" else state, folder / "checkpoint.pt")
    vae = VAE.from_folder(folder)
    assert vae.dtype == torch.float32
    assert vae.device.type == "cpu"
    assert not vae.training
    for name, tensor in vae.state_dict().items():
        assert torch.equal(tensor, state[name].float()), name
    assert not any(p.requires_grad for p in vae.parameters())


class Hostile:
    """Touches a file when unpickled by a reader that runs what it reads."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("plain", [True, False], ids=["pickle", "torch"])
def test_hostile_pickle_is_refused_and_not_run(folder: Path, plain: bool) -> None:
    marker = folder / "executed"
    content = {**small_state(), "extra": Hostile(marker)}
    with open(folder / "checkpoint.pt", "wb") as file:
        pickle.dump(content, file) if plain else torch.save(content, file)
    with pytest.raises(CheckpointError, match="refused because loading them could run code") as caught:
        VAE.from_folder(folder)
    assert "weights_only" not in str(caught.value)
    assert "can still be loaded" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds list, not a dictionary"),
        (torch.zeros(2), "holds Tensor, not a dictionary"),
        ({"encoder.conv_in.bias": 3.0}, r"not tensors: encoder\.conv_in\.bias"),
        ({"state_dict": {"a": [torch.zeros(1)]}}, "not tensors: a"),
    ],
)
def test_pickle_of_other_things(folder: Path, content: Any, message: str) -> None:
    torch.save(content, folder / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=message):
        VAE.from_folder(folder)


def test_names_and_shapes_are_checked(folder: Path) -> None:
    state = small_state()
    del state["decoder.mid.attn_1.q.bias"]
    state["decoder.stranger"] = torch.zeros(1)
    state["encoder.conv_in.bias"] = torch.zeros(7)
    state["encoder.norm_out.bias"] = torch.zeros(64, dtype=torch.int64)
    torch.save(state, folder / "checkpoint.pt")
    with pytest.raises(CheckpointError) as caught:
        VAE.from_folder(folder)
    for part in (
        "missing: decoder.mid.attn_1.q.bias",
        "unknown: decoder.stranger",
        "encoder.conv_in.bias has shape (7,), config.json asks for (32,)",
        "encoder.norm_out.bias is torch.int64",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("odd", [torch.zeros(32).to_sparse(), torch.zeros(32, device="meta")], ids=["sparse", "meta"])
def test_weights_must_be_dense_and_here(folder: Path, odd: torch.Tensor) -> None:
    torch.save({**small_state(), "encoder.conv_in.bias": odd}, folder / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"sparse or without data \(encoder\.conv_in\.bias\)"):
        VAE.from_folder(folder)


def test_many_missing_names_are_counted(folder: Path) -> None:
    torch.save({}, folder / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more"):
        VAE.from_folder(folder)


@pytest.mark.parametrize(("checkpoint", "file"), [("tiny", "checkpoint.pt"), ("gqa5", "model.safetensors")])
@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(tmp_path: Path, checkpoint: str, file: str, part: float) -> None:
    broken = tmp_path / "vae"
    shutil.copytree(ROOT / checkpoint / "model" / "vae", broken)
    content = (broken / file).read_bytes()
    (broken / file).write_bytes(content[: int(len(content) * part)])
    with pytest.raises(CheckpointError, match=file):
        VAE.from_folder(broken)


def test_repeated_tensors(folder: Path) -> None:
    for name in ("a", "b"):
        save_file(small_state(), folder / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match=r"b\.safetensors repeats"):
        VAE.from_folder(folder)


def test_missing_pieces(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(CheckpointError, match="no VAE at"):
        VAE.from_folder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="no weights in"):
        VAE.from_folder(folder)
    (folder / "config.json").write_bytes(b"\xff")
    with pytest.raises(CheckpointError, match="cannot read"):
        VAE.from_folder(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json"):
        VAE.from_folder(folder)
