"""The cache of encoded pictures: right tokens, kept where nothing changed, made anew where anything did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nextstep_rt.patches import patchify
from nextstep_rt.train import latents, world
from nextstep_rt.train.vae import VaeTraining, pixels, save_vae
from nextstep_rt.vae import VAE

SETTINGS = VaeTraining(ch=32, ch_mult=(1, 1, 1, 1))
Loader = Callable[[], latents.Dataset]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("vae")
    save_vae(SETTINGS, dict(VAE(SETTINGS.config()).named_parameters()), out)
    return out


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pictures were encoded, call by call."""
    counts: list[int] = []
    encode = latents.encode

    def counted(vae: VAE, scenes: list[world.Scene]) -> Any:
        counts.append(len(scenes))
        return encode(vae, scenes)

    monkeypatch.setattr(latents, "encode", counted)
    monkeypatch.setattr(latents, "compiled", lambda function: function)
    monkeypatch.setattr(latents, "SHARD", 3)
    return counts


def load(folder: Path, cache: Path) -> latents.Dataset:
    return latents.load_dataset(folder, cache, scene_count=5, edit_count=2)


def test_tokens_are_those_of_the_pictures(folder: Path, tmp_path: Path, encoded: list[int]) -> None:
    data = load(folder, tmp_path)
    assert data.scene_tokens.shape == (5, 64, 64)
    assert data.edit_tokens.shape == (2, 2, 64, 64)
    vae = VAE.from_folder(folder)
    for scene, tokens in zip(data.scenes, data.scene_tokens, strict=True):
        exact = patchify(vae.encode(pixels([scene])), 2)[0]
        assert (tokens.float() - exact).square().mean().sqrt() < 0.03  # bfloat16's rounding, layer after layer
    for edit, (source, target) in zip(data.edits, data.edit_tokens, strict=True):
        for scene, tokens in ((edit.source, source), (edit.target, target)):
            assert (tokens.float() - patchify(vae.encode(pixels([scene])), 2)[0]).abs().mean() < 0.03


def test_what_was_encoded_is_kept(folder: Path, tmp_path: Path, encoded: list[int]) -> None:
    first = load(folder, tmp_path)
    done = sum(encoded)
    assert done == 5 + 2 * 2
    again = load(folder, tmp_path)
    assert sum(encoded) == done
    assert torch.equal(first.scene_tokens, again.scene_tokens)
    assert torch.equal(first.edit_tokens, again.edit_tokens)
    assert not list(tmp_path.glob("*.part"))


def test_another_encoder_encodes_anew(folder: Path, tmp_path: Path, encoded: list[int]) -> None:
    load(folder, tmp_path / "cache")
    done = sum(encoded)
    torch.manual_seed(1)
    save_vae(SETTINGS, dict(VAE(SETTINGS.config()).named_parameters()), tmp_path / "other")
    load(tmp_path / "other", tmp_path / "cache")
    assert sum(encoded) == 2 * done


@pytest.mark.parametrize("change", ["scenes", "palette"])
def test_another_world_encodes_anew(
    folder: Path, tmp_path: Path, encoded: list[int], change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(folder, tmp_path)
    done = sum(encoded)
    if change == "scenes":
        scene = latents.training_scene
        monkeypatch.setattr(latents, "training_scene", lambda i: replace(scene(i), background="black"))
    else:
        monkeypatch.setattr(world, "BACKGROUNDS", dict.fromkeys(world.BACKGROUNDS, (9, 9, 9)))
    load(folder, tmp_path)
    assert sum(encoded) >= done + 5
