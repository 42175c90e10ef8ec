"""The reader of pictures: right on every layout, robust to an autoencoder's blur, and blind to what is no shape."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from nextstep_rt import InvalidRequest
from nextstep_rt.train.edits import sample_edit
from nextstep_rt.train.reader import Reading, read
from nextstep_rt.train.world import (
    BACKGROUNDS,
    CANVAS,
    COLOURS,
    CONTAINERS,
    LAYOUT_WEIGHTS,
    SHAPES,
    Scene,
    Thing,
    pair,
    render,
    sample_scene,
)

Pixels = NDArray[np.uint8]


def blurred(pixels: Pixels, sigma: float = 0.7, noise: float = 4.0) -> Pixels:
    smooth = ndimage.gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0))
    smooth += np.random.default_rng(0).normal(0.0, noise, pixels.shape)
    return np.clip(np.rint(smooth), 0, 255).astype(np.uint8)


def is_read(scene: Scene, reading: Reading) -> bool:
    """Background, every thing with shape, colour, centre and radius within 2 pixels, and nothing else."""
    left = list(reading.objects)
    for thing in scene.things:
        found = [
            seen
            for seen in left
            if (seen.shape, seen.colour) == (thing.shape, thing.colour)
            and max(abs(seen.x - thing.x), abs(seen.y - thing.y), abs(seen.r - thing.r)) < 2.0
        ]
        if not found:
            return False
        left.remove(found[0])
    return reading.background == scene.background and not left


def scenes(layout: str, count: int) -> list[Scene]:
    rng = random.Random(f"reader {layout}")
    return [sample_scene(rng, layout) for _ in range(count)]


def one(shape: str, colour: str = "blue", background: str = "white", r: float = 27.0) -> Scene:
    return Scene("alone", background, (Thing(shape, colour, 60.0, 66.0, r),))


@pytest.mark.parametrize("layout", LAYOUT_WEIGHTS)
def test_every_layout_is_read(layout: str) -> None:
    """None of 300 wrong: with 95 % confidence 99 % of a layout's scenes are read."""
    made = scenes(layout, 300)
    assert [scene for scene in made if not is_read(scene, read(render(scene)))] == []


def test_what_edits_leave_is_read() -> None:
    """A container without what was in it, what was in one, what is left of a group."""
    rng = random.Random("edits")
    made = [sample_edit(rng, held_out=True).target for _ in range(300)]
    assert {len(scene.things) for scene in made} == {1, 2, 3, 4}
    assert [scene for scene in made if not is_read(scene, read(render(scene)))] == []


@pytest.mark.parametrize("layout", LAYOUT_WEIGHTS)
def test_blur_and_noise(layout: str) -> None:
    made = scenes(layout, 40)
    wrong = [scene for scene in made if not is_read(scene, read(blurred(render(scene))))]
    assert len(wrong) <= len(made) * 0.03


@pytest.mark.parametrize("size", [64, 96, 192, 256])
def test_other_sizes_are_read_in_canvas_pixels(size: int) -> None:
    made = [scene for layout in LAYOUT_WEIGHTS for scene in scenes(layout, 4)]
    assert [scene for scene in made if not is_read(scene, read(render(scene, size)))] == []


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_colour_on_every_background(background: str) -> None:
    for colour in COLOURS:
        scene = one("star", colour, background)
        assert is_read(scene, read(blurred(render(scene)))), colour


@pytest.mark.parametrize("outer", CONTAINERS)
def test_a_thing_inside_another(outer: str) -> None:
    for inner in SHAPES:
        if inner == outer:
            continue
        scene = pair(random.Random(1), "gray", "inside", (inner, "yellow", "medium"), (outer, "purple", "medium"))
        reading = read(render(scene))
        assert is_read(scene, reading), inner
        assert [(seen.shape, seen.within) for seen in reading.objects] == [(outer, None), (inner, 0)]


def test_a_ring_shows_what_it_lies_on() -> None:
    """Its hole is neither a circle of the container's colour nor filled."""
    scene = pair(random.Random(2), "white", "inside", ("ring", "green", "medium"), ("circle", "red", "medium"))
    assert Counter(seen.shape for seen in read(render(scene)).objects) == Counter(["ring", "circle"])


def test_a_disc_in_a_ring_is_two_things() -> None:
    outer, inner = CONTAINERS["ring"]
    things = (Thing("ring", "blue", 64, 64, outer), Thing("circle", "red", 64, 64, inner))
    reading = read(render(Scene("inside", "white", things)))
    assert [(seen.shape, seen.colour, seen.within) for seen in reading.objects] == [
        ("ring", "blue", None),
        ("circle", "red", 0),
    ]


