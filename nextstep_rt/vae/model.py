"""VAE: pixels to scaled latents and back."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import InvalidRequest
from ..patches import patchify, unpatchify
from .checkpoint import check_state_dict, read_config, read_state_dict
from .config import VaeConfig
from .layers import Decoder, Encoder

NORM_EPS = 1e-6
# Outside of this a log variance is meaningless and its exponential overflows.
LOGVAR_RANGE = (-30.0, 20.0)


class VAE(nn.Module):
    """The autoencoder. `encode` and `decode` are for inference; training calls `moments` and `decoder` itself."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @classmethod
    def from_folder(
        cls, path: str | Path, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> VAE:
        """Loads config.json with checkpoint.pt or *.safetensors, frozen. Raises CheckpointError."""
        folder = Path(path)
        config = read_config(folder)
        state = read_state_dict(folder)
        with torch.device("meta"):  # the weights are assigned: initializing them first would only cost time
            vae = cls(config)
        check_state_dict(state, vae.state_dict(), folder)
        vae.load_state_dict({name: _laid_out(t, dtype, device) for name, t in state.items()}, strict=True, assign=True)
        return vae.requires_grad_(False).eval()

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype, in which the networks run."""
        return self.decoder.conv_in.weight.dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are; inputs are moved there."""
        return self.decoder.conv_in.weight.device

    def moments(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """From pixels [N, 3, H, W] in -1..1 to mean and log variance, each [N, z, H/f, W/f], unscaled."""
        mean, logvar = self.encoder(pixels.to(self.device, self.dtype)).chunk(2, dim=1)
        if self.config.encoder_norm:
            patch = self.config.norm_patch
            h, w = mean.shape[-2] // patch, mean.shape[-1] // patch
            tokens = patchify(mean, patch)
            mean = unpatchify(functional.layer_norm(tokens, tokens.shape[-1:], eps=NORM_EPS), h, w, patch)
        return mean, logvar

    @torch.no_grad()
    def encode(
        self, pixels: Tensor, *, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> Tensor:
        """From pixels [N, 3, H, W] in -1..1 to float32 latents [N, z, H/f, W/f], (z - shift_factor) * scaling_factor.

        z is the posterior's mean where the config is deterministic; else a sample, from `noise` of the latents'
        shape or, without it, from `generator`. Raises InvalidRequest where H or W is no multiple of f (and psz).
        """
        config = self.config
        multiple = config.down_factor * config.norm_patch
        if pixels.ndim != 4 or pixels.shape[1] != config.in_channels or any(s % multiple for s in pixels.shape[2:]):
            raise InvalidRequest(
                f"pixels have shape {tuple(pixels.shape)}, expected (N, {config.in_channels}, H, W) "
                f"with H and W multiples of {multiple}"
            )
        mean, logvar = (t.to(_at_least_float32(t)) for t in self.moments(pixels))
        if not config.deterministic:
            if noise is None:
                source = generator.device if generator is not None else mean.device
                noise = torch.randn(mean.shape, generator=generator, device=source, dtype=mean.dtype)
            if noise.shape != mean.shape:
                raise InvalidRequest(f"noise has shape {tuple(noise.shape)}, the latents have {tuple(mean.shape)}")
            mean = mean + (logvar.clamp(*LOGVAR_RANGE) / 2).exp() * noise.to(mean)
        return (mean - config.shift_factor) * config.scaling_factor

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Scaled latents [N, z, h, w] -> float32 pixels [N, 3, f*h, f*w], about -1..1, not clamped."""
        config = self.config
        if latents.ndim != 4 or latents.shape[1] != config.z_channels:
            raise InvalidRequest(f"latents have shape {tuple(latents.shape)}, expected (N, {config.z_channels}, h, w)")
        z = latents.to(self.device) / config.scaling_factor + config.shift_factor
        pixels: Tensor = self.decoder(z.to(self.dtype))
        return pixels.to(_at_least_float32(pixels))


def _laid_out(weight: Tensor, dtype: torch.dtype, device: str | torch.device) -> Tensor:
    """Convolutions are faster with the channels innermost, on CPUs too; activations follow their weights' layout."""
    layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
    return weight.to(device=device, dtype=dtype).contiguous(memory_format=layout)


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
