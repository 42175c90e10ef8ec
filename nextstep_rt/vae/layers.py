"""Encoder and decoder, module tree and parameter names as released.

A level's number is its depth: level 0 is the image's resolution, and the decoder runs its levels from the last to 0.
"""

# ruff: noqa: D102  (a forward does what its class says)

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .config import NORM_GROUPS, VaeConfig


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm used everywhere in the autoencoder."""
    return nn.GroupNorm(NORM_GROUPS, channels, eps=1e-6)


def conv3(c_in: int, c_out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(c_in, c_out, kernel_size=3, padding=1)


class ResnetBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), with a 1x1 convolution on x where the channels change."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm1 = group_norm(c_in)
        self.conv1 = conv3(c_in, c_out)
        self.norm2 = group_norm(c_out)
        self.conv2 = conv3(c_out, c_out)
        self.nin_shortcut = nn.Conv2d(c_in, c_out, kernel_size=1) if c_in != c_out else None

    def forward(self, x: Tensor) -> Tensor:
        h: Tensor = self.conv1(functional.silu(self.norm1(x), inplace=not torch.is_grad_enabled()))
        h = self.conv2(functional.silu(self.norm2(h), inplace=not torch.is_grad_enabled()))
        return h + (x if self.nin_shortcut is None else self.nin_shortcut(x))


class AttnBlock(nn.Module):
    """Self-attention over all pixels, one head as wide as the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.q = nn.Conv2d(channels, channels, kernel_size=1)
        self.k = nn.Conv2d(channels, channels, kernel_size=1)
        self.v = nn.Conv2d(channels, channels, kernel_size=1)
        self.proj_out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        q, k, v = (m(normed).flatten(2).transpose(1, 2).unsqueeze(1) for m in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v).squeeze(1).transpose(1, 2).reshape(x.shape)
        projected: Tensor = self.proj_out(mixed)
        return x + projected


class Downsample(nn.Module):
    """Halves each side; padded on the right and at the bottom only."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, kernel_size=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        halved: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return halved


class Upsample(nn.Module):
    """Doubles each side: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        doubled: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class Middle(nn.Module):
    """The deepest level: attention between two residual blocks."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttnBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return mixed


def residual_blocks(c_in: int, c_out: int, count: int) -> nn.ModuleList:
    """A chain of residual blocks; the first changes the channels."""
    return nn.ModuleList(ResnetBlock(c_in if i == 0 else c_out, c_out) for i in range(count))


class DownLevel(nn.Module):
    """One level of the encoder; all but the last halve the size at their end."""

    def __init__(self, c_in: int, c_out: int, count: int, last: bool) -> None:
        super().__init__()
        self.block = residual_blocks(c_in, c_out, count)
        self.downsample = None if last else Downsample(c_out)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class UpLevel(nn.Module):
    """One level of the decoder; all but the last run, level 0, double the size at their end."""

    def __init__(self, c_in: int, c_out: int, count: int, last: bool) -> None:
        super().__init__()
        self.block = residual_blocks(c_in, c_out, count)
        self.upsample = None if last else Upsample(c_out)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.upsample is None else self.upsample(x)


class Encoder(nn.Module):
    """Pixels [N, in_channels, H, W] -> mean and log variance [N, 2 * z_channels, H/f, W/f]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = conv3(config.in_channels, config.ch)
        self.down = nn.ModuleList(
            DownLevel(c_in, c_out, config.num_res_blocks, last=level == len(widths) - 1)
            for level, (c_in, c_out) in enumerate(zip([config.ch, *widths[:-1]], widths, strict=True))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = conv3(widths[-1], 2 * config.z_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_in(x)
        for level in self.down:
            h = level(h)
        moments: Tensor = self.conv_out(functional.silu(self.norm_out(self.mid(h))))
        return moments


class Decoder(nn.Module):
    """Latents [N, z_channels, h, w] -> pixels [N, out_ch, f*h, f*w]."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = conv3(config.z_channels, widths[-1])
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            UpLevel(c_in, c_out, config.num_res_blocks + 1, last=level == 0)
            for level, (c_in, c_out) in enumerate(zip([*widths[1:], widths[-1]], widths, strict=True))
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv3(widths[0], config.out_ch)

    def forward(self, z: Tensor) -> Tensor:
        h = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            h = level(h)
        pixels: Tensor = self.conv_out(functional.silu(self.norm_out(h)))
        return pixels
