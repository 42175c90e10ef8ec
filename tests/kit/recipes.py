"""Trainings as small as they come."""

from __future__ import annotations

import torch

from nextstep_rt.train.generator import GeneratorTraining
from nextstep_rt.train.latents import Dataset, training_edit, training_scene

SMALL_GENERATOR = GeneratorTraining(
    hidden_size=32,
    intermediate_size=32,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=32,
    fm_head_dim=32,
    fm_head_layers=1,
)


def noise_dataset(scenes: int = 40, edits: int = 20) -> Dataset:
    """Scenes and edits of the training split, whose tokens are normalized noise."""
    generator = torch.Generator().manual_seed(3)

    def tokens(*shape: int) -> torch.Tensor:
        made = torch.randn(*shape, 64, 64, generator=generator)
        return torch.nn.functional.layer_norm(made, (64,)).bfloat16()

    return Dataset(
        [training_scene(i) for i in range(scenes)],
        tokens(scenes),
        [training_edit(i) for i in range(edits)],
        tokens(edits, 2),
    )
