"""The JSON files of a checkpoint, read strictly: what two readers could understand differently is refused."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from typing import Any, NoReturn

from .errors import CheckpointError

MAX_JSON_BYTES = 64 << 20


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The JSON object in a file. Raises `CheckpointError` when the file is absent, huge, or no strict JSON object."""
    name = os.fspath(path)
    try:
        size = os.path.getsize(name)
        if size > MAX_JSON_BYTES:
            raise CheckpointError(f"{name} has {size} bytes: too large for a JSON file of a checkpoint")
        with open(name, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise CheckpointError(f"cannot read {name}: {error.strerror or error}") from None
    except ValueError as error:
        raise CheckpointError(f"cannot read {name}: it is not UTF-8 text: {error}") from None
    return parse_json(text, name)


def parse_json(text: str, name: str) -> dict[str, Any]:
    """The JSON object in a text; `name` is what errors call it.

    Raises `CheckpointError` where it is no JSON object, repeats a key (naming it), or holds NaN or infinity.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            (twice, times), *_ = Counter(key for key, _ in pairs).most_common(1)
            raise CheckpointError(f"{name} gives the key {_cut(twice)} {times} times: keep the one that is meant")
        return made

    def constant(literal: str) -> NoReturn:
        raise CheckpointError(f"{name} is not valid JSON: it holds {_cut(literal)}; numbers must be finite")

    def number(literal: str) -> float:
        value = float(literal)
        return value if math.isfinite(value) else constant(literal)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=constant, parse_float=number)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{name} holds a {type(value).__name__}: expected a JSON object")
    return value


def _cut(text: str) -> str:
    return repr(text) if len(text) <= 80 else f"{text[:60]!r}... ({len(text)} characters)"
