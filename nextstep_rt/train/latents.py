"""The generator's data: scenes and edits of the training split, their images encoded once."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

from ..patches import patchify
from ..vae.model import VAE
from . import edits, world
from .files import replacing
from .run import compiled, pick_device
from .vae import pixels

SHARD = 1024  # scenes, or pairs, of one file: what a stop can lose
BATCH = 32  # images encoded at once


@dataclass(frozen=True)
class Dataset:
    """Scenes with their tokens [N, 64, 64], and edits with those of source and target [M, 2, 64, 64]; bfloat16."""

    scenes: list[world.Scene]
    scene_tokens: Tensor
    edits: list[edits.Edit]
    edit_tokens: Tensor


def training_scene(index: int) -> world.Scene:
    """Scene number `index` of the training split."""
    return world.sample_split(random.Random(f"scene {index}"), held_out=False)


def training_edit(index: int) -> edits.Edit:
    """Edit number `index` of the training split."""
    return edits.sample_edit(random.Random(f"edit {index}"), held_out=False)


def load_dataset(vae_folder: Path, cache: Path, *, scene_count: int, edit_count: int) -> Dataset:
    """The first `scene_count` scenes and `edit_count` edits, encoded by the VAE; shards in `cache` are kept."""
    vae = VAE.from_folder(vae_folder).to(pick_device())
    vae.encoder = compiled(vae.encoder)
    scenes = [training_scene(i) for i in range(scene_count)]
    pairs = [training_edit(i) for i in range(edit_count)]
    cache.mkdir(parents=True, exist_ok=True)
    scene_tokens = _encoded(vae, cache, "scenes", [[scene] for scene in scenes])
    if pairs:
        edit_tokens = _encoded(vae, cache, "edits", [[pair.source, pair.target] for pair in pairs])
    else:
        edit_tokens = scene_tokens.new_empty(0, 2, *scene_tokens.shape[2:])
    return Dataset(scenes, scene_tokens.flatten(0, 1), pairs, edit_tokens)


def _encoded(vae: VAE, cache: Path, name: str, rows: list[list[world.Scene]]) -> Tensor:
    """Tokens [N, scenes in a row, 64, 64] of all rows, shard by shard."""
    encoder = _encoder_bytes(vae)
    shards = []
    for start in track(range(0, len(rows), SHARD), f"encoding {name}"):
        chosen = rows[start : start + SHARD]
        path = cache / f"{name}-{start:06d}-{_key(encoder, chosen)}.pt"
        if not path.exists():
            flat = [scene for row in chosen for scene in row]
            tokens = torch.cat([encode(vae, flat[i : i + BATCH]) for i in range(0, len(flat), BATCH)])
            with replacing(path) as part:
                torch.save(tokens.bfloat16().view(len(chosen), -1, *tokens.shape[1:]), part)
        shards.append(torch.load(path, weights_only=True))
    return torch.cat(shards)


def _encoder_bytes(vae: VAE) -> bytes:
    weights = [weight for name, weight in sorted(vae.state_dict().items()) if name.startswith("encoder")]
    return b"".join(weight.detach().cpu().float().numpy().tobytes() for weight in weights)


def _key(encoder: bytes, rows: list[list[world.Scene]]) -> str:
    """Names what decides a shard: the encoder's weights, the scenes, and how the first of them is drawn."""
    digest = hashlib.sha256(repr(rows).encode())
    digest.update(world.render(rows[0][0]).tobytes())
    digest.update(encoder)
    return digest.hexdigest()[:16]


def encode(vae: VAE, scenes: list[world.Scene]) -> Tensor:
    """Image tokens [N, 64, 64] of scenes, as the generator sees them."""
    with torch.autocast(vae.device.type, torch.bfloat16):
        latents = vae.encode(pixels(scenes))
    tokens: Tensor = patchify(latents.float().cpu(), vae.config.norm_patch)
    return tokens
