"""The VAE as the pipeline meets it: a config that fits the model, and values that are finite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from kit.golden import ROOT
from kit.isolated import run_python
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from nextstep_rt import ModelConfig, Pipeline
from nextstep_rt.checkpoint import Geometry
from nextstep_rt.cli import app
from nextstep_rt.errors import CheckpointError, Error
from nextstep_rt.vision import Vision

DEMO = Path(__file__).parents[2] / "nextstep_rt" / "demo"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the demo, to be broken."""
    return Path(shutil.copytree(DEMO, tmp_path / "model"))


def change(model: Path, **values: Any) -> str:
    path = model / "vae" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return str(model / "vae")


def poison(model: Path, name: str) -> None:
    path = model / "vae" / "model.safetensors"
    state = {key: tensor.clone() for key, tensor in load_file(path).items()}
    state[name].view(-1)[0] = torch.nan
    save_file(state, path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ch": "x"}, "ch = 'x'"),
        ({"ch": [32]}, "ch = "),
        ({"ch": None}, "ch = None"),
        ({"ch": 10**9}, "at most 4096"),
        ({"ch_mult": [1, "a", 2, 2]}, "ch_mult"),
        ({"num_res_blocks": 10**6}, "num_res_blocks"),
        ({"scaling_factor": 10**400}, "scaling_factor"),
        ({"z_channels": 8}, "z_channels = 8, but the model's config.json has latent_channels = 16"),
        ({"psz": 4}, "psz = 4, but the model's config.json has latent_patch_size = 2"),
        ({"in_channels": 4}, "in_channels = 4: it must be 3"),
        ({"out_ch": 1}, "out_ch = 1: it must be 3"),
    ],
)
def test_a_vae_config_that_cannot_be(model: Path, values: dict[str, Any], message: str) -> None:
    config = ModelConfig.from_json((model / "config.json").read_text())
    with pytest.raises(CheckpointError, match=message) as caught:
        Geometry.of(config, change(model, **values))
    assert str(model / "vae" / "config.json") in str(caught.value)
    with pytest.raises(CheckpointError, match=message):
        Pipeline.from_pretrained(model)


def test_psz_means_nothing_without_its_norm(model: Path) -> None:
    config = ModelConfig.from_json((model / "config.json").read_text())
    folder = change(model, encoder_norm=False, psz=5)
    assert Geometry.of(config, folder).patch == 2
    assert Vision(folder, device="cpu").load().encode(torch.zeros(1, 3, 16, 16)).shape == (1, 16, 2, 2)


def test_peak_bytes() -> None:
    assert Vision(str(DEMO / "vae"), device="cpu").peak_bytes(64, 32) == 16 * 64 * 64 * 32 + (64 << 20)
    assert Vision(str(ROOT / "gqa5/model/vae"), device="cpu").peak_bytes(8, 8) == 16 * 32 * 64 + (64 << 20)


def test_the_config_is_read_without_torch() -> None:
    run_python(
        "import sys\n"
        "from nextstep_rt.checkpoint import Geometry\n"
        "from nextstep_rt.vae import VaeConfig\n"
        f"VaeConfig.from_folder({str(DEMO / 'vae')!r})\n"
        "assert 'torch' not in sys.modules\n"
    )


def test_nan_in_the_decoder_is_an_error(model: Path) -> None:
    poison(model, "decoder.conv_out.bias")
    with pytest.raises(Error, match="decoding gave pixels that are not finite; run `nextstep-rt info --verify`"):
        Vision(str(model / "vae"), device="cpu").decode(np.zeros((16, 2, 2), np.float32))


def test_nan_in_the_encoder_is_an_error(model: Path) -> None:
    poison(model, "encoder.conv_in.bias")
    pipeline = Pipeline.from_pretrained(model, threads=1)
    with pytest.raises(Error, match="latents that are not finite; run `nextstep-rt info --verify`"):
        pipeline("<image> red", image=Image.new("RGB", (64, 64)), height=64, width=64, num_inference_steps=1, seed=1)


def test_verify_reads_the_vae_too(model: Path) -> None:
    assert "every weight is finite" in CliRunner().invoke(app, ["info", str(model), "--verify"]).output
    poison(model, "decoder.mid.attn_1.q.weight")
    result = CliRunner().invoke(app, ["info", str(model), "--verify"])
    assert result.exit_code == 2
    assert "NaN or inf in 1 tensor(s): the VAE's decoder.mid.attn_1.q.weight" in " ".join(result.output.split())
