"""What the text head does: from a terse prompt, the full caption, greedily.

The sequence is the prompt, the token that begins a refinement, the refined prompt, the token that ends it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from .._core import ModelConfig
from ..reference.backbone import Sequences, lm_logits, run_backbone
from ..tokenizer import PromptTokenizer
from . import captions, world
from .tokenizer import BEGIN_REFINEMENT, CONTROL, END_REFINEMENT

LONGEST = 40  # tokens of a refined prompt


def refinement_ids(prompts: PromptTokenizer) -> tuple[int, int]:
    """The ids of the tokens around a refined prompt; control tokens follow the pad in CONTROL's order."""
    begin, end = (prompts.pad + 1 + CONTROL.index(token) for token in (BEGIN_REFINEMENT, END_REFINEMENT))
    return begin, end


@torch.no_grad()
def refine(weights: dict[str, Tensor], config: ModelConfig, prompts: PromptTokenizer, prompt: str) -> list[int]:
    """The ids the model writes after `prompt`, the most likely one each time, without the ending token.

    Runs the whole sequence again for every token: a check of the model, not a way to serve it.
    """
    begin, end = refinement_ids(prompts)
    row = [*prompts.encode_text(prompt), begin]
    start = len(row)
    while len(row) < start + LONGEST:
        embeds = weights["embed_tokens.weight"][torch.tensor([row])]
        hidden, _ = run_backbone(weights, config, embeds, Sequences(torch.ones(1, len(row), dtype=torch.bool)))
        token = int(lm_logits(weights, config, hidden[0, -1]).argmax())
        if token == end:
            break
        row.append(token)
    return row[start:]


@dataclass(frozen=True)
class Refinement:
    """One terse prompt, what the model made of it, and the caption it should have been."""

    prompt: str
    expected: str
    right: bool


def score_refinement(
    weights: dict[str, Tensor], config: ModelConfig, prompts: PromptTokenizer, *, count: int = 100, seed: int = 0
) -> list[Refinement]:
    """Refines terse prompts of held-out scenes; right where every token is that of the canonical caption."""
    rng = random.Random(f"refinement {seed}")
    results = []
    for _ in range(count):
        scene = world.sample_split(rng, held_out=True)
        prompt, expected = captions.terse(rng, scene), captions.canonical(scene)
        written = refine(weights, config, prompts, prompt)
        results.append(Refinement(prompt, expected, written == prompts.encode_text(expected)))
    return results


def score_model(folder: Path, *, count: int = 200) -> list[Refinement]:
    """`score_refinement` of a model in the released layout, in float32."""
    config = ModelConfig.from_json((folder / "config.json").read_text())
    weights = {name: weight.float() for name, weight in load_file(folder / "model.safetensors").items()}
    return score_refinement(weights, config, PromptTokenizer(folder, config), count=count)
