"""Latents to image tokens and back. Works on numpy arrays and torch tensors alike, needs neither.

Token (i, j) of a latent [C, H, W] holds the numbers (c, p, q) of its patch: c slowest, then row p, then column q.
"""

from __future__ import annotations

from typing import Any, TypeVar

from .errors import InvalidRequest

ArrayT = TypeVar("ArrayT")


def patchify(latents: ArrayT, patch_size: int) -> ArrayT:
    """[..., C, H, W] -> tokens [..., (H/p) * (W/p), C*p*p], row by row. Raises InvalidRequest where p divides not."""
    x: Any = latents
    p = patch_size
    if len(x.shape) < 3 or p < 1 or x.shape[-2] % p or x.shape[-1] % p:
        raise InvalidRequest(f"latents of shape {tuple(x.shape)} do not divide into patches of {p}x{p}")
    *batch, c, height, width = x.shape
    h, w = height // p, width // p
    # (c, h, p, w, q) -> (h, c, p, w, q) -> (h, w, p, c, q) -> (h, w, c, p, q)
    x = x.reshape(*batch, c, h, p, w, p).swapaxes(-5, -4).swapaxes(-4, -2).swapaxes(-3, -2)
    tokens: ArrayT = x.reshape(*batch, h * w, c * p * p)
    return tokens


def unpatchify(tokens: ArrayT, height: int, width: int, patch_size: int) -> ArrayT:
    """Tokens [..., height * width, C*p*p] -> latents [..., C, height * p, width * p]; sizes count tokens.

    Raises InvalidRequest where the tokens are not height * width, or their numbers no multiple of p*p.
    """
    x: Any = tokens
    p = patch_size
    if len(x.shape) < 2 or p < 1 or x.shape[-2] != height * width or x.shape[-1] % (p * p):
        raise InvalidRequest(
            f"tokens of shape {tuple(x.shape)} do not make {height}x{width} patches of {p}x{p}: "
            f"expected (..., {height * width}, a multiple of {p * p})"
        )
    *batch, _, d = x.shape
    c = d // (p * p)
    # (h, w, c, p, q) -> (h, w, p, c, q) -> (h, c, p, w, q) -> (c, h, p, w, q)
    x = x.reshape(*batch, height, width, c, p, p).swapaxes(-3, -2).swapaxes(-4, -2).swapaxes(-5, -4)
    latents: ArrayT = x.reshape(*batch, c, height * p, width * p)
    return latents
