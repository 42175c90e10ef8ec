"""Where a token's noise comes from: an array given with the request, or each image's seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidRequest
from .checks import array_of, image_seeds


def noise_source(
    shape: tuple[int, int, int, int], first_token: int, noise: Any, seeds: Sequence[int] | None
) -> Callable[[int], np.ndarray]:
    """A function: index of a token within this call -> its noise [1 + steps, images, token_dim].

    shape [count, 1 + steps, images, token_dim] is what `noise` must have; first_token is the call's first token
    within the image, so that seeds give a token the same noise however the image is cut into calls.
    """
    _, draws, images, token_dim = shape
    if (noise is None) == (seeds is None):
        raise InvalidRequest("decode needs noise or seeds, exactly one of them")
    if seeds is None:
        array = array_of("noise", noise, "f", "float32")
        if array.shape != shape:
            raise InvalidRequest(f"noise has shape {array.shape}, expected {shape}")
        return lambda index: np.asarray(array[index])
    given = image_seeds(seeds, images)

    def from_seeds(index: int) -> np.ndarray:
        from .._core import normal_noise

        return np.array(
            [[normal_noise(seed, first_token + index, k, token_dim) for seed in given] for k in range(draws)]
        )

    return from_seeds
