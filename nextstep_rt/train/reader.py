"""Reads a scene back from a picture: the background, and of every thing its shape, colour, centre and radius.

Three steps. Every pixel gets a colour of the palette, where a rim between two colours may only take one of the two.
The connected regions of a colour become outlines: a region is filled where another thing lies on it, and open where
what lies under it shows (a ring's hole). An outline is the shape whose rendering it overlaps best, and none where it
overlaps no shape well. Nothing is learnt, so that a score means the same for every model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage  # type: ignore[import-untyped]

from ..config import show
from ..errors import InvalidRequest
from .outlines import Fit, Mask, fit_shape, templates
from .world import BACKGROUNDS, CANVAS, COLOURS

GROUND = 0  # the label of the background; colour i of the palette is label i + 1
# RGB distances. Half the least distance between two colours that a place could have (beige and mint: 45; red and
# orange: 92) would be stricter than an autoencoder's shift of a flat colour; past these a colour is no longer itself.
MAX_BACKGROUND_SHIFT = 55.0
MAX_COLOUR_SHIFT = 65.0
FLAT = 48  # a 3 x 3 patch is flat when no channel ranges further: wider than noise, narrower than any edge
REACH = 5  # pixels of rim that a flat region may claim: the tip of a star has no flat patch
MIN_AREA = 40.0  # pixels: a sixth of the smallest thing there is
MIN_THICKNESS = 2.0  # pixels from the deepest point to the outside
STAIN = 1 / 3  # of a thing's pixels, at most, may be of another colour


@dataclass(frozen=True)
class Seen:
    """One thing in a picture. Lengths are in pixels of a 128 x 128 canvas, x to the right, y downwards.

    shape    None where the outline is that of no shape
    colour   None where it is far from every colour
    x, y, r  centre and radius as the world's `Thing` has them; of no shape: the centroid, and a disc's radius
    area     of the outline, a ring's without its hole
    box      left, top, right, bottom of the outline
    overlap  intersection over union with the shape's rendering, 0..1
    within   index of the smallest thing whose filled outline holds this one; None for none
    """

    shape: str | None
    colour: str | None
    x: float
    y: float
    r: float
    area: float
    box: tuple[float, float, float, float]
    overlap: float
    within: int | None = None


@dataclass(frozen=True)
class Reading:
    """What a picture shows: a background of world.BACKGROUNDS (None where it is none), and things, largest first."""

    background: str | None
    objects: tuple[Seen, ...]


@dataclass(frozen=True)
class _Region:
    """A connected region of one label: its own pixels, its outline, all within that, its rim's label, its shape."""

    label: int
    own: Mask
    outline: Mask
    filled: Mask
    around: int
    fit: Fit


def read(image: NDArray[np.uint8]) -> Reading:
    """Read a picture uint8 [H,W,3] of any size; it is brought to 128 pixels on its shorter side first.

    Raises `InvalidRequest` for an array of another shape or type.
    """
    pixels = _at_canvas_size(image)
    background, ground = _background(pixels)
    labels = _label(pixels, ground)
    regions = [part for region in _regions(labels) for part in _parts(region)]
    regions = sorted(_without_stains(regions), key=lambda region: -int(region.filled.sum()))
    seen = [_look(region, pixels) for region in regions]
    holders = [_holder(i, regions) for i in range(len(regions))]
    return Reading(background, tuple(replace(s, within=w) for s, w in zip(seen, holders, strict=True)))


# ---------------------------------------------------------------------------------------------------------- colours


