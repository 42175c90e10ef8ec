"""The shape of an autoencoder, as the config.json in its folder states it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from ..errors import CheckpointError

NORM_GROUPS = 32


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
        for name in ("resolution", "in_channels", "ch", "out_ch", "num_res_blocks", "z_channels"):
            self._require(name, _is_positive_int(getattr(self, name)), "a positive integer")
        mult_ok = isinstance(self.ch_mult, tuple) and bool(self.ch_mult) and all(map(_is_positive_int, self.ch_mult))
        self._require("ch_mult", mult_ok, "a list of positive integers")
        self._require("ch", self.ch % NORM_GROUPS == 0, f"a multiple of {NORM_GROUPS}, the groups of its norms")
        for name in ("scaling_factor", "shift_factor"):
            value = getattr(self, name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
            self._require(name, number, "a finite number")
        self._require("scaling_factor", self.scaling_factor != 0, "other than 0")
        for name in ("deterministic", "encoder_norm"):
            self._require(name, isinstance(getattr(self, name), bool), "true or false")
        self._require("psz", self.psz is None or _is_positive_int(self.psz), "a positive integer or null")

    def _require(self, name: str, condition: bool, what: str) -> None:
        if not condition:
            raise CheckpointError(f"the VAE's config.json has {name} = {getattr(self, name)!r}; it must be {what}")

    @property
    def down_factor(self) -> int:
        """Image pixels per latent pixel on each side."""
        return int(2 ** (len(self.ch_mult) - 1))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VaeConfig:
        """Keys other than the fields are ignored."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        if isinstance(known.get("ch_mult"), list):
            known["ch_mult"] = tuple(known["ch_mult"])
        return cls(**known)

    @classmethod
    def from_json(cls, text: str) -> VaeConfig:
        """Raises CheckpointError where the text is no JSON object."""
        try:
            values = json.loads(text)
        except ValueError as error:
            raise CheckpointError(f"the VAE's config.json is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise CheckpointError(f"the VAE's config.json must hold an object, not {type(values).__name__}")
        return cls.from_dict(values)


def _is_positive_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
