"""What an evaluation found: verdicts, and the scores with their intervals that follow from them."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidRequest
from .prompts import GENERATION

SCHEMA = 1
RESAMPLES = 2000
Z95 = 1.959964  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True)
class Score:
    """A share of right pictures, 0..1, and its 95 % interval [low, high]."""

    score: float
    low: float
    high: float
    prompts: int
    images: int


@dataclass(frozen=True)
class Outcome:
    """One picture's verdict. `number` is the prompt's among all of the evaluation; `kind` is an edit's, else empty.

    scene names what the prompt asks for: prompts of one scene are paraphrases, and stand or fall together.
    """

    number: int
    category: str
    kind: str
    prompt: str
    seed: int
    ok: bool
    reason: str
    scene: str = ""


@dataclass(frozen=True)
class Report:
    """An evaluation. overall: the mean of GenEval's six categories, None where not all were run; editing is apart.

    ceiling: by "reader" (the scenes' own renderings, judged) and "autoencoder" (those after encoding and decoding),
    the scores no generator can be expected to pass. about: what was evaluated, how, when and with what.
    """

    scores: Mapping[str, Score]
    overall: Score | None
    outcomes: tuple[Outcome, ...]
    ceiling: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As plain values, with the schema's version."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """The report that `to_json` gave. Raises `InvalidRequest` for another schema."""
        if values.get("schema") != SCHEMA:
            raise InvalidRequest(f"the report has schema {values.get('schema')!r}: this version reads {SCHEMA}")
        ceiling = {name: _scores_from(scores) for name, scores in values["ceiling"].items()}
        overall = None if values["overall"] is None else Score(**values["overall"])
        outcomes = tuple(Outcome(**outcome) for outcome in values["outcomes"])
        return cls(_scores_from(values["scores"]), overall, outcomes, ceiling, values["about"])

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write it as JSON. Raises `InvalidRequest` where the path cannot be written."""
        try:
            Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise InvalidRequest(f"cannot write {os.fspath(path)}: {error.strerror or error}") from None


def _scores_from(values: Mapping[str, Any]) -> dict[str, Score]:
    return {name: Score(**score) for name, score in values.items()}


# ---------------------------------------------------------------------------------------------------------- scores


def score(outcomes: Iterable[Outcome]) -> dict[str, Score]:
    """The score of every category there is, in order of appearance."""
    made = list(outcomes)
    images = Counter(outcome.category for outcome in made)
    return {name: _interval([_by_scene(scenes)], images[name]) for name, scenes in shares(made).items()}


def overall(outcomes: Iterable[Outcome]) -> Score | None:
    """The mean of GenEval's six category scores; None where one is missing."""
    made = [outcome for outcome in outcomes if outcome.category in GENERATION]
    found = shares(made)
    if any(name not in found for name in GENERATION):
        return None
    return _interval([_by_scene(found[name]) for name in GENERATION], len(made))


Shares = dict[str, dict[int, float]]  # by scene and prompt number


def shares(outcomes: Iterable[Outcome]) -> dict[str, Shares]:
    """Of every category, in order of appearance: the share of right pictures of each prompt, scene by scene."""
    grouped: dict[str, dict[str, dict[int, list[bool]]]] = {}
    for outcome in outcomes:
        scenes = grouped.setdefault(outcome.category, {})
        prompts = scenes.setdefault(outcome.scene or str(outcome.number), {})
        prompts.setdefault(outcome.number, []).append(outcome.ok)
    return {
        name: {
            scene: {number: sum(oks) / len(oks) for number, oks in prompts.items()} for scene, prompts in scenes.items()
        }
        for name, scenes in grouped.items()
    }


def _by_scene(scenes: Shares) -> list[NDArray[np.float64]]:
    return [np.array(list(prompts.values())) for prompts in scenes.values()]


def _interval(parts: Sequence[list[NDArray[np.float64]]], images: int) -> Score:
    """The mean of the parts' means. A bootstrap over scenes: neither a prompt's pictures nor the paraphrases of a
    scene are independent of each other.

    Where all prompts of a category agree nothing varies, and a bootstrap would claim certainty: there it is Wilson's,
    of as many trials as there are scenes.
    """
    flat = [np.concatenate(scenes) for scenes in parts]
    count = sum(len(part) for part in flat)
    mean = float(np.mean([part.mean() for part in flat]))
    if all(len(set(part)) == 1 for part in flat):
        low, high = _wilson(mean, sum(len(scenes) for scenes in parts))
    else:
        rng = np.random.default_rng(0)
        drawn = [resampled(rng, scenes) for scenes in parts]
        low, high = (float(v) for v in np.quantile(np.mean(drawn, axis=0), (0.025, 0.975)))
    return Score(mean, low, high, count, images)


def resampled(rng: np.random.Generator, scenes: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Means of RESAMPLES draws of as many scenes, each with all its prompts."""
    sums, sizes = np.array([scene.sum() for scene in scenes]), np.array([len(scene) for scene in scenes])
    chosen = rng.integers(len(scenes), size=(RESAMPLES, len(scenes)))
    means: NDArray[np.float64] = sums[chosen].sum(1) / sizes[chosen].sum(1)
    return means


def _wilson(share: float, count: int) -> tuple[float, float]:
    scale = 1 + Z95**2 / count
    centre = (share + Z95**2 / (2 * count)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    # Exact at the ends, where rounding would leave a little.
    return 0.0 if share == 0.0 else centre - half, 1.0 if share == 1.0 else centre + half
