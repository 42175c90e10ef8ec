"""What the pipeline returns, and what must never change an image."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nextstep_rt import Error, InvalidRequest, Pipeline
from nextstep_rt.batching import images_per_batch

Loader = Callable[..., Pipeline]
SMALL: dict[str, Any] = {"height": 32, "width": 32, "num_inference_steps": 3, "guidance_scale": 2.0}
PICTURE = Image.effect_noise((64, 48), 60).convert("RGB")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_same_request_twice_and_with_other_threads(pipeline: Loader, dtype: str) -> None:
    call: dict[str, Any] = {**SMALL, "prompt": "two green triangles", "seed": 11, "output_type": "np"}
    one, two = pipeline("tiny", dtype=dtype, threads=1), pipeline("tiny", dtype=dtype, threads=2)
    first = one(**call)
    for other in (one(**call), two(**call)):
        np.testing.assert_array_equal(first.tokens, other.tokens)
        np.testing.assert_array_equal(first.images, other.images)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_alone_and_in_a_batch(pipeline: Loader, dtype: str) -> None:
    pipe = pipeline("tiny", dtype=dtype)
    prompts = ["two", "a red circle above a blue square", "", "a board and a panda and " * 6]
    batch = pipe(prompts, num_images_per_prompt=2, seed=40, negative_prompt="blurry", output_type="np", **SMALL)
    assert batch.seeds == tuple(range(40, 48))
    assert batch.seed == 40
    for i in (0, 3, 4, 7):
        alone = pipe(prompts[i // 2], seed=40 + i, negative_prompt="blurry", output_type="np", **SMALL)
        np.testing.assert_array_equal(alone.tokens[0], batch.tokens[i])
        np.testing.assert_array_equal(alone.images[0], batch.images[i])
    assert len({image.tobytes() for image in batch.images}) == 8


def test_more_rows_than_the_engine_takes(tiny: Pipeline) -> None:
    steps: list[tuple[int, int, tuple[int, ...]]] = []
    call = {**SMALL, "num_inference_steps": 1, "output_type": "latent"}
    result = tiny(
        "two", num_images_per_prompt=11, seed=3, callback=lambda *a: steps.append((a[0], a[1], a[2].shape)), **call
    )
    assert result.tokens.shape == (11, 4, 64)
    assert [step for step, _, _ in steps] == list(range(1, 9))
    assert {total for _, total, _ in steps} == {8}
    assert steps[-1][2] == (11 - images_per_batch(2), 4, 64)
    np.testing.assert_array_equal(tiny("two", seed=13, **call).tokens[0], result.tokens[10])
    noise = np.random.default_rng(0).standard_normal((4, 2, 11, 64), np.float32)
    given = tiny("two", num_images_per_prompt=11, noise=noise, **call)
    np.testing.assert_array_equal(
        tiny("two", noise=np.ascontiguousarray(noise[:, :, 9:10]), **call).tokens[0], given.tokens[9]
    )


def test_an_edit_alone_and_in_a_batch(tiny: Pipeline) -> None:
    call = {**SMALL, "image": PICTURE, "image_guidance_scale": 1.5, "output_type": "np"}
    batch = tiny(["<image>add a hat", "make <image> blue"], seed=5, num_images_per_prompt=3, **call)
    assert batch.notes == ["image resized from 64x48 to 32x32"]
    alone = tiny("make <image> blue", seed=10, **call)
    np.testing.assert_array_equal(alone.images[0], batch.images[5])
    other = tiny("make <image> blue", seed=10, **{**call, "image": Image.new("RGB", (64, 48))})
    assert not np.array_equal(other.tokens, alone.tokens)


def test_a_sampled_posterior_repeats_by_seed(tiny: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = tiny.vision.load()
    object_config = vae.config
    call = {**SMALL, "image": PICTURE, "output_type": "latent"}
    mean = tiny("<image>a", seed=1, **call).tokens
    monkeypatch.setattr(vae, "config", type(object_config)(**{**vars(object_config), "deterministic": False}))
    batch = tiny("<image>a", seed=1, num_images_per_prompt=2, **call)
    np.testing.assert_array_equal(tiny("<image>a", seed=2, **call).tokens[0], batch.tokens[1])
    assert not np.array_equal(batch.tokens[0], mean[0])
    noise = np.random.default_rng(0).standard_normal((4, 4, 1, 64), np.float32)
    first, second = (tiny("<image>a", noise=noise, **call).tokens for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_typed_control_tokens_draw_another_image_than_their_absence(tiny: Pipeline) -> None:
    call = {**SMALL, "seed": 1, "output_type": "latent"}
    typed = tiny("two<|begin_of_image|><|image_placeholder|>", **call).tokens
    assert np.isfinite(typed).all()
    assert not np.array_equal(typed, tiny("two", **call).tokens)


@pytest.mark.parametrize(("height", "width"), [(32, 128), (128, 32)])
def test_not_square(tiny: Pipeline, height: int, width: int) -> None:
    """Tokens are laid out row by row: the picture of the first row's tokens alone is the full picture's top."""
    result = tiny("two", height=height, width=width, num_inference_steps=2, seed=4)
    assert result.images[0].size == (width, height)
    latents = tiny.decode_tokens(result.tokens, height, width, "latent")
    assert latents.shape == (1, 16, height // 8, width // 8)
    columns = width // 16
    np.testing.assert_array_equal(latents[0, :, :2, 2:4].reshape(-1), result.tokens[0, 1])
    np.testing.assert_array_equal(latents[0, :, 2:4, :2].reshape(-1), result.tokens[0, columns])


def test_output_types(tiny: Pipeline) -> None:
    call = {**SMALL, "prompt": "two", "seed": 9}
    pil, array, latent = (tiny(**call, output_type=kind) for kind in ("pil", "np", "latent"))
    assert pil.images[0].mode == "RGB"
    assert array.images.shape == (1, 32, 32, 3)
    assert 0 <= array.images.min() <= array.images.max() <= 1
    np.testing.assert_array_equal(np.asarray(pil.images[0]), np.rint(array.images[0] * 255).astype(np.uint8))
    assert latent.images.shape == (1, 16, 4, 4)
    assert set(pil.timings) == {
        "load_s", "vae_load_s", "tokenize_s", "prefill_s", "decode_s", "vae_s", "total_s", "ms_per_token",
    }  # fmt: skip
    assert all(value >= 0 for value in pil.timings.values())
    assert pil.metadata[0]["seed"] == 9


def test_a_callback_stops(tiny: Pipeline) -> None:
    seen: list[np.ndarray] = []

    def stop_at_three(step: int, total: int, tokens: np.ndarray) -> bool:
        seen.append(tokens.copy())
        assert (step, total) == (len(seen), 4)
        return step < 3

    result = tiny("two", seed=2, num_images_per_prompt=2, callback=stop_at_three, **SMALL)
    assert not result.complete
    assert result.images == []
    assert result.tokens_done == (3, 3)
    assert result.tokens.shape == (2, 3, 64)
    full = tiny("two", seed=2, num_images_per_prompt=2, **SMALL)
    np.testing.assert_array_equal(result.tokens, full.tokens[:, :3])
    np.testing.assert_array_equal(seen[1], full.tokens[:, :2])
    partial = tiny.decode_tokens(result.tokens, 32, 32)
    assert [image.size for image in partial] == [(32, 32)] * 2


def test_a_stop_in_the_second_batch_keeps_the_first(tiny: Pipeline) -> None:
    size = images_per_batch(2)
    call = {**SMALL, "num_inference_steps": 1}
    result = tiny("two", num_images_per_prompt=size + 1, callback=lambda step, total, tokens: step < 6, **call)
    assert not result.complete
    assert len(result.images) == size
    assert result.tokens_done == (4,) * size + (2,)
    assert not result.tokens[size, 2:].any()


@pytest.mark.parametrize("answer", [None, True, 0, "", np.True_])
def test_only_false_stops(tiny: Pipeline, answer: Any) -> None:
    assert tiny("two", callback=lambda *_: answer, output_type="latent", **SMALL).complete


def test_a_stop_after_the_last_token_stops_nothing(tiny: Pipeline) -> None:
    result = tiny("two", callback=lambda step, total, _: step < total, **SMALL)
    assert result.complete
    assert len(result.images) == 1


def test_a_callbacks_exception_arrives_and_the_pipeline_lives_on(tiny: Pipeline) -> None:
    def fail(*_: Any) -> None:
        raise LookupError("mine")

    before = tiny("two", seed=1, **SMALL).tokens
    for error in (LookupError, KeyboardInterrupt):

        def fail_with(*_: Any, error: type[BaseException] = error) -> None:
            raise error("mine")

        with pytest.raises(error, match="mine"):
            tiny("two", callback=fail_with, **SMALL)
    np.testing.assert_array_equal(tiny("two", seed=1, **SMALL).tokens, before)


def test_a_callback_may_decode_but_not_generate(tiny: Pipeline) -> None:
    pictures: list[Any] = []

    def look(step: int, total: int, tokens: np.ndarray) -> None:
        pictures.append(tiny.decode_tokens(tokens, 32, 32, "np"))
        with pytest.raises(Error, match="own callback"):
            tiny("two", **SMALL)

    result = tiny("two", seed=3, callback=look, output_type="np", **SMALL)
    np.testing.assert_array_equal(pictures[-1], result.images)


def test_progress(tiny: Pipeline, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[int, int]] = []
    tiny("two", progress=lambda done, total: seen.append((done, total)), output_type="latent", **SMALL)
    assert seen == [(i, 4) for i in range(1, 5)]
    tiny("two", progress=True, output_type="latent", **SMALL)
    assert capsys.readouterr().out == ""


def test_threads_share_a_pipeline(tiny: Pipeline) -> None:
    call = {**SMALL, "output_type": "np"}
    alone = [tiny("two", seed=seed, **call).images for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda seed: tiny("two", seed=seed, **call).images, range(6)))
    np.testing.assert_array_equal(alone, together)


def test_the_gil_is_free_while_it_draws(tiny: Pipeline) -> None:
    ticks = 0
    done = threading.Event()

    def work() -> None:
        tiny("two", height=64, width=64, num_inference_steps=30, output_type="latent")
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    while not done.wait(0.001):
        ticks += 1
    thread.join()
    assert ticks > 3


@pytest.mark.parametrize(
    ("tokens", "height", "message"),
    [
        (np.zeros((1, 5, 64)), 32, "tokens have shape"),
        (np.zeros((1, 4, 63)), 32, "tokens have shape"),
        (np.zeros((4, 64)), 32, "tokens have shape"),
        (np.zeros((1, 4, 64)), 33, "multiple of 16"),
        (np.zeros((1, 4, 64)), 0, "height is 0"),
    ],
)
def test_tokens_that_make_no_image(tiny: Pipeline, tokens: Any, height: int, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        tiny.decode_tokens(tokens, height, 32)


def test_the_signature_shows_the_defaults(tiny: Pipeline) -> None:
    parameters = inspect.signature(tiny).parameters
    assert next(iter(parameters)) == "prompt"
    assert parameters["num_inference_steps"].default == 28
    assert parameters["guidance_scale"].default == 7.5
    assert parameters["output_type"].default == "pil"
    assert parameters["seed"].default is None


def test_the_demos_own_defaults_hold(pipeline: Loader) -> None:
    pipe = pipeline("demo")
    stated = json.loads((Path(pipe.folder) / "generation_config.json").read_text())
    assert {name: getattr(pipe.check("a").settings, name) for name in stated} == stated
    assert pipe.check("a", guidance_scale=7.5).settings.guidance_scale == 7.5


def colours(image: Any, row: slice) -> np.ndarray:
    """Mean colour over the coloured pixels of some rows."""
    part = image[row].reshape(-1, 3)
    return np.asarray(part[part.max(axis=1) - part.min(axis=1) > 0.3].mean(axis=0))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_demo_draws_what_is_asked(pipeline: Loader, dtype: str) -> None:
    images = pipeline("demo", dtype=dtype)(
        "a red circle above a blue square", seed=[1, 2], num_images_per_prompt=2, output_type="np"
    ).images
    for image in images:
        half = len(image) // 2
        red, blue = colours(image, slice(0, half)), colours(image, slice(half, None))
        assert red[0] > red[2] + 0.3
        assert blue[2] > blue[0] + 0.3


def test_importing_is_light() -> None:
    code = (
        "import sys, nextstep_rt\n"
        "heavy = {'torch', 'numpy', 'PIL', 'tokenizers', 'typer', 'nextstep_rt._core'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'Pipeline' in dir(nextstep_rt)\n"
        "pipe = nextstep_rt.Pipeline.from_pretrained(device='cpu')\n"
        "pipe('a', num_inference_steps=1, output_type='latent')\n"
        "assert 'torch' not in sys.modules\n"
        "assert nextstep_rt.__version__.count('.') == 2\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_names_that_do_not_exist() -> None:
    import nextstep_rt

    assert set(nextstep_rt.__all__) <= set(dir(nextstep_rt))
    for name in nextstep_rt.__all__:
        assert getattr(nextstep_rt, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = nextstep_rt.nothing
