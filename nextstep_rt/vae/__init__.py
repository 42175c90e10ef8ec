"""The FLUX-style KL autoencoder between images and latents. Its config alone loads no torch; `VAE` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .config import VaeConfig

if TYPE_CHECKING:
    from .model import VAE

__all__ = ["VAE", "VaeConfig"]


def __getattr__(name: str) -> Any:
    """Resolve `VAE` on first use (PEP 562)."""
    if name != "VAE":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .model import VAE

    globals()[name] = VAE
    return VAE
