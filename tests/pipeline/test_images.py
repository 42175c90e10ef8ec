"""Pictures in, whatever a user has; PNGs out, whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import threading
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from nextstep_rt import InvalidRequest
from nextstep_rt.images import fit_size, load_image, read_metadata, resize_to, to_model, to_pil, to_unit, write_png

RED = (200, 30, 40)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header states any size over a few bytes of data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


def close_to(image: Image.Image, colour: tuple[int, int, int], tolerance: int = 3) -> bool:
    return bool(np.abs(np.asarray(image).astype(int) - np.array(colour)).max() <= tolerance)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK", "P", "YCbCr", "HSV", "LAB"])
def test_colour_modes(mode: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 6), RED)
    if mode == "LAB":
        from PIL import ImageCms

        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        converted = ImageCms.applyTransform(image, to_lab)
    else:
        converted = image.convert(mode, palette=Image.Palette.ADAPTIVE)
    loaded = load_image(converted)
    assert loaded.mode == "RGB"
    assert loaded.size == (8, 6)
    if mode != "LAB":
        assert close_to(loaded, RED)


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [("L", 100, 100), ("1", 255, 255), ("I;16", 25700, 100), ("I", 25700, 100), ("F", 0.5, 128), ("F", 100.0, 100)],
)
def test_grey_modes(mode: str, value: Any, grey: int) -> None:
    if mode == "F":
        image = Image.fromarray(np.full((5, 4), value, np.float32))
        if value > 1:
            image.putpixel((0, 0), 255.0)
    else:
        image = Image.new(mode, (4, 5), value)
    loaded = load_image(image)
    assert loaded.mode == "RGB"
    assert loaded.getpixel((3, 3)) == (grey, grey, grey)


def test_a_sixteen_bit_file(tmp_path: Path) -> None:
    path = tmp_path / "deep.png"
    Image.fromarray(np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)).save(path)
    values = np.asarray(load_image(path))
    assert values[0, 0].tolist() == [0, 0, 0]
    assert values[-1, -1].tolist() == [255, 255, 255]
    assert 120 < values[4, 0, 0] < 135


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA", "RGBa"])
def test_transparency_lies_over_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    if mode == "P":
        image = Image.new("P", (4, 4), 0)
        image.putpalette([10, 20, 30] * 256)
        image.info["transparency"] = 0
    elif mode == "PA":
        image = Image.new("PA", (4, 4))
    else:
        image = image.convert(mode)
    assert close_to(load_image(image), (255, 255, 255), 0)
    half = Image.new("RGBA", (2, 2), (0, 0, 0, 128))
    assert close_to(load_image(half), (127, 127, 127), 1)


@pytest.mark.parametrize(("mode", "info"), [("RGB", (0, 0, 0)), ("L", 0), ("1", 0)])
def test_a_transparent_colour(mode: str, info: Any, tmp_path: Path) -> None:
    path = tmp_path / "key.png"
    Image.new(mode, (4, 4), 0).save(path, transparency=info)
    assert close_to(load_image(path), (255, 255, 255), 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(orientation: int, tmp_path: Path) -> None:
    image = Image.new("RGB", (8, 4), "white")
    image.paste(RED, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    image.save(path, exif=exif)
    loaded = load_image(path)
    assert loaded.size == ((8, 4) if orientation <= 4 else (4, 8))
    at = {1: (0, 0), 2: (7, 0), 3: (7, 3), 4: (0, 3), 5: (0, 0), 6: (3, 0), 7: (3, 7), 8: (0, 7)}[orientation]
    assert loaded.getpixel(at) == RED


def test_broken_exif_does_no_harm() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), RED).save(stream, "JPEG", exif=b"Exif\0\0" + os.urandom(40))
    image = Image.open(io.BytesIO(stream.getvalue()))
    assert load_image(image).size == (4, 4)


@pytest.mark.parametrize("size", [(20_000, 20_000), (9_000, 9_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_bombs_are_refused_from_their_header(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_claiming(*size))
    with pytest.raises(InvalidRequest, match="shrink it first"):
        load_image(path)


def test_a_picture_object_too_large() -> None:
    with pytest.raises(InvalidRequest, match=r"20000x20000 .*400 megapixels"):
        load_image(np.broadcast_to(np.zeros((), np.uint8), (20_000, 20_000, 3)))


def test_one_pixel_becomes_any_size() -> None:
    image, note = resize_to(load_image(Image.new("RGB", (1, 1), RED)), 32, 48)
    assert image.size == (48, 32)
    assert close_to(image, RED, 0)
    assert note == "image resized from 1x1 to 48x32"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", png_claiming(100, 100), b"GIF89a" + bytes(20)]
)
def test_broken_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "broken.png"
    path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=r"broken\.png"):
        load_image(path)


def whole_file(form: str) -> bytes:
    stream = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(stream, form)
    return stream.getvalue()


FILES = {form: whole_file(form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP")}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.data())
def test_damaged_files_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    content = bytearray(FILES[form])
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, min(len(content), 120) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(InvalidRequest):
        assert load_image(path).mode == "RGB"


@pytest.mark.parametrize(
    "array",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 1), np.uint8), np.zeros((4, 5, 3)), np.zeros((4, 5, 4), np.float32)],
)
def test_arrays(array: Any) -> None:
    assert load_image(array).size == (5, 4)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(4, np.uint8), "shape"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.full((4, 4), 2.0), "from 2 to 2"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.array([["a"]]), "dtype"),
    ],
)
def test_wrong_arrays(array: Any, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        load_image(array)


@pytest.mark.parametrize("source", [None, 3, b"\x89PNG", [Image.new("RGB", (2, 2))], "", "a\0b", "x" * 5000])
def test_no_pictures(source: Any) -> None:
    with pytest.raises(InvalidRequest):
        load_image(source)


def test_fit_size_keeps_area_and_ratio() -> None:
    assert fit_size((256, 256), 256, 16) == (256, 256)
    assert fit_size((1024, 256), 256, 16) == (128, 512)
    for size in ((1, 100_000), (100_000, 1), (7, 5), (300, 200)):
        h, w = fit_size(size, 16, 16)
        assert h % 16 == w % 16 == 0
        assert 0 < h * w // 256 <= 20


def test_pixels_round_trip() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8))
    pixels = to_model(image)
    assert pixels.shape == (3, 5, 7)
    assert pixels.dtype == np.float32
    assert pixels.min() >= -1
    assert pixels.max() <= 1
    np.testing.assert_array_equal(np.asarray(to_pil(pixels)), np.asarray(image))
    assert to_unit(pixels * 3).max() == 1.0


def test_metadata_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    request = {"prompt": "näive 🐼 \0 \ud800 </x>", "seed": 2**53 - 1, "guidance_scale": 7.5, "height": None}
    write_png(Image.new("RGB", (2, 2)), path, request)
    assert read_metadata(path) == request
    with Image.open(path) as stored:
        assert stored.text["prompt"].startswith("näive 🐼")  # type: ignore[attr-defined]
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_metadata_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (2, 2)).save(path)
    with pytest.raises(InvalidRequest, match="holds no request"):
        read_metadata(path)
    for other in (tmp_path / "none.png", Path(__file__)):
        with pytest.raises(InvalidRequest, match="cannot read"):
            read_metadata(other)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    images = [Image.effect_noise((128, 128), 50), Image.new("L", (128, 128))]
    write_png(images[0], path)
    done = threading.Event()

    def rewrite() -> None:
        for i in range(60):
            write_png(images[i % 2], path)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        with Image.open(path) as image:
            image.load()
    writer.join()


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    write_png(Image.new("RGB", (2, 2)), tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").is_file()


def test_unwritable_paths(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "a.png", tmp_path):
        with pytest.raises(InvalidRequest, match="cannot write"):
            write_png(Image.new("RGB", (2, 2)), path)
    assert list(tmp_path.iterdir()) == []