def _at_canvas_size(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """float32 [h,w,3] in 0..255 with a shorter side of CANVAS."""
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        got = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else show(image)
        raise InvalidRequest(f"a picture to read must be a uint8 array [H,W,3], not {got}")
    height, width = image.shape[:2]
    short = min(height, width)
    if short < 16 or max(height, width) > 8 * short:
        raise InvalidRequest(
            f"a picture of {height}x{width} cannot be read: give 16 pixels a side or more, 8:1 at most"
        )
    if short != CANVAS:
        size = (round(width * CANVAS / short), round(height * CANVAS / short))
        image = np.asarray(Image.fromarray(np.ascontiguousarray(image)).resize(size, Image.Resampling.BICUBIC))
    return image.astype(np.float32)


def _background(pixels: NDArray[np.float32]) -> tuple[str | None, NDArray[np.float32]]:
    """The border's name, and its median colour float32 [3]."""
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    median = np.median(border, axis=0).astype(np.float32)
    return _nearest(median, BACKGROUNDS, MAX_BACKGROUND_SHIFT), median


def _nearest(colour: NDArray[np.float32], among: dict[str, tuple[int, int, int]], limit: float) -> str | None:
    distances = np.linalg.norm(np.array(list(among.values()), np.float32) - colour, axis=1)
    best = int(distances.argmin())
    return list(among)[best] if distances[best] <= limit else None


def _label(pixels: NDArray[np.float32], ground: NDArray[np.float32]) -> NDArray[np.intp]:
    """A label for every pixel [h,w]: of flat patches the nearest colour; elsewhere the nearest of those close by.

    The rim of red on white is pink; no flat patch of pink is near, so it goes to either side.
    """
    palette = np.concatenate([ground[None], np.array(list(COLOURS.values()), np.float32)])
    distances = (pixels**2).sum(-1)[..., None] - 2.0 * pixels @ palette.T + (palette**2).sum(-1)
    nearest = distances.argmin(-1)
    window = (3, 3, 1)
    flat = (ndimage.maximum_filter(pixels, window) - ndimage.minimum_filter(pixels, window)).max(-1) < FLAT
    allowed = np.full(distances.shape, np.inf, np.float32)
    present = []
    for label in np.unique(nearest[flat]):
        seeds, count = ndimage.label(flat & (nearest == label))
        if not count:
            continue
        large = np.bincount(seeds.ravel(), minlength=count + 1) >= 3
        large[0] = False
        near = ndimage.maximum_filter(large[seeds], 2 * REACH + 1)
        allowed[..., label] = np.where(near, 0.0, np.inf)
        present.append(label)
    labels: NDArray[np.intp] = (distances + allowed).argmin(-1)
    lost = ~np.isfinite(allowed).any(-1)
    if lost.any() and present:
        labels[lost] = np.array(present)[distances[lost][:, present].argmin(-1)]
    return labels


# ---------------------------------------------------------------------------------------------------------- regions

_ACROSS = np.ones((3, 3), np.bool_)


def _regions(labels: NDArray[np.intp]) -> list[_Region]:
    """The things' regions: not the background, not specks and lines, and not what shows through a hole."""
    found = []
    for label in np.unique(labels):
        if label == GROUND:
            continue
        parts, _ = ndimage.label(labels == label)
        for i, (rows, columns) in enumerate(ndimage.find_objects(parts), 1):
            # A margin of one pixel, for what lies around.
            box = (slice(max(rows.start - 1, 0), rows.stop + 1), slice(max(columns.start - 1, 0), columns.stop + 1))
            mask = parts[box] == i
            if mask.sum() >= MIN_AREA and _thickness(mask) >= MIN_THICKNESS:
                found.append(_region(mask, labels, box))
    return [region for region in found if not any(_shows_through(region, other) for other in found)]


def _thickness(mask: Mask) -> float:
    return float(ndimage.distance_transform_edt(np.pad(mask, 1)).max())


def _region(mask: Mask, labels: NDArray[np.intp], box: tuple[slice, slice]) -> _Region:
    """Fill the holes that things on top have made, and leave open those through which its surroundings show."""
    inside = labels[box]
    filled: Mask = ndimage.binary_fill_holes(mask)
    around = _most(inside[ndimage.binary_dilation(filled, _ACROSS) & ~filled])
    outline = filled.copy()
    holes, count = ndimage.label(filled & ~mask)
    for i in range(1, count + 1):
        hole = holes == i
        if _most(inside[hole & ndimage.binary_dilation(mask, _ACROSS)]) == around:
            outline &= ~hole
    return _Region(
        label=int(inside[mask][0]),
        own=_placed(mask, labels.shape, box),
        outline=_placed(outline, labels.shape, box),
        filled=_placed(filled, labels.shape, box),
        around=around,
        fit=fit_shape(outline, box[1].start, box[0].start),
    )


def _placed(part: Mask, shape: tuple[int, ...], box: tuple[slice, slice]) -> Mask:
    whole = np.zeros(shape, np.bool_)
    whole[box] = part
    return whole


def _most(labels: NDArray[np.intp]) -> int:
    return int(np.bincount(labels).argmax()) if labels.size else GROUND


def _shows_through(region: _Region, other: _Region) -> bool:
    """Whether the region is what lies under `other`, seen through its hole: it fills that hole to the rim."""
    return (
        region is not other
        and region.label == other.around
        and region.around == other.label
        and bool((region.outline & other.filled).sum() > 0.9 * region.outline.sum())
        and not bool((region.outline & other.outline).any())
    )


def _parts(region: _Region) -> list[_Region]:
    """The region, or where it is no shape but comes apart into shapes when eroded (things that touch), those."""
    if region.fit.is_shape:
        return [region]
    eroded = region.outline
    for _ in range(int(_thickness(region.outline))):
        eroded = ndimage.binary_erosion(eroded)
        cores, count = ndimage.label(eroded)
        if count > 1:
            nearest = ndimage.distance_transform_edt(cores == 0, return_distances=False, return_indices=True)
            owners = cores[tuple(nearest)]
            masks = [region.outline & (owners == i) for i in range(1, count + 1)]
            masks = [mask for mask in masks if mask.sum() >= MIN_AREA]
            fits = [fit_shape(mask) for mask in masks]
            if len(masks) > 1 and all(fit.is_shape for fit in fits):
                pairs = zip(masks, fits, strict=True)
                return [
                    replace(region, own=m & region.own, outline=m, filled=ndimage.binary_fill_holes(m), fit=f)
                    for m, f in pairs
                ]
    return [region]


def _without_stains(regions: list[_Region]) -> list[_Region]:
    """A small region that is no shape belongs to the larger one it touches where that only then is one, or a better."""
    kept = sorted(regions, key=lambda region: -int(region.own.sum()))
    for stain in kept[:0:-1]:
        if stain.fit.is_shape:
            continue
        rim = ndimage.binary_dilation(stain.own, _ACROSS)
        for i, thing in enumerate(kept):
            if not (rim & thing.own).any() or stain.own.sum() > STAIN * thing.own.sum():
                continue
            outline = thing.outline | stain.outline
            fit = fit_shape(outline)
            if fit.is_shape and fit.overlap > thing.fit.overlap:
                kept[i] = replace(thing, outline=outline, filled=thing.filled | stain.filled, fit=fit)
                kept = [region for region in kept if region is not stain]
                break
    return kept


def _holder(index: int, regions: list[_Region]) -> int | None:
    """The last, so the smallest, of the larger regions whose filled outline holds nine tenths of this one."""
    mine = regions[index].filled
    holds = [j for j in range(index) if (mine & regions[j].filled).sum() > 0.9 * mine.sum()]
    return holds[-1] if holds else None


def _look(region: _Region, pixels: NDArray[np.float32]) -> Seen:
    """Shape, colour and place of a region."""
    fit, x, y = region.fit, region.fit.x, region.fit.y
    rows, columns = np.nonzero(region.outline.any(1))[0], np.nonzero(region.outline.any(0))[0]
    box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    name = fit.shape if fit.is_shape else None
    r = math.sqrt(fit.area / math.pi)
    if name is not None:
        template = templates()[name]
        r = math.sqrt(fit.area / template.area)
        x, y = x - template.offset[0] * r, y - template.offset[1] * r
    return Seen(name, _colour(region, pixels), x, y, r, fit.area, box, fit.overlap)


def _colour(region: _Region, pixels: NDArray[np.float32]) -> str | None:
    """The label's colour, or None where most of the outline's pixels are far from it."""
    name, rgb = list(COLOURS.items())[region.label - 1]
    distance = np.linalg.norm(pixels[region.own] - np.array(rgb, np.float32), axis=1)
    return name if float(np.median(distance)) <= MAX_COLOUR_SHIFT else None
