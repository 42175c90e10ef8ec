"""From prompts to token rows, exactly as the model was trained to read them.

User text and control tokens never meet in one string: text is encoded by a copy of the tokenizer that knows no added
token at all, and control tokens are put between the pieces by id. So whatever a user types stays text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from .config import read_json, show
from .errors import CheckpointError, InvalidRequest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ._core import ModelConfig

IMAGE_MARKER = "<image>"
AREA_TOKEN = "<|image_area|>"
LONGEST_INSTRUCTION = 1024  # tokens a checkpoint may ask `instruction_length` to be
# config.json's names of the ids of the tokens that rows are built with.
CONTROL_TOKENS = {
    "boi": "<|begin_of_image|>",
    "eoi": "<|end_of_image|>",
    "image_placeholder_id": "<|image_placeholder|>",
}


def clean_text(text: str) -> str:
    """Text that UTF-8 can hold: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _load(make: Any, source: str, path: str) -> Tokenizer:
    """Build a Tokenizer; its failures are plain exceptions or panics that derive from BaseException only."""
    try:
        tokenizer: Tokenizer = make(source)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise CheckpointError(f"{path} is not a usable tokenizer: {error}; fetch the file again") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


@dataclass(frozen=True)
class TokenBatch:
    """Ragged rows of a request; `input_ids` and `attention_mask` are their left-padded form."""

    rows: tuple[tuple[int, ...], ...]
    pad: int

    @property
    def width(self) -> int:
        """The longest row's length."""
        return max(len(row) for row in self.rows)

    @property
    def input_ids(self) -> NDArray[np.int64]:
        """int64 [B,T], pads to the left."""
        import numpy as np

        out = np.full((len(self.rows), self.width), self.pad, dtype=np.int64)
        for line, row in zip(out, self.rows, strict=True):
            line[self.width - len(row) :] = row
        return out

    @property
    def attention_mask(self) -> NDArray[np.int64]:
        """int64 [B,T]: 1 for a token, 0 for a pad."""
        import numpy as np

        out = np.zeros((len(self.rows), self.width), dtype=np.int64)
        for line, row in zip(out, self.rows, strict=True):
            line[self.width - len(row) :] = 1
        return out

    def take(self, rows: Sequence[int]) -> TokenBatch:
        """The batch of the named rows, in that order."""
        return TokenBatch(tuple(self.rows[i] for i in rows), self.pad)


