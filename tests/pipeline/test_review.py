"""What a review broke once: each of these was a wrong image, a wrong blame or a foreign exception."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.golden import ROOT
from PIL import Image

from nextstep_rt import CheckpointError, Error, InvalidRequest, Pipeline
from nextstep_rt.images import fit_size, load_image

TINY = ROOT / "tiny" / "model"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**values, **changes}))


def small(pipe: Pipeline, prompt: Any = "a", **options: Any) -> Any:
    options = {"height": 32, "width": 32, "num_inference_steps": 2, "output_type": "latent", **options}
    return pipe(prompt, **options)


def test_a_broken_image_of_a_later_batch_is_named() -> None:
    pipe = Pipeline.from_pretrained(str(TINY))
    noise = np.zeros((4, 3, 20, 64), np.float32)
    noise += np.random.default_rng(0).standard_normal(noise.shape).astype(np.float32)
    noise[3, 0, 17] = 3e38
    noise[3, 0, 17, 0] = -3e38
    with pytest.raises(Error, match=r"token 3 of image 1.*counted from image 16 of the request"):
        small(pipe, ["a"] * 20, noise=noise, guidance_scale=1.0, normalize_tokens=False)


def test_a_callback_cannot_write_into_the_result() -> None:
    pipe = Pipeline.from_pretrained(str(TINY))
    with pytest.raises(ValueError, match="read-only"):
        small(pipe, callback=lambda step, total, tokens: tokens.fill(0.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boi": 389, "eoi": 388}, "boi is 389, but .* as 388"),
        ({"boi": 386}, "boi is 386, but"),
        ({"image_placeholder_id": None}, "config.json has no 'image_placeholder_id'"),
    ],
)
def test_control_ids_are_held_against_the_tokenizer(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_json(folder / "config.json", **changes)
    with pytest.raises(CheckpointError, match=message):
        Pipeline.from_pretrained(str(folder))


def test_a_tokenizer_that_drops_all_text(folder: Path) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    added = {token["content"]: token["id"] for token in values["added_tokens"]}
    values["model"].update(vocab=added, merges=[])
    path.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="no tokens at all"):
        Pipeline.from_pretrained(str(folder))


@pytest.mark.parametrize("stated", [{"height": 63}, {"height": 65536}, {"positive_prompt": "<image>"}])
def test_defaults_that_no_call_could_run(folder: Path, stated: dict[str, Any]) -> None:
    edit_json(folder / "generation_config.json", **stated)
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        Pipeline.from_pretrained(str(folder))


def test_seed_and_noise_exclude_each_other() -> None:
    pipe = Pipeline.from_pretrained(str(TINY))
    noise = np.zeros((4, 3, 1, 64), np.float32)
    with pytest.raises(InvalidRequest, match="both given"):
        small(pipe, noise=noise, seed=1)
    result = small(pipe, noise=noise)
    assert result.seed is None
    assert result.seeds == ()


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.full((8, 8), 200, np.int32), 200),
        (np.full((8, 8), 1.001, np.float32), 255),
        (np.full((8, 8), 200.0, np.float32), 200),
        (np.full((8, 8), 65535, np.uint16), 255),
        (np.full((8, 8), 257, np.uint16), 1),
    ],
)
def test_wide_grey_pictures_keep_their_brightness(array: np.ndarray, expected: int) -> None:
    picture = load_image(Image.fromarray(array))
    assert picture.getpixel((4, 4)) == (expected, expected, expected)


def test_a_line_of_a_picture_is_held_to_eight_to_one() -> None:
    height, width = fit_size((1, 20000), 256, 16)
    assert 7 <= height / width <= 9  # 8:1, as near as whole tokens come


def test_decode_tokens_is_bounded() -> None:
    pipe = Pipeline.from_pretrained("demo")
    with pytest.raises(InvalidRequest, match="this model has 512"):
        pipe.decode_tokens(np.zeros((1, 1, 64), np.float32), 2048, 2048)
    with pytest.raises(InvalidRequest, match="array of numbers"):
        pipe.decode_tokens("x", 64, 64)
