"""Pictures in and out: any image a user has to RGB, and model pixels to PIL, numpy or a PNG that holds its request."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, PngImagePlugin

from .config import show
from .errors import InvalidRequest
from .tokenizer import clean_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_INPUT_PIXELS = 80_000_000
METADATA_KEY = "nextstep_rt"


def _check_size(width: int, height: int, what: str) -> None:
    if width < 1 or height < 1:
        raise InvalidRequest(f"{what} is {width}x{height}: it has no pixels")
    if width * height > MAX_INPUT_PIXELS:
        raise InvalidRequest(
            f"{what} is {width}x{height} ({width * height / 1e6:.0f} megapixels): at most "
            f"{MAX_INPUT_PIXELS / 1e6:.0f} are taken; shrink it first"
        )


def _from_array(array: NDArray[Any]) -> Image.Image:
    """uint8 [H,W], [H,W,1|3|4], or float in 0..1 of those shapes."""
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise InvalidRequest(f"the image array has shape {array.shape}: expected [H,W], [H,W,3] or [H,W,4]")
    _check_size(array.shape[1], array.shape[0], "the image array")
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InvalidRequest("the image array holds NaN or inf: give finite numbers from 0 to 1")
        if array.min() < 0.0 or array.max() > 1.0:
            low, high = float(array.min()), float(array.max())
            raise InvalidRequest(f"the image array ranges from {low:g} to {high:g}: floats must be from 0 to 1")
        array = np.rint(array * 255.0).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InvalidRequest(f"the image array has dtype {array.dtype}: expected uint8, or floats from 0 to 1")
    return Image.fromarray(np.ascontiguousarray(array))


def _grey_from_wide(image: Image.Image) -> Image.Image:
    """16-bit, 32-bit and float grey to 8 bits. 16-bit files say their range; the others hold 0..1, 0..255 or 0..65535,
    give or take the overshoot of a resampling.
    """
    values = np.asarray(image).astype(np.float64)
    values = np.nan_to_num(values, nan=0.0, posinf=65535.0, neginf=0.0)
    top, most = 65535.0, values.max()
    if image.mode == "F" and most <= 1.5:
        top = 1.0
    elif image.mode in ("F", "I") and most <= 1.5 * 255.0:
        top = 255.0
    return Image.fromarray(np.rint(np.clip(values / top, 0.0, 1.0) * 255.0).astype(np.uint8))


def _to_rgb(image: Image.Image) -> Image.Image:
    """Upright RGB: EXIF rotation applied, transparency laid over white, every other mode converted."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _grey_from_wide(image)
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return image if image.mode == "RGB" else image.convert("RGB")


def load_image(source: object) -> Image.Image:
    """An upright RGB picture from a path, a PIL image, or an array (uint8, or float from 0 to 1).

    Only the header is read before the size is checked, so a decompression bomb is refused without being unpacked.
    Raises `InvalidRequest` for anything that cannot be read as a picture.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if isinstance(source, (str, os.PathLike)):
        what = f"the image {show(os.fspath(source))}"
        if not os.path.exists(source):
            raise InvalidRequest(f"{what} does not exist")
        if not os.path.isfile(source):
            raise InvalidRequest(f"{what} is not a file")
    elif isinstance(source, Image.Image):
        what = "the image"
    else:
        raise InvalidRequest(f"image must be a path, a PIL image or an array, not {show(source)} (one image per call)")
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            # PIL warns of sizes (the limit below is tighter, and an error) and of damaged tags that do no harm.
            warnings.simplefilter("ignore")
            image = source if isinstance(source, Image.Image) else stack.enter_context(Image.open(source))
            _check_size(image.width, image.height, what)
            return _to_rgb(image)
    except (InvalidRequest, MemoryError):
        raise
    except Image.DecompressionBombError:
        limit = f"{MAX_INPUT_PIXELS / 1e6:.0f} megapixels"
        raise InvalidRequest(f"{what} is far too large: at most {limit} are taken; shrink it first") from None
    except Exception as error:
        # PIL's decoders raise nearly anything on broken files: OSError, SyntaxError, struct.error, ValueError...
        raise InvalidRequest(f"{what} cannot be read as a picture: {error}") from error


def held_ratio(ratio: float) -> float:
    """A picture's ratio of sides, held to 8:1: past that a picture is a line."""
    return min(max(ratio, 1 / 8), 8.0)


def fit_size(size: tuple[int, int], tokens: int, factor: int) -> tuple[int, int]:
    """(height, width) near a picture's aspect ratio with about `tokens` image tokens, in multiples of `factor`.

    size is PIL's (width, height).
    """
    width, height = size
    ratio = held_ratio(height / width)
    h = min(max(round(math.sqrt(tokens * ratio)), 1), tokens)
    w = min(max(round(math.sqrt(tokens / ratio)), 1), tokens)
    return h * factor, w * factor


def resize_to(image: Image.Image, height: int, width: int) -> tuple[Image.Image, str | None]:
    """The picture at the request's size, and a note where that changed it."""
    if image.size == (width, height):
        return image, None
    note = f"image resized from {image.width}x{image.height} to {width}x{height}"
    return image.resize((width, height), Image.Resampling.LANCZOS), note


def to_model(image: Image.Image) -> NDArray[np.float32]:
    """RGB picture -> float32 [3,H,W] in -1..1."""
    pixels = np.asarray(image, dtype=np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(pixels / np.float32(127.5) - np.float32(1.0))


def to_unit(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Model pixels float32 [3,H,W] -> float32 [H,W,3] in 0..1, clamped."""
    unit = np.clip(pixels, -1.0, 1.0).transpose(1, 2, 0) * np.float32(0.5) + np.float32(0.5)
    return np.ascontiguousarray(unit, dtype=np.float32)


def to_pil(pixels: NDArray[np.float32]) -> Image.Image:
    """Model pixels float32 [3,H,W] -> RGB picture."""
    return Image.fromarray(np.rint(to_unit(pixels) * 255.0).astype(np.uint8))


def write_png(image: Image.Image, path: str | os.PathLike[str], request: Mapping[str, Any] | None = None) -> None:
    """Write a PNG in one step (a reader sees the old file or the new one, never half), with the request inside.

    request goes as JSON under the text key "nextstep_rt", and its prompt also under "prompt". Raises `InvalidRequest`
    when the path cannot be written.
    """
    info = PngImagePlugin.PngInfo()
    if request is not None:
        info.add_text(METADATA_KEY, json.dumps(request))
        prompt = clean_text(str(request.get("prompt", ""))).replace("\0", "\ufffd")
        info.add_itxt("prompt", prompt)
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    partial = os.path.join(folder, f".nextstep-rt.{os.getpid()}.{threading.get_ident():x}.part")
    try:
        try:
            image.save(partial, format="PNG", pnginfo=info)
            os.replace(partial, target)
        finally:
            with contextlib.suppress(OSError):
                os.remove(partial)
    except OSError as error:
        raise InvalidRequest(f"cannot write {os.fspath(path)!s}: {error.strerror or error}") from None


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The request a PNG written by this package holds. Raises `InvalidRequest` when there is none."""
    try:
        with Image.open(path) as image:
            stored = getattr(image, "text", {}).get(METADATA_KEY)
        request = json.loads(stored) if stored is not None else None
    except Exception as error:
        raise InvalidRequest(f"cannot read a request from {os.fspath(path)!s}: {error}") from None
    if not isinstance(request, dict):
        raise InvalidRequest(
            f"{os.fspath(path)!s} holds no request: it was not written by nextstep_rt, or was re-saved"
        )
    return request
