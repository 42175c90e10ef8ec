"""Which of the world's shapes an outline is: both at one area and about one centroid, the one that overlaps best."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage  # type: ignore[import-untyped]

from .world import CANVAS, COLOURS, SHAPES, Scene, Thing, render

Mask = NDArray[np.bool_]

GRID = 48  # outlines are compared on GRID x GRID points
# Least overlap with a shape's rendering. Above what the next shape reaches (a circle and a square of one area 0.84, a
# diamond and a circle 0.80, any other two 0.74), below what an autoencoder leaves of the smallest thing.
MIN_OVERLAP = {
    "circle": 0.87,
    "square": 0.87,
    "diamond": 0.85,
    "heart": 0.83,
    "triangle": 0.83,
    "cross": 0.79,
    "star": 0.77,
    "ring": 0.77,
}


@dataclass(frozen=True)
class Fit:
    """What an outline measures: its likest shape, their overlap (0..1), its area, and its centroid in pixels."""

    shape: str
    overlap: float
    area: float
    x: float
    y: float

    @property
    def is_shape(self) -> bool:
        """Whether the overlap is more than a blob's."""
        return self.overlap >= MIN_OVERLAP[self.shape]


@dataclass(frozen=True)
class Template:
    """A shape at unit area on the grid [GRID,GRID], its area at unit radius, and centre to centroid in radii."""

    points: NDArray[np.float32]
    area: float
    offset: tuple[float, float]


def fit_shape(mask: Mask, left: int = 0, top: int = 0) -> Fit:
    """The shape whose rendering overlaps a mask [h,w] best, by intersection over union; left and top place the mask."""
    points, area, (x, y) = _normalized(mask.astype(np.float32))
    overlaps = {
        shape: float(np.minimum(points, t.points).sum() / np.maximum(points, t.points).sum())
        for shape, t in templates().items()
    }
    best = max(overlaps, key=lambda shape: overlaps[shape])
    return Fit(best, overlaps[best], area, x + left, y + top)


@cache
def templates() -> dict[str, Template]:
    """Every shape, as the world draws it."""
    made = {}
    for shape in SHAPES:
        thing = Thing(shape, "blue", CANVAS / 2, CANVAS / 2, 40.0)
        size = 2 * CANVAS
        pixels = render(Scene("alone", "white", (thing,)), size)[..., 0].astype(np.float32)
        points, area, (x, y) = _normalized((255.0 - pixels) / (255.0 - COLOURS["blue"][0]))
        r = thing.r * size / CANVAS
        made[shape] = Template(points, area / r**2, ((x - size / 2) / r, (y - size / 2) / r))
    return made


def _normalized(mask: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, tuple[float, float]]:
    """The mask at unit area about its centroid [GRID,GRID], its area, and its centroid (x, y), pixel edges whole."""
    area = float(mask.sum())
    y, x = (float(v) for v in ndimage.center_of_mass(mask))
    steps = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID * 2.0 - 1.0
    rows, columns = np.meshgrid(y + steps * math.sqrt(area), x + steps * math.sqrt(area), indexing="ij")
    points = ndimage.map_coordinates(mask, [rows, columns], order=1, mode="constant", output=np.float32)
    return points, area, (x + 0.5, y + 0.5)
