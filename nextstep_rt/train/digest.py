"""A fingerprint of the world: results are of the same data where it is the same."""

from __future__ import annotations

import hashlib
import random
from functools import cache

from . import captions, edits, world
from .prompts import make_prompts
from .reader import read


@cache
def world_digest(count: int = 16) -> str:
    """12 hex digits that follow from samples of all that the data and the scores are made of.

    Of `count` scenes of each split: their parts, pixels, captions and what the reader sees; as many edits; prompts.
    """
    rng = random.Random("digest")
    digest = hashlib.sha256()
    for held_out in (False, True):
        for _ in range(count):
            scene = world.sample_split(rng, held_out=held_out)
            pixels = world.render(scene)
            seen = [(thing.shape, thing.colour) for thing in read(pixels).objects]
            digest.update(repr(scene).encode() + pixels.tobytes() + repr(seen).encode())
            for text in (captions.caption(rng, scene), captions.terse(rng, scene), captions.canonical(scene)):
                digest.update(text.encode())
            digest.update(repr(edits.sample_edit(rng, held_out=held_out)).encode())
    digest.update(repr(make_prompts(count // 4)).encode())
    return digest.hexdigest()[:12]
