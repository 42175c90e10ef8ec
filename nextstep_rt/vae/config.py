"""The shape of an autoencoder, as the config.json in its folder states it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..config import show
from ..errors import CheckpointError
from ..jsonfile import parse_json, read_json

NORM_GROUPS = 32
MAX_LEVELS = 8
MAX_MULTIPLE = 64
# What no autoencoder needs more of; beyond, building one or planning its memory would hang or overflow.
_LARGEST = {
    "resolution": 65536,
    "in_channels": 4096,
    "ch": 4096,
    "out_ch": 4096,
    "num_res_blocks": 64,
    "z_channels": 4096,
}


@dataclass(frozen=True)
class VaeConfig:
    """Released key names; the defaults are the released code's. Raises CheckpointError on values that cannot be."""

    resolution: int = 256
    in_channels: int = 3
    ch: int = 128
    out_ch: int = 3
    ch_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    scaling_factor: float = 0.3611
    shift_factor: float = 0.1159
    deterministic: bool = False  # encode to the posterior's mean, not to a sample
    encoder_norm: bool = False  # layer-normalize the mean, each patch of psz x psz latent pixels by itself
    psz: int | None = None

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            self._require(name, _is_count(getattr(self, name), largest), f"a positive integer, at most {largest}")
        mult_ok = isinstance(self.ch_mult, tuple) and 1 <= len(self.ch_mult) <= MAX_LEVELS
        mult_ok = mult_ok and all(_is_count(multiple, MAX_MULTIPLE) for multiple in self.ch_mult)
        self._require("ch_mult", mult_ok, f"a list of 1 to {MAX_LEVELS} positive integers, each at most {MAX_MULTIPLE}")
        self._require("ch", self.ch % NORM_GROUPS == 0, f"a multiple of {NORM_GROUPS}, the groups of its norms")
        self._require("scaling_factor", _is_within(self.scaling_factor, 1e-6, 1e6), "a number from 1e-6 to 1e6")
        self._require("shift_factor", _is_within(self.shift_factor, -1e6, 1e6), "a number from -1e6 to 1e6")
        for name in ("deterministic", "encoder_norm"):
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        self._require("psz", self.psz is None or _is_count(self.psz, 4096), "a positive integer, at most 4096, or null")

    def _require(self, name: str, condition: bool, what: str) -> None:
        if not condition:
            raise CheckpointError(f"the VAE's config.json has {name} = {show(getattr(self, name))}; it must be {what}")

    @property
    def down_factor(self) -> int:
        """Image pixels per latent pixel on each side."""
        return int(2 ** (len(self.ch_mult) - 1))

    @property
    def norm_patch(self) -> int:
        """Side, in latent pixels, of the patches that encoder_norm normalizes; 1 where it does not."""
        return (self.psz or 1) if self.encoder_norm else 1

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VaeConfig:
        """Keys other than the fields are ignored."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        if isinstance(known.get("ch_mult"), list):
            known["ch_mult"] = tuple(known["ch_mult"])
        return cls(**known)

    @classmethod
    def from_json(cls, text: str) -> VaeConfig:
        """Raises CheckpointError where the text is no strict JSON object."""
        return cls.from_dict(parse_json(text, "the VAE's config.json"))

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> VaeConfig:
        """The config.json of a VAE's folder. Raises CheckpointError naming the file."""
        path = os.path.join(folder, "config.json")
        values = read_json(path)
        try:
            return cls.from_dict(values)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None


def _is_count(value: Any, largest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= largest


def _is_within(value: Any, low: float, high: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high
