"""The procedural world: scenes of one to four flat shapes, how they are laid out, and their pixels.

A scene states all that matters in its picture. What is left to chance is small: the exact place (a few pixels of
jitter) and the exact size within its class. What a caption may leave unsaid has one meaning only, the defaults:

* no colour named: DEFAULT_COLOUR; no background named: DEFAULT_BACKGROUND; no size named: medium, which is what the
  layout has room for: a thing alone is larger than one of several, and what lies inside another fits into it;
* one shape stands in the centre; of two, the first stands on the left; three stand as a pyramid (top, bottom left,
  bottom right); four as a square, in reading order.

Units are pixels of the 128 x 128 canvas, y downwards.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

CANVAS = 128
SUPERSAMPLING = 4  # for the anti-aliasing: a tent filter, two pixels wide

Rgb = tuple[int, int, int]
COLOURS: dict[str, Rgb] = {
    "red": (225, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 210, 40),
    "orange": (245, 130, 30),
    "purple": (130, 50, 170),
    "pink": (245, 130, 190),
    "cyan": (50, 200, 215),
}
BACKGROUNDS: dict[str, Rgb] = {
    "white": (255, 255, 255),
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "beige": (240, 228, 200),
    "navy": (22, 30, 78),
    "mint": (196, 236, 208),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "cross", "heart", "diamond")
SIZES = ("small", "medium", "large")
LAYOUTS = ("alone", "place", "group", "row", "column", "inside")
INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above", "inside": "around", "around": "inside"}
# The shapes with room for another inside: their radius then, and the other's.
CONTAINERS = {"circle": (48.0, 22.0), "square": (48.0, 22.0), "ring": (52.0, 17.0)}
CONTAINERS |= {"diamond": (52.0, 19.0), "heart": (52.0, 17.0)}
PLACES = {
    f"{row} {column}".strip(): (x, y)
    for row, y in (("top", 30.0), ("", 64.0), ("bottom", 98.0))
    for column, x in (("left", 30.0), ("", 64.0), ("right", 98.0))
    if row or column
}
DEFAULT_COLOUR, DEFAULT_BACKGROUND = "red", "white"

# One in so many (colour, shape, relation) triples never occurs in training.
HELD_OUT_ONE_IN = 8

Spread = Callable[[float], float]


@dataclass(frozen=True)
class Thing:
    """One shape: what it is, the role it plays in its scene, its centre and its radius in pixels."""

    shape: str
    colour: str
    x: float
    y: float
    r: float
    role: str = "alone"
    size: str = "medium"

    @property
    def held_out(self) -> bool:
        """Whether training must not show this colour and shape in this role."""
        return is_held_out(self.colour, self.shape, self.role)


@dataclass(frozen=True)
class Scene:
    """A background and what is drawn on it, in the order of drawing.

    layout: one of LAYOUTS; row is left and right, column above and below, inside has the container first.
    """

    layout: str
    background: str
    things: tuple[Thing, ...]

    @property
    def held_out(self) -> bool:
        """Whether any of its things is held out of training."""
        return any(thing.held_out for thing in self.things)


def is_held_out(colour: str, shape: str, role: str) -> bool:
    """Whether the triple belongs to the test split: a fixed hash of its words decides."""
    return zlib.crc32(f"{colour} {shape} {role}".encode()) % HELD_OUT_ONE_IN == 0


# ---------------------------------------------------------------------------------------------------------- pixels


def _regular(points: int, inner: float | None = None, turn: float = -math.pi / 2) -> list[tuple[float, float]]:
    radii = [1.0] if inner is None else [1.0, inner]
    count = points * len(radii)
    return [
        (
            radii[i % len(radii)] * math.cos(turn + 2 * math.pi * i / count),
            radii[i % len(radii)] * math.sin(turn + 2 * math.pi * i / count),
        )
        for i in range(count)
    ]


def _heart() -> list[tuple[float, float]]:
    turns = [2 * math.pi * i / 64 for i in range(64)]
    return [
        (
            16 * math.sin(t) ** 3 / 16,
            -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16 - 0.1,
        )
        for t in turns
    ]


# Outlines in units of the radius, scaled so that all shapes weigh alike to the eye.
_POLYGONS = {
    "square": [(-0.86, -0.86), (0.86, -0.86), (0.86, 0.86), (-0.86, 0.86)],
    "triangle": [(1.16 * x, 1.16 * y + 0.2) for x, y in _regular(3)],
    "star": [(1.14 * x, 1.14 * y + 0.06) for x, y in _regular(5, inner=0.42)],
    "cross": [
        *[(-0.33, -1.0), (0.33, -1.0), (0.33, -0.33), (1.0, -0.33), (1.0, 0.33), (0.33, 0.33)],
        *[(0.33, 1.0), (-0.33, 1.0), (-0.33, 0.33), (-1.0, 0.33), (-1.0, -0.33), (-0.33, -0.33)],
    ],
    "heart": _heart(),
    "diamond": [(0.0, -1.12), (0.84, 0.0), (0.0, 1.12), (-0.84, 0.0)],
}
RING_HOLE = 0.56  # of the radius


def _stamp(canvas: Image.Image, thing: Thing, scale: float) -> None:
    """Draws one thing through a mask no larger than it needs; a ring's hole shows what lies below."""
    reach = 1.3 * thing.r
    left, top = (math.floor((v - reach) * scale) for v in (thing.x, thing.y))
    mask = Image.new("L", (math.ceil(2 * reach * scale) + 1,) * 2, 0)
    draw = ImageDraw.Draw(mask)
    cx, cy, r = thing.x * scale - left - 0.5, thing.y * scale - top - 0.5, thing.r * scale
    if thing.shape in _POLYGONS:
        draw.polygon([(cx + r * x, cy + r * y) for x, y in _POLYGONS[thing.shape]], fill=255)
    else:
        draw.ellipse([cx - r, cy - r, cx + r, cy + r], fill=255)
    if thing.shape == "ring":
        hole = RING_HOLE * r
        draw.ellipse([cx - hole, cy - hole, cx + hole, cy + hole], fill=0)
    canvas.paste(COLOURS[thing.colour], (left, top), mask)