class PromptTokenizer:
    """A checkpoint folder's tokenizer with the model's row rules around it.

    Raises `CheckpointError` when tokenizer.json or tokenizer_config.json is missing, broken or at odds with the config.
    """

    def __init__(self, folder: str | os.PathLike[str], config: ModelConfig) -> None:
        path = os.path.join(folder, "tokenizer.json")
        source = read_json(path)
        full = _load(Tokenizer.from_str, json.dumps(source), path)
        added = {entry["content"]: int(entry["id"]) for entry in source.get("added_tokens") or []}
        # Special or not: an added token a user could type must not be matched in text.
        plain = {**source, "added_tokens": [], "post_processor": None}
        self._text = _load(Tokenizer.from_str, json.dumps(plain), path)
        self._added = frozenset(added.values())
        self.boi, self.eoi = config.boi, config.eoi
        self.placeholder, self.pad = config.image_placeholder_id, config.pad_token_id
        self.area = self._id_of(full, AREA_TOKEN, path)
        stated_path = os.path.join(folder, "tokenizer_config.json")
        stated = read_json(stated_path) if os.path.exists(stated_path) else {}
        self.bos = self._bos(full, stated, stated_path)
        self.instruction_length = self._instruction_length(stated, stated_path)
        self._check_fit(full, config, path)

    @staticmethod
    def _id_of(full: Tokenizer, token: str, path: str) -> int:
        found = full.token_to_id(token)
        if found is None:
            raise CheckpointError(f"{path} has no token {token!r}, which NextStep-1's prompts need: wrong tokenizer?")
        return int(found)

    @classmethod
    def _bos(cls, full: Tokenizer, stated: dict[str, Any], path: str) -> int | None:
        """The id every row starts with: a `bos_token` not switched off by `add_bos_token: false`, else None."""
        bos, add = stated.get("bos_token"), stated.get("add_bos_token")
        if add is not None and not isinstance(add, bool):
            raise CheckpointError(f"{path}: add_bos_token must be true, false or null, not {show(add)}")
        if isinstance(bos, dict):
            bos = bos.get("content")
        if bos is None or add is False:
            return None
        if not isinstance(bos, str):
            raise CheckpointError(
                f"{path}: bos_token must be a string or an object with one in 'content', not {show(bos)}"
            )
        return cls._id_of(full, bos, path)

    @staticmethod
    def _instruction_length(stated: dict[str, Any], path: str) -> int:
        """tokenizer_config.json's `instruction_length`, a key of this project's; 0 where it is absent."""
        length = stated.get("instruction_length", 0)
        if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= LONGEST_INSTRUCTION:
            raise CheckpointError(
                f"{path}: instruction_length must be a whole number from 0 to {LONGEST_INSTRUCTION}, not {show(length)}"
            )
        return length

    def _check_fit(self, full: Tokenizer, config: ModelConfig, path: str) -> None:
        ids = {"boi": self.boi, "eoi": self.eoi, "image_placeholder_id": self.placeholder, "pad_token_id": self.pad}
        for name, token in CONTROL_TOKENS.items():
            if ids[name] < 0:
                raise CheckpointError(f"config.json has no {name!r}, the id of {token!r}: add it")
            found = full.token_to_id(token)
            if found is not None and found != ids[name]:
                raise CheckpointError(
                    f"config.json says {name} is {ids[name]}, but {path} has {token!r} as {found}: "
                    "they belong to different models, or one was edited"
                )
        if not self.encode_text("a"):
            raise CheckpointError(f"{path} turns text into no tokens at all: its vocabulary is empty or damaged")
        largest = max(full.get_vocab(with_added_tokens=True).values(), default=0)
        for name, value in {**ids, "largest tokenizer id": largest}.items():
            if not 0 <= value < config.vocab_size:
                raise CheckpointError(
                    f"{name} is {value}, outside config.json's vocab_size {config.vocab_size} ({path})"
                )

    def instruction(self, text: str) -> list[int]:
        """Ids of the text behind an input image, with pads that the model sees put before it to `instruction_length`.

        A checkpoint that asks for them was trained with its picture at one distance from its answer.
        """
        ids = self.encode_text(text)
        return [self.pad] * (self.instruction_length - len(ids)) + ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of plain text; no BOS and never a control token's id, whatever the text spells."""
        ids: list[int] = []
        pieces = [clean_text(text)]
        while pieces:
            piece = pieces.pop()
            try:
                encoding = self._text.encode(piece, add_special_tokens=False)
            except Exception as error:  # the library raises bare Exceptions, e.g. for a vocabulary without its [UNK]
                raise CheckpointError(f"tokenizer.json cannot encode {show(piece)}: {error}") from None
            spans = [span for token, span in zip(encoding.ids, encoding.offsets, strict=True) if token in self._added]
            if spans:
                pieces += reversed(_cut(piece, spans))
            else:
                ids += encoding.ids
        return ids

    def area_tokens(self, h: int, w: int) -> list[int]:
        """`<|image_area|>{h}*{w}` in ids, h and w in image tokens."""
        return [self.area, *self.encode_text(f"{h}*{w}")]

    def image_block(self, h: int, w: int) -> list[int]:
        """What stands for an input image: its area, begin, h*w placeholders, end."""
        return [*self.area_tokens(h, w), self.boi, *[self.placeholder] * (h * w), self.eoi]

    def _row(self, body: list[int], suffix: list[int]) -> tuple[int, ...]:
        head = [] if self.bos is None else [self.bos]
        return tuple(head + body + suffix)

    def build(
        self,
        prompts: Sequence[str],
        negative_prompt: str,
        *,
        h: int,
        w: int,
        branches: int,
        images_per_prompt: int = 1,
        with_image: bool = False,
    ) -> TokenBatch:
        """Rows of a request, branch-major: conditional, then (3 branches) image-only, then unconditional.

        prompts already carry the positive prompt. With an image each holds `<image>` exactly once, else
        `InvalidRequest`; without one the marker is text like any other.
        """
        suffix = [*self.area_tokens(h, w), self.boi]
        block = self.image_block(h, w)
        conditional: list[tuple[int, ...]] = []
        for prompt in prompts:
            if with_image:
                before, after = split_marker(prompt)
                body = self.encode_text(before) + block + self.instruction(after)
            else:
                body = self.encode_text(prompt)
            conditional += [self._row(body, suffix)] * images_per_prompt
        rows = list(conditional)
        if branches == 3:
            rows += [self._row(block + self.instruction(negative_prompt), suffix)] * len(conditional)
        if branches >= 2:
            rows += [self._row(self.encode_text(negative_prompt), suffix)] * len(conditional)
        return TokenBatch(tuple(rows), self.pad)


def _cut(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Text cut inside every span that the vocabulary itself maps to a control token; a single character is dropped."""
    pieces, start = [], 0
    for low, high in spans:
        middle = (low + high) // 2
        pieces.append(text[start:middle])
        start = middle if high - low > 1 else middle + 1
    pieces.append(text[start:])
    return [piece for piece in pieces if piece]


def split_marker(prompt: str) -> tuple[str, str]:
    """The text before and after the one `<image>` marker. Raises `InvalidRequest` for none or several."""
    found = prompt.count(IMAGE_MARKER)
    if found == 0:
        raise InvalidRequest(
            f"the prompt {show(prompt)} has no {IMAGE_MARKER} marker for the given image: put it where the image "
            f"belongs, e.g. '{IMAGE_MARKER}add a hat'"
        )
    if found > 1:
        raise InvalidRequest(
            f"the prompt {show(prompt)} has {found} {IMAGE_MARKER} markers: exactly one image is taken"
        )
    before, after = prompt.split(IMAGE_MARKER)
    return before, after
