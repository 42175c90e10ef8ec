"""What a generation returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class GenerationResult:
    """Images and how they came to be.

    images      list of PIL pictures; with output_type "np" float32 [N,H,W,3] in 0..1; with "latent" the scaled latents
                float32 [N,C,h,w]. After a stop: only the images that were finished, in order.
    tokens      float32 [N, tokens, token_dim]; after a stop as many as the furthest image has, and zeros in the others
    tokens_done finished tokens of each image
    seeds       one an image: an image comes out the same alone with its own seed; empty where noise was given
    timings     seconds: load_s (the pipeline's, once), vae_load_s (the first image's), tokenize_s, prefill_s,
                decode_s (without the time spent in callbacks), vae_s, total_s; and ms_per_token, the time of one
                engine step, which makes a token of every image of the batch
    notes       what was changed about the request, e.g. "image resized from 300x200 to 256x256"
    metadata    the request of each image as stored in a PNG
    complete    False when the callback stopped the run
    """

    images: Any
    tokens: NDArray[np.float32]
    seeds: tuple[int, ...]
    timings: dict[str, float]
    tokens_done: tuple[int, ...]
    notes: list[str] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True

    @property
    def seed(self) -> int | None:
        """The first image's seed; None where noise was given."""
        return self.seeds[0] if self.seeds else None
