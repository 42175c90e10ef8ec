"""The golden checkpoints and what an exact implementation gets from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent / "golden"
CHECKPOINTS = ("tiny", "gqa5")
CASES = ("plain", "guided", "linear", "raw", "fsde", "cps", "edit")
ALL = [(checkpoint, case) for checkpoint in CHECKPOINTS for case in CASES]

SAMPLING_DEFAULTS = {
    "num_inference_steps": 28,
    "guidance_scale": 7.5,
    "image_guidance_scale": 1.0,
    "guidance_schedule": "constant",
    "guidance_renorm": False,
    "timestep_shift": 1.0,
    "solver": "sde",
    "noise_level": 0.8,
    "last_step_size": 0.04,
    "normalize_tokens": True,
}


@dataclass(frozen=True)
class Golden:
    """One case: the request in the public API's names, its tensors (numpy), and the folder of its checkpoint."""

    name: str
    call: dict[str, Any]
    tensors: dict[str, np.ndarray] = field(repr=False)
    model: Path

    def __getitem__(self, name: str) -> np.ndarray:
        return self.tensors[name]

    @property
    def num_tokens(self) -> int:
        return int(self["tokens"].shape[1])

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of image tokens."""
        latents = self["latents"]
        return latents.shape[2] // 2, latents.shape[3] // 2

    @property
    def branches(self) -> int:
        if "image" in self.tensors and self.call.get("image_guidance_scale", 1.0) != 1.0:
            return 3
        return 2 if self.call["guidance_scale"] != 1.0 else 1

    def sampling(self) -> dict[str, Any]:
        """Keyword arguments of SamplingParams."""
        chosen = {name: self.call.get(name, default) for name, default in SAMPLING_DEFAULTS.items()}
        return {**chosen, "num_tokens": self.num_tokens, "branches": self.branches}

    def embeds(self, engine: Any, placeholder: int) -> np.ndarray:
        """The prompt's embeddings [rows, width, hidden_size], the input image's tokens in their place."""
        ids = self["input_ids"]
        embeds = engine.embed_tokens(ids.reshape(-1)).reshape(*ids.shape, -1)
        if "image_tokens" in self.tensors:
            projected = engine.project_tokens(self["image_tokens"][0])
            for row, columns in enumerate(ids == placeholder):
                if columns.any():
                    embeds[row, columns] = projected
        return embeds


@cache
def load_case(checkpoint: str, case: str) -> Golden:
    with safe_open(ROOT / checkpoint / f"{case}.safetensors", "np") as file:
        call = json.loads(file.metadata()["call"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    return Golden(f"{checkpoint}/{case}", call, tensors, ROOT / checkpoint / "model")


@cache
def load_tensors(checkpoint: str) -> dict[str, torch.Tensor]:
    """All tensors of a golden checkpoint, shards merged."""
    merged: dict[str, torch.Tensor] = {}
    for file in sorted((ROOT / checkpoint / "model").glob("*.safetensors")):
        merged.update(load_file(file))
    return merged


def load_config(checkpoint: str, **changes: Any) -> SimpleNamespace:
    """config.json with the attributes of ModelConfig, read independently of the package's own reader."""
    values = json.loads((ROOT / checkpoint / "model" / "config.json").read_text())
    values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
    values.setdefault("fm_head_mlp_ratio", 1.0)
    values.update(changes)
    values["fm_mlp_dim"] = int(values["fm_head_dim"] * values["fm_head_mlp_ratio"])
    values["token_dim"] = values["latent_channels"] * values["latent_patch_size"] ** 2
    return SimpleNamespace(**values)


def relative_error(actual: Any, expected: Any) -> float:
    """By norm, in float64."""
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == e.shape, (a.shape, e.shape)
    return float(np.linalg.norm(a - e) / np.linalg.norm(e))