def render(scene: Scene, size: int = CANVAS) -> NDArray[np.uint8]:
    """Draws a scene as uint8 [size, size, 3]."""
    side = size * SUPERSAMPLING
    canvas = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    for thing in scene.things:
        _stamp(canvas, thing, side / CANVAS)
    return np.asarray(canvas.resize((size, size), Image.Resampling.BILINEAR))


# ---------------------------------------------------------------------------------------------------------- layouts

_ALONE = {"small": 15.0, "medium": 27.0, "large": 42.0}
_PAIR = {"small": 13.0, "medium": 21.0, "large": 28.0}
_GROUPS = {
    1: [(64.0, 64.0)],
    2: [(33.0, 64.0), (95.0, 64.0)],
    3: [(64.0, 34.0), (33.0, 94.0), (95.0, 94.0)],
    4: [(33.0, 33.0), (95.0, 33.0), (33.0, 95.0), (95.0, 95.0)],
}
JITTER = 3.0


def _jitter(rng: random.Random, thing: Thing, by: float = JITTER, scale: float = 0.06) -> Thing:
    return replace(
        thing,
        x=thing.x + rng.uniform(-by, by),
        y=thing.y + rng.uniform(-by, by),
        r=thing.r * rng.uniform(1 - scale, 1 + scale),
    )


def alone(rng: random.Random, background: str, shape: str, colour: str, size: str = "medium") -> Scene:
    """One thing in the centre."""
    role = f"alone {size} on {background}"
    return Scene("alone", background, (_jitter(rng, Thing(shape, colour, 64, 64, _ALONE[size], role, size)),))


def placed(rng: random.Random, background: str, shape: str, colour: str, place: str) -> Scene:
    """One thing at a named place of the canvas, one of PLACES."""
    x, y = PLACES[place]
    return Scene("place", background, (_jitter(rng, Thing(shape, colour, x, y, 20.0, f"at {place}")),))


Kind = tuple[str, str, str]  # shape, colour, size


