"""Builds the tokenizer files of the released layout: a byte-level BPE trained on the world's own language."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from . import captions, edits, world

PAD, END_OF_TEXT = "[PAD]", "<|endoftext|>"
BEGIN_REFINEMENT, END_REFINEMENT = "<|begin_of_prompt_refinement|>", "<|end_of_prompt_refinement|>"
CONTROL = (
    "<|image_area|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|image_placeholder|>",
    BEGIN_REFINEMENT,
    END_REFINEMENT,
    "<|begin_of_thinking|>",
    "<|end_of_thinking|>",
)
FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
MAX_LENGTH = 512  # of a sequence, in tokens
# Of the longest instruction. Shorter ones are padded to it: then a token of the edited image is as far from its source
# in every row. Among many distances the model never learns to look at its source at all.
INSTRUCTION_TOKENS = 14


def language(count: int, seed: int) -> list[str]:
    """Captions, terse prompts, refined prompts and instructions of training scenes, and an image's area."""
    rng = random.Random(f"language {seed}")
    texts = ["8*8"]
    for _ in range(count):
        scene = world.sample_split(rng, held_out=False)
        texts += [captions.caption(rng, scene), captions.terse(rng, scene), captions.canonical(scene)]
        texts.append(edits.sample_edit(rng, held_out=False).instruction)
    return texts


def write_tokenizer(folder: Path, *, vocab_size: int, count: int = 5000, seed: int = 0) -> Tokenizer:
    """Trains on `language` and writes FILES.

    All 256 bytes are in the alphabet: whatever is typed can be encoded. Control tokens take the first ids.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, *CONTROL, END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(language(count, seed), trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / FILES[0]))
    named = {"pad_token": PAD, "eos_token": END_OF_TEXT}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "add_bos_token": False,
        "model_max_length": MAX_LENGTH,
        "padding_side": "left",
        "instruction_length": INSTRUCTION_TOKENS,
        "clean_up_tokenization_spaces": False,
    }
    special = {**named, "additional_special_tokens": list(CONTROL)}
    for name, content in zip(FILES[1:], (config, special), strict=True):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    return tokenizer
