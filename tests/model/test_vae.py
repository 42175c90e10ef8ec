"""The autoencoder against the golden pixels and latents."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from kit.golden import ALL, CHECKPOINTS, ROOT, load_case, relative_error

from nextstep_rt.errors import CheckpointError, InvalidRequest
from nextstep_rt.patches import patchify, unpatchify
from nextstep_rt.vae import VAE, VaeConfig

# Some 30 convolutions deep, errors add up to tens of epsilons, more or less by the machine's summation order;
# float64 compares with goldens rounded to float32.
TOLERANCE = {torch.float32: 1e-5, torch.float64: 2e-7, torch.bfloat16: 3e-2}
SMALL = VaeConfig(ch=32, ch_mult=(1, 2), num_res_blocks=1, z_channels=4)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize(("checkpoint", "name"), ALL)
def test_decode_golden(checkpoint: str, name: str, dtype: torch.dtype) -> None:
    case = load_case(checkpoint, name)
    pixels = VAE.from_folder(case.model / "vae", dtype=dtype).decode(torch.from_numpy(case["latents"]))
    assert pixels.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert relative_error(pixels, case["pixels"]) <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_encode_golden(checkpoint: str, dtype: torch.dtype) -> None:
    case = load_case(checkpoint, "edit")
    pixels = torch.from_numpy(case["image"]).to(torch.float64) / 127.5 - 1
    latents = VAE.from_folder(case.model / "vae", dtype=dtype).encode(pixels)
    assert relative_error(patchify(latents, 2), case["image_tokens"]) <= TOLERANCE[dtype]


@pytest.mark.parametrize(("checkpoint", "name"), ALL)
def test_unpatchify_golden(checkpoint: str, name: str) -> None:
    case = load_case(checkpoint, name)
    assert np.array_equal(unpatchify(case["tokens"], *case.grid, 2), case["latents"])
    assert np.array_equal(patchify(case["latents"], 2), case["tokens"])


# ---- patches


@given(batch=st.integers(1, 2), c=st.integers(1, 3), h=st.integers(1, 4), w=st.integers(1, 4), p=st.integers(1, 3))
def test_patches_round_trip(batch: int, c: int, h: int, w: int, p: int) -> None:
    latents = np.arange(batch * c * h * p * w * p).reshape(batch, c, h * p, w * p)
    tokens = patchify(latents, p)
    assert tokens.shape == (batch, h * w, c * p * p)
    for i in range(h):
        for j in range(w):
            patch = latents[:, :, i * p : (i + 1) * p, j * p : (j + 1) * p]
            assert np.array_equal(tokens[:, i * w + j], patch.reshape(batch, -1))
    assert np.array_equal(unpatchify(tokens, h, w, p), latents)
    assert torch.equal(patchify(torch.from_numpy(latents), p), torch.from_numpy(tokens))
    assert np.array_equal(unpatchify(tokens[0], h, w, p), latents[0])


def test_patches_refuse_what_does_not_divide() -> None:
    with pytest.raises(InvalidRequest, match=r"\(1, 5, 4\).*2x2"):
        patchify(np.zeros((1, 5, 4)), 2)
    with pytest.raises(InvalidRequest, match=r"\(6, 4\).*2x2 patches"):
        unpatchify(np.zeros((6, 4)), 2, 2, 2)
    with pytest.raises(InvalidRequest, match="a multiple of 4"):
        unpatchify(np.zeros((4, 6)), 2, 2, 2)


# ---- encoding


def make_vae(**changes: Any) -> VAE:
    torch.manual_seed(0)
    return VAE(VaeConfig(**{**asdict(SMALL), **changes})).requires_grad_(False).eval()


def test_posterior_sampling() -> None:
    vae, pixels = make_vae(), torch.rand(2, 3, 8, 12) * 2 - 1
    mean, logvar = vae.moments(pixels)
    noise = torch.randn(mean.shape)
    expected = (mean + (logvar / 2).exp() * noise - vae.config.shift_factor) * vae.config.scaling_factor
    assert torch.allclose(vae.encode(pixels, noise=noise), expected, atol=1e-6)
    seeded = [vae.encode(pixels, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2)]
    assert torch.equal(seeded[0], seeded[1])
    assert not torch.equal(seeded[0], seeded[2])
    still = make_vae(deterministic=True)
    assert torch.allclose(still.encode(pixels, noise=noise), still.encode(pixels))
    with pytest.raises(InvalidRequest, match="noise has shape"):
        vae.encode(pixels, noise=noise[:1])


@pytest.mark.parametrize(("psz", "patch"), [(None, 1), (2, 2)])
def test_encoder_norm_is_per_patch(psz: int | None, patch: int) -> None:
    latents = make_vae(encoder_norm=True, psz=psz, deterministic=True, shift_factor=0.0, scaling_factor=1.0).encode(
        torch.rand(1, 3, 8, 12) * 2 - 1
    )
    tokens = patchify(latents, patch)
    assert torch.allclose(tokens.mean(-1), torch.zeros(()), atol=1e-5)
    assert torch.allclose(tokens.var(-1, correction=0), torch.ones(()), atol=1e-2)


def test_decode_undoes_the_scaling() -> None:
    vae, latents = make_vae(), torch.randn(1, 4, 2, 3)
    plain = make_vae(shift_factor=0.0, scaling_factor=1.0)
    scaled = (latents - vae.config.shift_factor) * vae.config.scaling_factor
    assert torch.allclose(vae.decode(scaled), plain.decode(latents), atol=1e-5)
    assert vae.decode(latents).shape == (1, 3, 4, 6)


def test_wrong_sizes() -> None:
    vae = make_vae(encoder_norm=True, psz=2)
    for shape in ((1, 3, 8, 6), (1, 1, 8, 8), (3, 8, 8)):
        with pytest.raises(InvalidRequest, match="multiples of 4"):
            vae.encode(torch.zeros(shape))
    with pytest.raises(InvalidRequest, match=r"\(N, 4, h, w\)"):
        vae.decode(torch.zeros(1, 5, 2, 2))


def test_gradients_flow_for_training() -> None:
    torch.manual_seed(0)
    vae = VAE(VaeConfig(**{**asdict(SMALL), "encoder_norm": True, "psz": 2}))
    mean, _ = vae.moments(torch.rand(1, 3, 8, 8))
    vae.decoder(mean).square().mean().backward()
    silent = {name for name, p in vae.named_parameters() if p.grad is None}
    assert not silent


# ---- the configuration


def test_config_is_frozen_and_knows_its_factor() -> None:
    config = VaeConfig.from_json((ROOT / "tiny" / "model" / "vae" / "config.json").read_text())
    assert config.down_factor == 8
    assert config.psz == 2
    assert config.ch_mult == (1, 1, 2, 2)
    assert VaeConfig.from_dict({"ch_mult": [1, 2, 2], "unheard_of": 1}).down_factor == 4
    with pytest.raises(FrozenInstanceError):
        config.ch = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ch": 0}, "ch = 0"),
        ({"ch": 48}, "a multiple of 32"),
        ({"ch_mult": []}, "ch_mult"),
        ({"ch_mult": [1, "2"]}, "ch_mult"),
        ({"num_res_blocks": True}, "num_res_blocks = True"),
        ({"z_channels": 1.5}, "z_channels = 1.5"),
        ({"scaling_factor": 0}, "scaling_factor = 0; it must be a number from 1e-6"),
        ({"scaling_factor": 10**400}, "scaling_factor = 1000"),
        ({"scaling_factor": -1.0}, "scaling_factor = -1.0"),
        ({"shift_factor": 10**400}, "shift_factor"),
        ({"ch": "x"}, "ch = 'x'"),
        ({"ch": [32]}, "ch = "),
        ({"ch": None}, "ch = None"),
        ({"ch": 10**9}, "at most 4096"),
        ({"ch_mult": [1, "a", 2, 2]}, "ch_mult"),
        ({"ch_mult": [1] * 9}, "1 to 8"),
        ({"ch_mult": [1, 10**9]}, "at most 64"),
        ({"num_res_blocks": 10**6}, "at most 64"),
        ({"z_channels": 10**9}, "z_channels = 1000000000"),
        ({"in_channels": 10**9}, "in_channels"),
        ({"shift_factor": float("nan")}, "shift_factor = nan"),
        ({"deterministic": "yes"}, "deterministic = 'yes'"),
        ({"psz": 0}, "psz = 0"),
    ],
)
def test_config_refuses(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        VaeConfig.from_dict(values)


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_config_must_be_an_object(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        VaeConfig.from_json(text)