def test_things_that_touch_are_told_apart() -> None:
    things = tuple(Thing("circle", "red", x, 64, 25) for x in (40.0, 88.0))
    assert is_read(Scene("row", "white", things), read(render(Scene("row", "white", things))))


def test_box_and_area() -> None:
    (seen,) = read(render(one("square", r=30.0))).objects
    assert seen.box == pytest.approx((60 - 25.8, 66 - 25.8, 60 + 25.8, 66 + 25.8), abs=1.0)
    assert seen.area == pytest.approx((2 * 25.8) ** 2, rel=0.05)
    (ring,) = read(render(one("ring", r=30.0))).objects
    assert ring.area == pytest.approx(np.pi * 30**2 * (1 - 0.56**2), rel=0.05)


def drawn(draw: str, box: tuple[int, ...], fill: tuple[int, int, int]) -> Pixels:
    image = Image.new("RGB", (CANVAS, CANVAS), "white")
    getattr(ImageDraw.Draw(image), draw)(box, fill=fill)
    return np.asarray(image)


@pytest.mark.parametrize(
    ("draw", "box"),
    [
        ("rectangle", (20, 50, 110, 75)),
        ("ellipse", (20, 45, 110, 85)),
        ("polygon", (20, 30, 100, 40, 60, 60, 110, 110, 30, 90)),
        ("pieslice", (20, 20, 100, 100)),
    ],
)
def test_a_blob_is_no_shape(draw: str, box: tuple[int, ...]) -> None:
    image = Image.new("RGB", (CANVAS, CANVAS), "white")
    angles = (0, 200) if draw == "pieslice" else ()
    getattr(ImageDraw.Draw(image), draw)(box, *angles, fill=COLOURS["blue"])
    (seen,) = read(np.asarray(image)).objects
    assert (seen.shape, seen.colour) == (None, "blue")


def test_a_colour_of_no_palette_is_none() -> None:
    (seen,) = read(drawn("ellipse", (40, 40, 90, 90), (90, 60, 20))).objects
    assert (seen.shape, seen.colour) == ("circle", None)


def test_a_background_of_no_palette_is_none() -> None:
    pixels = render(one("heart", "red")).copy()
    pixels[(pixels == 255).all(-1)] = (120, 200, 60)
    assert read(pixels).background is None


def test_specks_and_thin_lines_are_nothing() -> None:
    image = Image.fromarray(render(one("heart", "red")))
    draw = ImageDraw.Draw(image)
    draw.line((5, 5, 5, 120), fill=COLOURS["blue"], width=2)
    draw.rectangle((110, 110, 114, 114), fill=COLOURS["green"])
    assert is_read(one("heart", "red"), read(np.asarray(image)))
    assert read(np.full((CANVAS, CANVAS, 3), 255, np.uint8)) == Reading("white", ())


def test_a_blurred_rim_is_no_third_colour() -> None:
    """Half red and half white is pink, half yellow and half blue is near gray."""
    for colour, background in (("red", "white"), ("purple", "white"), ("yellow", "navy"), ("orange", "black")):
        scene = one("circle", colour, background, r=40.0)
        reading = read(blurred(render(scene), sigma=1.5))
        assert [(seen.shape, seen.colour) for seen in reading.objects] == [("circle", colour)], colour


def test_a_stain_is_part_of_its_thing() -> None:
    """One end of the cross came out purple."""
    scene = one("cross", "blue")
    pixels = render(scene).copy()
    stained = pixels[:, :44]
    stained[(stained == COLOURS["blue"]).all(-1)] = COLOURS["purple"]
    assert is_read(scene, read(pixels))


def test_half_a_thing_of_another_colour_is_no_stain() -> None:
    pixels = render(one("circle", "blue")).copy()
    half = pixels[:, :60]
    half[(half == COLOURS["blue"]).all(-1)] = COLOURS["red"]
    assert {seen.shape for seen in read(pixels).objects} == {None}


def test_a_picture_that_is_not_square() -> None:
    wide = np.concatenate([render(one("star")), np.full((CANVAS, 64, 3), 255, np.uint8)], axis=1)
    assert is_read(one("star"), read(wide))
    twice = np.asarray(Image.fromarray(wide).resize((384, 256)))
    assert is_read(one("star"), read(twice))


def test_the_same_picture_is_read_alike() -> None:
    scene = replace(one("diamond"), background="mint")
    assert read(render(scene)) == read(render(scene))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((128, 128), np.uint8), r"\[H,W,3\], not uint8 \(128, 128\)"),
        (np.zeros((128, 128, 3), np.float32), "not float32"),
        (np.zeros((4, 128, 3), np.uint8), "4x128 cannot be read"),
        ("picture.png", "not 'picture.png'"),
    ],
)
def test_what_is_no_picture(image: object, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        read(image)  # type: ignore[arg-type]
