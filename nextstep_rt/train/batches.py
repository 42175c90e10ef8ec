"""Rows of tokens for the generator's steps, in the very form in which the runtime will ask."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from ..config import choice
from ..errors import InvalidRequest
from ..tokenizer import PromptTokenizer
from . import captions, edits
from .latents import Dataset
from .refine import refinement_ids
from .world import LAYOUTS, Scene

if TYPE_CHECKING:
    from .generator import GeneratorTraining

SIDE = 8  # image tokens on each side
# Columns before the image's first token, the same in every step so that each format is compiled once.
DRAW_COLUMNS = 34
EDIT_COLUMNS = 96
DROWNING = 4.0  # the noise that leaves nothing of a token
# Of the drawings: prompted tersely, and tersely with the refined prompt written out behind.
TERSE, REFINED = 0.1, 0.15
IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """One format's rows; L columns of prompt, then 64 image tokens of D numbers.

    ids, keep, next_ids [b, L]: tokens left-padded, which are real, and the text to predict at each (L - 1 columns).
    read [b, 63, D]: the image tokens given, all but the last. target [b, 64, D]. noise [draws * b * 64, D] and times
    [draws * b * 64]: the flow's start and place. source [b, 64, D]: an edit's picture, for the
    placeholders.
    """

    ids: Tensor
    keep: Tensor
    next_ids: Tensor
    read: Tensor
    target: Tensor
    noise: Tensor
    times: Tensor
    source: Tensor | None = None

    def keep_all(self) -> Tensor:
        """Which of all columns are real, the prompt's and those of the image tokens given [b, L + 63]."""
        return functional.pad(self.keep, (0, self.read.shape[1]), value=True)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def _weights(stated: tuple[tuple[str, float], ...], names: list[str], known: Sequence[str]) -> list[float]:
    """Of each name what is stated for it, or one."""
    by_name = dict(stated)
    for name in by_name:
        choice("weighted name", name, known)
    return [by_name.get(name, 1.0) for name in names]


class Sampler:
    """Draws each step's batches from the step's number; InvalidRequest where weights name what is not there."""

    def __init__(self, settings: GeneratorTraining, dataset: Dataset, prompts: PromptTokenizer) -> None:
        self.settings, self.dataset, self.prompts = settings, dataset, prompts
        self.begin, self.end = refinement_ids(prompts)
        self._suffix = [*prompts.area_tokens(SIDE, SIDE), prompts.boi]
        self._picture = prompts.image_block(SIDE, SIDE)
        self._scene_weights = self._by_layout(dataset.scenes)
        # Source and target are of one layout but where something moves: what is left of a pair keeps the pair's.
        kinds = _weights(settings.edit_weights, [edit.kind for edit in dataset.edits], [*edits.KINDS])
        layouts = self._by_layout([edit.source for edit in dataset.edits])
        self._edit_weights = [kind * layout for kind, layout in zip(kinds, layouts, strict=True)]

    def _by_layout(self, scenes: Sequence[Scene]) -> list[float]:
        return _weights(self.settings.scene_weights, [scene.layout for scene in scenes], LAYOUTS)

    def batches(self, step: int) -> list[Batch]:
        """The drawings and, where the settings ask for any, the edits of one step."""
        s, data = self.settings, self.dataset
        rng = random.Random(f"generator {s.seed} {step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(62))
        chosen = rng.choices(range(len(data.scenes)), self._scene_weights, k=s.batch)
        rows = [self.drawing_row(rng, index) for index in chosen]
        drowned_drawings, drowned_edits = s.drowned_at(step)
        drowned = torch.tensor([rng.random() < drowned_drawings for _ in chosen])
        drawings = self._batch(rows, DRAW_COLUMNS, data.scene_tokens[chosen].float(), generator, drowned)
        if s.edit_batch == 0:
            return [drawings]
        chosen = rng.choices(range(len(data.edits)), self._edit_weights, k=s.edit_batch)
        edited = [self.edit_row(rng, index) for index in chosen]
        drowned = torch.tensor([rng.random() < drowned_edits for _ in chosen])
        rows = [row for row, _ in edited]
        pairs = data.edit_tokens[chosen].float()
        pairs = torch.stack([pair.flip(0) if back else pair for pair, (_, back) in zip(pairs, edited, strict=True)])
        editing = self._batch(rows, EDIT_COLUMNS, pairs[:, 1], generator, drowned)
        return [drawings, replace(editing, source=pairs[:, 0])]

    def drawing_row(self, rng: random.Random, index: int) -> list[int]:
        """A caption, nothing (the dropped condition), a terse prompt, or one with its refinement."""
        scene, encode = self.dataset.scenes[index], self.prompts.encode_text
        if rng.random() < self.settings.drop:
            return []
        kind = rng.random()
        if kind >= TERSE + REFINED:
            return encode(captions.caption(rng, scene))
        row = encode(captions.terse(rng, scene))
        if kind < REFINED:
            refined = [self.begin, *encode(captions.canonical(scene)), self.end]
            if len(row) + len(refined) + len(self._suffix) <= DRAW_COLUMNS:
                row += refined
        return row

    def edit_row(self, rng: random.Random, index: int) -> tuple[list[int], bool]:
        """An image and an instruction, or (dropped) the image alone; True where the change is the one back."""
        edit = self.dataset.edits[index]
        back = edits.undone(rng, edit) if rng.random() < 0.5 else None
        said = ""
        if rng.random() >= self.settings.drop:
            text = captions.written(rng, (back or edits.reworded(rng, edit)).instruction)
            space = " " if rng.random() < 0.15 else ""  # people put one behind the `<image>` marker
            said = space + text
        return [*self._picture, *self.prompts.instruction(said)], back is not None

    def _batch(
        self,
        rows: Sequence[list[int]],
        columns: int,
        target: Tensor,
        generator: torch.Generator,
        drowned: Tensor,
    ) -> Batch:
        ids = torch.full((len(rows), columns), self.prompts.pad)
        for line, row in zip(ids, rows, strict=True):
            tokens = [*row, *self._suffix]
            if len(tokens) > columns:
                raise InvalidRequest(f"a row of {len(tokens)} tokens does not fit {columns} columns: raise the number")
            line[columns - len(tokens) :] = torch.tensor(tokens)
        keep = torch.arange(columns) >= columns - torch.tensor([[len(row) + len(self._suffix)] for row in rows])
        unwritten = (ids[:, 1:] == self.prompts.placeholder) | (ids[:, 1:] == self.prompts.pad)
        next_ids = ids[:, 1:].masked_fill(~keep[:, :-1] | unwritten, IGNORED)
        amplitude = self.settings.input_noise * torch.rand(len(rows), 1, 1, generator=generator)
        amplitude[drowned] = DROWNING
        read = target[:, :-1]
        read = read + amplitude * torch.randn(read.shape, generator=generator)
        read = functional.layer_norm(read, read.shape[-1:], eps=1e-6)
        count = self.settings.draws * target.shape[0] * target.shape[1]
        noise = torch.randn(count, target.shape[2], generator=generator)
        times = torch.randn(count, generator=generator).sigmoid()
        return Batch(ids, keep, next_ids, read, target, noise, times)
