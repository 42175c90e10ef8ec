"""Trainings as small as they come."""

from __future__ import annotations

from nextstep_rt.train.generator import GeneratorTraining

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
