"""The FLUX-style KL autoencoder between images and latents."""

from .config import VaeConfig
from .model import VAE

__all__ = ["VAE", "VaeConfig"]
