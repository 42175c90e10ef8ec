"""Requests: every bad value is an InvalidRequest that names it and the way out, and nothing else ever comes out."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from nextstep_rt import InvalidRequest, SamplingParams
from nextstep_rt.checkpoint import Geometry
from nextstep_rt.config import GenerationConfig
from nextstep_rt.options import CallOptions, call_signature
from nextstep_rt.request import Request, build_request, draw_seed

GEOMETRY = Geometry(256, 256, 16, 8, 2, 16, 4096)
PICTURE = Image.new("RGB", (300, 200), (10, 200, 30))


def build(prompt: Any = "a red circle", defaults: GenerationConfig | None = None, **options: Any) -> Request:
    return build_request(prompt, options, GEOMETRY, defaults or GenerationConfig())


BAD = [
    ({"prompt": 3}, "prompt must be a string or a list"),
    ({"prompt": None}, "prompt must be a string or a list"),
    ({"prompt": []}, "empty list"),
    ({"prompt": ["a", 3]}, r"prompt\[1\] must be a string"),
    ({"prompt": b"a"}, "prompt must be"),
    ({"prompt": {"a": 1}}, "prompt must be"),
    ({"prompt": ["a"] * 1025}, "1025"),
    ({"prompt": "a" * 100_001}, "100001 characters"),
    ({"prompt": ["a"] * 600, "num_images_per_prompt": 2}, "1200"),
    ({"negative_prompt": None}, "negative_prompt must be a string"),
    ({"positive_prompt": 3}, "positive_prompt must be a string"),
    ({"height": 100}, "96 and 112"),
    ({"width": 8}, "the nearest that are: 16"),
    ({"height": 0}, "height is 0"),
    ({"height": -16}, "height is -16"),
    ({"width": 16.0}, r"whole number.*16\.0"),
    ({"width": True}, "whole number.*True"),
    ({"width": "16"}, "whole number"),
    ({"height": 10**30}, "height is 1000"),
    ({"height": 10**5000}, "height is"),
    ({"height": 4096, "width": 4096}, "65536 image tokens.*4096 positions"),
    ({"num_images_per_prompt": 0}, "num_images_per_prompt is 0"),
    ({"num_images_per_prompt": -1}, "num_images_per_prompt is -1"),
    ({"num_images_per_prompt": 10**6}, "1000000"),
    ({"num_images_per_prompt": True}, "True"),
    ({"num_inference_steps": 0}, "num_inference_steps is 0"),
    ({"num_inference_steps": -5}, "-5"),
    ({"num_inference_steps": 1001}, "1001"),
    ({"num_inference_steps": None}, "None"),
    ({"num_inference_steps": 1, "solver": "sde-final-ode"}, "sde-final-ode"),
    ({"guidance_scale": float("nan")}, "guidance_scale is nan"),
    ({"guidance_scale": float("inf")}, "guidance_scale is inf"),
    ({"guidance_scale": "7"}, "guidance_scale must be a number"),
    ({"guidance_scale": True}, "True"),
    ({"guidance_scale": 10**400}, "guidance_scale"),
    ({"guidance_scale": 1j}, "guidance_scale"),
    ({"timestep_shift": 0}, "timestep_shift is 0"),
    ({"timestep_shift": -1.0}, "timestep_shift"),
    ({"noise_level": 1.5}, "noise_level"),
    ({"last_step_size": 1.0}, "last_step_size"),
    ({"last_step_size": 0.0}, "last_step_size"),
    ({"guidance_schedule": "cosine"}, "constant, linear"),
    ({"guidance_renorm": 1}, "guidance_renorm must be True or False"),
    ({"normalize_tokens": "yes"}, "normalize_tokens"),
    ({"solver": "eular"}, "did you mean 'euler'"),
    ({"solver": "dpm++"}, "sde, sde-final-ode, euler, heun, flow-sde, flow-cps"),
    ({"solver": None}, "unknown solver"),
    ({"solver": ["sde"]}, "unknown solver"),
    ({"output_type": "tensor"}, "pil, np, latent"),
    ({"output_type": "PIL"}, "did you mean 'pil'"),
    ({"seed": -1}, "seed is -1"),
    ({"seed": 2**64}, "seed is 18446744073709551616"),
    ({"seed": 1.5}, "seed must be a whole number"),
    ({"seed": True}, "seed must be a whole number"),
    ({"seed": [1, 2]}, "seed is a list of 2 for 1 images"),
    ({"seed": ["a"]}, r"seed\[0\]"),
    ({"noise": np.zeros((256, 29, 1, 64))}, "float64"),
    ({"noise": np.zeros((1, 1, 1, 1), np.float32)}, r"needs \(256, 29, 1, 64\)"),
    ({"noise": np.full((256, 29, 1, 64), np.nan, np.float32)}, "NaN or inf"),
    ({"noise": "x"}, "noise has dtype"),
    ({"noise": [[1], [1, 2]]}, "noise"),
    ({"image_guidance_scale": 2.0}, "no image was given"),
    ({"prompt": "<image>add a hat"}, "no image was given"),
    ({"positive_prompt": "<image>"}, "no image was given"),
    ({"image": PICTURE}, "no <image> marker"),
    ({"image": PICTURE, "prompt": "<image> and <image>"}, "2 <image> markers"),
    ({"image": PICTURE, "prompt": "<image>", "positive_prompt": "<image>"}, "2 <image> markers"),
    ({"image": PICTURE, "prompt": ["<image>a", "b"]}, "no <image> marker"),
    ({"image": [PICTURE], "prompt": "<image>a"}, "one image per call"),
    ({"image": 7, "prompt": "<image>a"}, "image must be"),
    ({"image": "no/such.png", "prompt": "<image>a"}, "does not exist"),
    ({"image": os.curdir, "prompt": "<image>a"}, "is not a file"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[f"{i}-{'-'.join(c)}" for i, (c, _) in enumerate(BAD)])
def test_bad_requests_name_the_value(call: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as caught:
        build(**call)
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 400


def test_defaults_are_the_apis() -> None:
    request = build()
    assert (request.height, request.width, request.grid, request.num_tokens) == (256, 256, (16, 16), 256)
    assert request.branches == 2
    signature = call_signature().parameters
    for field in dataclasses.fields(GenerationConfig):
        assert signature[field.name].default == getattr(request.settings, field.name) or field.name in (
            "height",
            "width",
        )
    assert list(signature)[2:] == list(CallOptions.__annotations__)
    assert list(signature)[2:] == [
        "negative_prompt", "positive_prompt", "num_inference_steps", "guidance_scale", "image_guidance_scale",
        "guidance_schedule", "guidance_renorm", "timestep_shift", "solver", "noise_level", "last_step_size",
        "normalize_tokens", "image", "height", "width", "num_images_per_prompt", "seed", "noise",
        "output_type", "progress", "callback",
    ]  # fmt: skip


def test_empty_prompt_and_numpy_numbers_are_legal() -> None:
    request = build(
        "", height=np.int64(32), guidance_scale=np.float32(1.0), guidance_renorm=np.bool_(True), seed=np.uint64(5)
    )
    assert request.prompts == ("",)
    assert request.branches == 1
    assert request.seeds == (5,)
    assert type(request.settings.height) is int
    assert type(request.settings.guidance_renorm) is bool
    json.dumps(request.to_json(0))


def test_not_square() -> None:
    assert build(height=256, width=1024).grid == (16, 64)
    assert build(height=1024, width=256).grid == (64, 16)


def test_seeds_count_up_and_wrap() -> None:
    assert build(["a", "b"], num_images_per_prompt=2, seed=7).seeds == (7, 8, 9, 10)
    assert build(["a", "b"], seed=2**64 - 1).seeds == (2**64 - 1, 0)
    assert build(["a", "b"], seed=[5, 5]).seeds == (5, 5)
    assert 0 <= draw_seed() < 2**53
    assert build().seeds != build().seeds


def test_branches() -> None:
    assert build(guidance_scale=1.0).branches == 1
    assert build("<image>", image=PICTURE).branches == 2
    assert build("<image>", image=PICTURE, image_guidance_scale=2.0).branches == 3
    assert build("<image>", image=PICTURE, image_guidance_scale=2.0, guidance_scale=1.0).branches == 3
    assert build("<image>", image=PICTURE, guidance_scale=1.0).branches == 1


def test_the_pictures_ratio_sets_the_size() -> None:
    request = build("<image>", image=PICTURE)
    assert (request.height, request.width) == (208, 320)
    assert request.notes == ("image resized from 300x200 to 320x208",)
    assert build("<image>", image=PICTURE, height=96).width == 144
    assert build("<image>", image=PICTURE, width=96).height == 64
    assert build("<image>", image=Image.new("RGB", (256, 256))).notes == ()
    for size in ((1, 1), (1, 4000), (4000, 1)):
        request = build("<image>", image=Image.new("RGB", size))
        assert request.num_tokens <= 1.1 * 256  # about the native area, in whole tokens
        assert request.image is not None
        assert request.image.size == (request.width, request.height)


def test_positive_prompt_is_appended_after_a_space() -> None:
    assert build("a", positive_prompt="b").full_prompts == ("a b",)
    assert build("a").full_prompts == ("a",)


def test_metadata_makes_the_image_again() -> None:
    request = build(["a", "b"], num_images_per_prompt=2, seed=3, solver="heun", height=32, width=48)
    stored = json.loads(json.dumps(request.to_json(3)))
    again = build(**{name: value for name, value in stored.items() if name != "image"})
    assert again.prompts == ("b",)
    assert again.seeds == (6,)
    assert again.sampling() == request.sampling()


numbers = st.integers() | st.floats() | st.booleans() | st.sampled_from([0, 1, 16, 32, 48, 10**400])
anything = (
    st.none()
    | numbers
    | st.text(max_size=8)
    | st.binary(max_size=4)
    | st.lists(numbers, max_size=3)
    | st.just(object())
)
prompts = (
    st.text(max_size=20)
    | st.sampled_from(["<image>", "a <image> <image>", ""])
    | st.lists(st.text(max_size=5), max_size=3)
)
arrays = st.sampled_from(
    [
        np.zeros((2, 2), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.full((2, 2, 3), np.nan),
        np.zeros((2, 2, 4)),
        PICTURE,
    ]
)
named = {name: anything for name in CallOptions.__annotations__ if name not in ("progress", "callback")}
plausible = {
    "height": st.integers(-1, 70).map(lambda n: 16 * n),
    "width": st.integers(-1, 70).map(lambda n: 16 * n),
    "num_images_per_prompt": st.integers(-1, 5),
    "num_inference_steps": st.integers(-1, 50),
    "guidance_scale": st.floats(),
    "image_guidance_scale": st.floats(),
    "timestep_shift": st.floats(),
    "noise_level": st.floats(0, 1),
    "last_step_size": st.floats(0, 1),
    "solver": st.sampled_from(["sde", "sde-final-ode", "euler", "heun", "flow-sde", "flow-cps", "x"]),
    "seed": st.integers() | st.lists(st.integers(0, 2**64 - 1), max_size=3),
    "image": arrays,
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    prompts | anything,
    st.fixed_dictionaries({}, optional=named) | st.fixed_dictionaries({}, optional=plausible),
)
def test_fuzz_only_invalid_request_comes_out(prompt: Any, options: dict[str, Any]) -> None:
    try:
        request = build_request(prompt, options, GEOMETRY, GenerationConfig())
    except InvalidRequest:
        return
    assert 1 <= request.num_images <= 1024
    assert len(request.seeds) == request.num_images
    assert 1 <= request.num_tokens <= GEOMETRY.max_positions
    json.dumps(request.to_json(0))
    SamplingParams(**request.sampling())
