"""The VAE as the pipeline uses it: loaded on first use, one image at a time.

It keeps torch's own thread count (OMP_NUM_THREADS, torch.set_num_threads) whatever the engine's is: torch's
convolutions round differently from one thread count to another, and an image must not depend on the engine's threads.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core import normal_noise
from .checkpoint import Geometry
from .errors import Error
from .images import to_model
from .patches import patchify
from .request import Request
from .vae.config import VaeConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

    from .vae import VAE


class Vision:
    """Pixels to image tokens and latents to pixels. Importing this loads no torch; the first image does."""

    def __init__(self, folder: str, *, device: str) -> None:
        """The VAE's folder; the device falls back to the CPU where torch has no CUDA. Raises `CheckpointError`."""
        self.folder, self._device = folder, device
        self.config = VaeConfig.from_folder(folder)
        self._vae: VAE | None = None
        self._lock = threading.Lock()

    def load(self) -> VAE:
        """The VAE in float32. Raises `CheckpointError`."""
        with self._lock:
            if self._vae is None:
                import torch

                from .vae import VAE

                on_cuda = self._device.startswith("cuda") and torch.cuda.is_available()
                self._vae = VAE.from_folder(self.folder, device=self._device if on_cuda else "cpu")
            return self._vae

    def peak_bytes(self, height: int, width: int) -> int:
        """About what decoding or encoding one image allocates: four full-size float32 feature maps, and workspace."""
        channels = self.config.ch * max(self.config.ch_mult[:2])
        return 4 * 4 * channels * height * width + (64 << 20)

    def decode(self, latent: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scaled latent float32 [C,h,w] -> float32 [3,H,W] in about -1..1. Raises `Error` where one is not finite."""
        import torch

        vae = self.load()
        pixels: Any = vae.decode(torch.from_numpy(np.ascontiguousarray(latent))[None])
        array: NDArray[np.float32] = pixels[0].cpu().numpy()
        _check_finite("decoding gave pixels", array)
        return array

    def image_tokens(self, image: Image.Image, request: Request, geometry: Geometry) -> list[NDArray[np.float32]]:
        """The input picture's tokens float32 [h*w, token_dim] for every image of the request.

        A VAE that samples its posterior does so with each image's own seed, at a token index past the image's, so an
        edit repeats and does not depend on its batch; with the caller's noise it takes the mean.
        Raises `Error` where a latent is not finite.
        """
        import torch

        vae = self.load()
        pixels = torch.from_numpy(to_model(image))[None]
        shape = (1, geometry.channels, request.height // geometry.vae_factor, request.width // geometry.vae_factor)
        samples = not vae.config.deterministic and request.noise is None
        made: dict[int, NDArray[np.float32]] = {}
        for seed in dict.fromkeys(request.seeds) if samples else (0,):
            noise = np.zeros(shape, np.float32)
            if samples:
                noise[:] = np.asarray(normal_noise(seed, request.num_tokens, 0, noise.size)).reshape(shape)
            latent: Any = vae.encode(pixels, noise=torch.from_numpy(noise))
            array = latent[0].cpu().numpy()
            _check_finite("encoding the input picture gave latents", array)
            made[seed] = np.ascontiguousarray(patchify(array, geometry.patch))
        return [made[seed if samples else 0] for seed in request.seeds]


def _check_finite(what: str, values: NDArray[np.float32]) -> None:
    if not np.isfinite(values).all():
        raise Error(f"{what} that are not finite; run `nextstep-rt info --verify` on the checkpoint")