def pair(rng: random.Random, background: str, relation: str, first: Kind, second: Kind) -> Scene:
    """The first thing left of, right of, above, below or inside the second."""
    if relation in ("right", "below"):
        first, second, relation = second, first, INVERSE[relation]
    (shape_a, colour_a, size_a), (shape_b, colour_b, size_b) = first, second
    if relation == "inside":
        reach, room = CONTAINERS[shape_b]
        a = Thing(shape_a, colour_a, 64, 64, room, "inside")
        b = _jitter(rng, Thing(shape_b, colour_b, 64, 64, reach, "around"))
        return Scene("inside", background, (b, _jitter(rng, replace(a, x=b.x, y=b.y), by=1.0)))
    near, far = (64.0, 32.0), (64.0, 96.0)
    if relation == "left":
        near, far = near[::-1], far[::-1]
    a = Thing(shape_a, colour_a, *near, _PAIR[size_a], relation, size_a)
    b = Thing(shape_b, colour_b, *far, _PAIR[size_b], INVERSE[relation], size_b)
    return Scene("row" if relation == "left" else "column", background, (_jitter(rng, a), _jitter(rng, b)))


def group(rng: random.Random, background: str, parts: list[tuple[int, str, str]]) -> Scene:
    """Two to four things given as (count, shape, colour), in reading order."""
    total = sum(count for count, _, _ in parts)
    role = f"one of {total}" if len(parts) == 1 else f"among {total}"
    kinds = [(shape, colour) for count, shape, colour in parts for _ in range(count)]
    things = tuple(
        _jitter(rng, Thing(shape, colour, x, y, 21.0 if total < 3 else 20.0, role))
        for (shape, colour), (x, y) in zip(kinds, _GROUPS[total], strict=True)
    )
    return Scene("group", background, things)


# ---------------------------------------------------------------------------------------------------------- samples


def _background(rng: random.Random) -> str:
    return DEFAULT_BACKGROUND if rng.random() < 0.4 else rng.choice(list(BACKGROUNDS))


def _kinds(rng: random.Random, count: int) -> list[Kind]:
    """Distinct shapes; now and then one colour for all, and now and then the default one."""
    shapes = rng.sample(SHAPES, count)
    colours = [rng.choice(list(COLOURS)) for _ in shapes]
    if (chance := rng.random()) < 0.2:
        colours = [DEFAULT_COLOUR if chance < 0.12 else colours[0]] * count
    return [(shape, colour, "medium") for shape, colour in zip(shapes, colours, strict=True)]


def _sized(rng: random.Random, kind: Kind) -> Kind:
    return (*kind[:2], rng.choice(SIZES) if rng.random() < 0.3 else "medium")


# Pairs are what most of the language is about, and the hardest to draw.
LAYOUT_WEIGHTS = {"alone": 14, "place": 5, "row": 26, "column": 22, "inside": 13, "count": 14, "list": 6}


def sample_scene(rng: random.Random, layout: str | None = None) -> Scene:
    """A random scene of either split; `layout` is a key of LAYOUT_WEIGHTS."""
    layout = layout or rng.choices(list(LAYOUT_WEIGHTS), list(LAYOUT_WEIGHTS.values()))[0]
    background = _background(rng)
    if layout == "alone":
        shape, colour, _ = _kinds(rng, 1)[0]
        return alone(rng, background, shape, colour, rng.choices(SIZES, [1, 2, 1])[0])
    if layout == "place":
        return placed(rng, background, *_kinds(rng, 1)[0][:2], rng.choice(list(PLACES)))
    if layout == "count":
        shape, colour, _ = _kinds(rng, 1)[0]
        return group(rng, background, [(rng.choice([2, 3, 4]), shape, colour)])
    if layout == "list":
        counts = rng.choice([(1, 1, 1), (1, 1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1)])
        kinds = _kinds(rng, len(counts))
        return group(rng, background, [(n, *kind[:2]) for n, kind in zip(counts, kinds, strict=True)])
    first, second = _kinds(rng, 2)
    if layout == "inside":
        while second[0] not in CONTAINERS or first[1] == second[1]:
            first, second = _kinds(rng, 2)
        return pair(rng, background, "inside", first, second)
    relation = "left" if layout == "row" else "above"
    return pair(rng, background, relation, _sized(rng, first), _sized(rng, second))


def sample_split(rng: random.Random, *, held_out: bool, layout: str | None = None) -> Scene:
    """A random scene of the test split (held_out) or of the training split."""
    while (scene := sample_scene(rng, layout)).held_out != held_out:
        pass
    return scene
