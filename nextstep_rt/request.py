"""A call to the pipeline, checked: whatever a caller passes becomes a `Request` or an `InvalidRequest`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .checkpoint import Geometry
from .config import GenerationConfig, choice, show, text, whole
from .errors import InvalidRequest
from .images import fit_size, held_ratio, load_image, resize_to
from .tokenizer import IMAGE_MARKER, split_marker

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

OUTPUT_TYPES = ("pil", "np", "latent")
MAX_IMAGES = 1024
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Request:
    """One checked request. Image i is prompt i // images_per_prompt with seeds[i] (or noise[:, :, i])."""

    prompts: tuple[str, ...]
    settings: GenerationConfig
    height: int
    width: int
    factor: int
    images_per_prompt: int
    seeds: tuple[int, ...]
    noise: NDArray[np.float32] | None = None
    image: Image.Image | None = None
    output_type: str = "pil"
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens."""
        return self.height // self.factor, self.width // self.factor

    @property
    def num_tokens(self) -> int:
        """Image tokens of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def num_images(self) -> int:
        """Images of the whole request."""
        return len(self.prompts) * self.images_per_prompt

    @property
    def branches(self) -> int:
        """Rows an image takes: 1 without guidance, 2 with, 3 for an edit with image guidance."""
        if self.image is not None and self.settings.image_guidance_scale != 1.0:
            return 3
        return 2 if self.settings.guidance_scale != 1.0 else 1

    @property
    def full_prompts(self) -> tuple[str, ...]:
        """The prompts with the positive prompt appended."""
        return tuple(_with_positive(prompt, self.settings) for prompt in self.prompts)

    def sampling(self) -> dict[str, Any]:
        """The arguments of `SamplingParams`."""
        left_out = ("negative_prompt", "positive_prompt", "height", "width")
        values = {name: getattr(self.settings, name) for name in GenerationConfig.names() if name not in left_out}
        return {**values, "num_tokens": self.num_tokens, "branches": self.branches}

    def to_json(self, index: int) -> dict[str, Any]:
        """What makes image `index` again, in the API's names, for the PNG's metadata."""
        values = {name: getattr(self.settings, name) for name in GenerationConfig.names()}
        made = {"prompt": self.prompts[index // self.images_per_prompt], **values}
        made.update(height=self.height, width=self.width, seed=self.seeds[index])
        if self.image is not None:
            made["image"] = True
        if self.noise is not None:
            made.update(seed=None, noise="given by the caller")
        return made


def draw_seed() -> int:
    """A seed from the operating system, small enough (53 bits) for every JSON reader."""
    return int.from_bytes(os.urandom(8), "little") >> 11


def build_request(
    prompt: object, options: Mapping[str, Any], geometry: Geometry, defaults: GenerationConfig
) -> Request:
    """Check a call; options holds only what the caller gave. Raises `InvalidRequest`."""
    prompts = _prompts(prompt)
    given = {name: options[name] for name in GenerationConfig.names() if name in options}
    settings = defaults.merged(given)
    per_prompt = whole("num_images_per_prompt", options.get("num_images_per_prompt", 1), 1, MAX_IMAGES)
    count = len(prompts) * per_prompt
    if count > MAX_IMAGES:
        raise InvalidRequest(
            f"{len(prompts)} prompts x {per_prompt} images are {count}: at most {MAX_IMAGES} in one request"
        )
    output_type = choice("output_type", options.get("output_type", "pil"), OUTPUT_TYPES)
    if options.get("seed") is not None and options.get("noise") is not None:
        raise InvalidRequest("seed and noise were both given: noise takes the place of a seed's, so give one of them")
    source = options.get("image")
    settings = _check_edit(prompts, source, settings, explicit="image_guidance_scale" in given)
    image = None if source is None else load_image(source)
    height, width = _size(settings, geometry, image)
    notes: list[str] = []
    if image is not None:
        image, note = resize_to(image, height, width)
        notes += [note] if note else []
    request = Request(
        prompts=prompts,
        settings=settings,
        height=height,
        width=width,
        factor=geometry.factor,
        images_per_prompt=per_prompt,
        seeds=_seeds(options.get("seed"), count),
        image=image,
        output_type=output_type,
        notes=tuple(notes),
    )
    return replace(request, noise=_noise(options.get("noise"), request, geometry.token_dim))


def _with_positive(prompt: str, settings: GenerationConfig) -> str:
    return f"{prompt} {settings.positive_prompt}" if settings.positive_prompt else prompt


def _prompts(prompt: object) -> tuple[str, ...]:
    if isinstance(prompt, str):
        return (text("prompt", prompt),)
    if not isinstance(prompt, (list, tuple)):
        raise InvalidRequest(f"prompt must be a string or a list of strings, not {show(prompt)}")
    if not prompt:
        raise InvalidRequest("prompt is an empty list: give at least one string (an empty string is a legal prompt)")
    if len(prompt) > MAX_IMAGES:
        raise InvalidRequest(f"prompt is a list of {len(prompt)}: at most {MAX_IMAGES} images in one request")
    return tuple(text(f"prompt[{i}]", item) for i, item in enumerate(prompt))


def _check_edit(
    prompts: Sequence[str], source: object, settings: GenerationConfig, *, explicit: bool
) -> GenerationConfig:
    """Image, marker and image guidance come together or not at all; the settings that then hold."""
    if source is not None:
        for prompt in prompts:
            split_marker(_with_positive(prompt, settings))
        return settings
    for prompt in prompts:
        if IMAGE_MARKER in _with_positive(prompt, settings):
            raise InvalidRequest(
                f"the prompt {show(prompt)} has the marker {IMAGE_MARKER} but no image was given: pass image=, or "
                "leave the marker out"
            )
    if settings.image_guidance_scale == 1.0:
        return settings
    if explicit:
        raise InvalidRequest(
            f"image_guidance_scale is {settings.image_guidance_scale:g} but no image was given: pass image= and a "
            f"prompt with {IMAGE_MARKER}, or leave it at 1"
        )
    # A checkpoint may state it for its edits; it means nothing without an image.
    return replace(settings, image_guidance_scale=1.0)


def _size(settings: GenerationConfig, geometry: Geometry, image: Image.Image | None) -> tuple[int, int]:
    """The request's height and width: as given, else the image's aspect ratio at the native area, else native."""
    height, width = settings.height, settings.width
    factor = geometry.factor
    for name, side in (("height", height), ("width", width)):
        if side is not None and side % factor:
            low, high = side // factor * factor, (side // factor + 1) * factor
            nearest = f"{low} and {high}" if low else str(high)
            raise InvalidRequest(f"{name} {side} is not a multiple of {factor}: the nearest that are: {nearest}")
    if image is None:
        height, width = height or geometry.native_height, width or geometry.native_width
    elif height is None and width is None:
        height, width = fit_size(image.size, geometry.native_tokens, factor)
    else:
        height = height or _other_side(width or factor, image.height / image.width, factor)
        width = width or _other_side(height, image.width / image.height, factor)
    tokens = (height // factor) * (width // factor)
    if tokens > geometry.max_positions:
        raise InvalidRequest(
            f"{height}x{width} (height x width) makes {tokens} image tokens, but this model has "
            f"{geometry.max_positions} positions: ask for less, e.g. its native "
            f"{geometry.native_height}x{geometry.native_width}"
        )
    return height, width


def _other_side(side: int, ratio: float, factor: int) -> int:
    """The side that goes with a given one at a picture's ratio."""
    return max(round(side * held_ratio(ratio) / factor), 1) * factor


def _seeds(seed: object, count: int) -> tuple[int, ...]:
    """One seed an image: seed + i, or the given ones, or drawn."""
    if seed is None:
        seed = draw_seed()
    if isinstance(seed, (list, tuple, range)) or (isinstance(seed, np.ndarray) and seed.ndim == 1):
        if len(seed) != count:
            raise InvalidRequest(f"seed is a list of {len(seed)} for {count} images: give one each, or a single number")
        return tuple(whole(f"seed[{i}]", item, 0, MAX_SEED) for i, item in enumerate(seed))
    first = whole("seed", seed, 0, MAX_SEED)
    return tuple((first + i) % (MAX_SEED + 1) for i in range(count))


def _noise(noise: object, request: Request, token_dim: int) -> NDArray[np.float32] | None:
    """float32 [num_tokens, 1 + steps, images, token_dim], contiguous."""
    if noise is None:
        return None
    expected = (request.num_tokens, 1 + request.settings.num_inference_steps, request.num_images, token_dim)
    try:
        array = np.asarray(noise)
    except Exception as error:
        raise InvalidRequest(f"noise cannot be read as an array: {error}") from None
    if array.dtype != np.float32:
        raise InvalidRequest(f"noise has dtype {array.dtype}: expected float32 of shape {expected}")
    if array.shape != expected:
        raise InvalidRequest(
            f"noise has shape {array.shape}: this request needs {expected} (image tokens, 1 + steps, images, token_dim)"
        )
    if not np.isfinite(array).all():
        raise InvalidRequest("noise holds NaN or inf: every number must be finite")
    return np.ascontiguousarray(array)
