"""The native backbone alone, beside peers that have nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, TypeAlias

from ..loop import Load, stage_times

# What a peer computes, and so what of the native loop stands beside it: a whole image token, or its backbone step.
Scope: TypeAlias = Literal["token", "backbone"]

# Stages of a token that are no part of a backbone step. What is left is the step, its last norm and the waking of the
# threads included.
AROUND = ("noise", "image_in", "condition", "fm_modulation", "fm_steps", "finish")


def backbone_seconds(engine: Any, load: Load) -> float:
    """Mean seconds that a token of one run spends in the backbone.

    The head takes one step between two of the backbone, the least that the loop can be asked for.
    """
    stages = stage_times(engine, replace(load, steps=1))
    return sum(seconds for name, seconds in stages.items() if name not in AROUND)
