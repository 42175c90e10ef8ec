"""Where a setting comes from, and what only the loaded pipeline can check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nextstep_rt import CheckpointError, InvalidRequest, Pipeline
from nextstep_rt.checkpoint import Geometry
from nextstep_rt.config import GenerationConfig
from nextstep_rt.request import Request, build_request

PICTURE = Image.new("RGB", (32, 32))


def build(defaults: GenerationConfig, prompt: str = "a red circle", **options: Any) -> Request:
    return build_request(prompt, options, Geometry(256, 256, 16, 8, 2, 16, 4096), defaults)


def write(folder: Path, content: Any) -> GenerationConfig:
    (folder / "generation_config.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return GenerationConfig.from_folder(folder)


def test_absent(tmp_path: Path) -> None:
    assert GenerationConfig.from_folder(tmp_path) == GenerationConfig()


def test_explicit_over_file_over_api(tmp_path: Path) -> None:
    stated = write(tmp_path, {"num_inference_steps": 20, "guidance_scale": 3, "temperature": 0.7, "eos": [1]})
    assert build(stated).settings.num_inference_steps == 20
    assert build(stated, num_inference_steps=28).settings.num_inference_steps == 28
    assert build(stated).settings.guidance_scale == 3.0
    assert build(stated).settings.solver == "sde"


def test_stated_image_guidance_waits_for_an_image(tmp_path: Path) -> None:
    stated = write(tmp_path, {"image_guidance_scale": 2.0})
    assert build(stated).branches == 2
    assert build(stated).settings.image_guidance_scale == 1.0
    assert build(stated, "<image>", image=PICTURE).branches == 3


@pytest.mark.parametrize(
    "content",
    [
        {"num_inference_steps": "20"},
        {"num_inference_steps": 20.0},
        {"solver": "none"},
        {"guidance_scale": None},
        [],
        "{",
    ],
)
def test_wrong(tmp_path: Path, content: Any) -> None:
    with pytest.raises(CheckpointError, match="generation_config"):
        write(tmp_path, content)


def test_unknown_arguments_are_type_errors(tiny: Pipeline) -> None:
    with pytest.raises(TypeError, match="did you mean 'num_inference_steps'"):
        tiny("a", num_inference_step=3)  # type: ignore[call-arg]


@pytest.mark.parametrize("options", [{"callback": 3}, {"progress": 3}, {"progress": "yes"}])
def test_callbacks_must_be_callable(tiny: Pipeline, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match=next(iter(options))):
        tiny("a", **options)


def test_positions_are_counted_with_the_prompt(tiny: Pipeline) -> None:
    with pytest.raises(InvalidRequest, match="4096: shorten the prompt"):
        tiny("x y " * 4000, height=32, width=32)


def test_memory_is_checked_before_it_is_taken(tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nextstep_rt._core.available_memory", lambda: 1 << 20)
    with pytest.raises(InvalidRequest, match=r"needs .* MB \(.*VAE .*\), and 1\.05 MB are available"):
        tiny("a", height=32, width=32)
    with pytest.raises(InvalidRequest, match=r"needs .* MB \(KV cache .*, scratch .*\), and"):
        tiny("a", height=992, width=992, num_images_per_prompt=8, output_type="latent")
    monkeypatch.setattr("nextstep_rt._core.available_memory", lambda: 0)
    assert tiny("a", height=32, width=32, num_inference_steps=1, output_type="latent").complete
