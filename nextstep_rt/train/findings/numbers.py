"""Numbers with their intervals, and when two of them are said to differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InvalidRequest
from ..report import RESAMPLES, Z95, Report, Score, Shares, resampled, shares

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Number:
    """A value and its 95 % interval [low, high]."""

    value: float
    low: float
    high: float

    @property
    def sign(self) -> int:
        """Of a difference: 1 where the whole interval is above zero, -1 where it is below, else 0: no difference."""
        return int(self.low > 0) - int(self.high < 0)

    @property
    def reach(self) -> float:
        """Of a difference: the largest one, either way, that the interval leaves possible."""
        return max(abs(self.low), abs(self.high))

    def text(self, digits: int = 3) -> str:
        """`0.812 [0.790, 0.834]`."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def to_json(self) -> dict[str, float]:
        """As plain values."""
        return {name: round(value, 6) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, float]) -> Number:
        """The number that `to_json` gave."""
        return cls(values["value"], values["low"], values["high"])

    @classmethod
    def of(cls, score: Score) -> Number:
        """A ShapeEval score, 0..1."""
        return cls(score.score, score.low, score.high)


def draws(count: int) -> NDArray[np.int64]:
    """Indices [RESAMPLES, count] of bootstrap samples; the same for a count, so that samples of two rows pair."""
    return np.random.default_rng(0).integers(count, size=(RESAMPLES, count))


def quantiles(value: float, samples: Floats) -> Number:
    """A value with the middle 95 % of its bootstrap samples."""
    low, high = (float(v) for v in np.quantile(samples, (0.025, 0.975)))
    return Number(float(value), low, high)


def mean_of(values: Any) -> Number:
    """The mean of values [n], by a bootstrap over them. Raises `InvalidRequest` for fewer than two."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        raise InvalidRequest(f"an interval needs two values or more, and there is {len(array)}: raise the count")
    return quantiles(array.mean(), array[draws(len(array))].mean(1))


def mean_difference(first: Any, second: Any) -> Number:
    """The mean of first - second, two rows [n] of the same things measured twice."""
    return mean_of(np.asarray(first, np.float64) - np.asarray(second, np.float64))


# ---------------------------------------------------------------------------------------------------------- scores


def score_difference(first: Report, second: Report) -> Number:
    """How much more the first scored than the second, -1..1: the mean over categories, prompt by prompt.

    Both drew the same prompts, and a hard prompt is hard for both: their difference is surer than either score.
    The bootstrap is over scenes, since paraphrases of one stand or fall together.
    Raises `InvalidRequest` where the prompts are not the same.
    """
    a, b = shares(first.outcomes), shares(second.outcomes)
    if _prompts(a) != _prompts(b):
        raise InvalidRequest("two evaluations of different prompts cannot be compared: draw both with one prompt_seed")
    rows = [
        [np.array([prompts[n] - b[name][scene][n] for n in prompts]) for scene, prompts in scenes.items()]
        for name, scenes in a.items()
    ]
    flat = [np.concatenate(row) for row in rows]
    value = float(np.mean([row.mean() for row in flat]))
    if len({float(v) for row in flat for v in row}) == 1:
        # Nothing varies, and a bootstrap would claim certainty: what Wilson leaves open may differ by up to 2.
        count = sum(len(row) for row in rows)
        open_share = Z95**2 / (count + Z95**2)
        return Number(value, max(value - 2 * open_share, -1.0), min(value + 2 * open_share, 1.0))
    rng = np.random.default_rng(0)
    return quantiles(value, np.mean([resampled(rng, row) for row in rows], axis=0))


def _prompts(found: Mapping[str, Shares]) -> dict[str, dict[str, set[int]]]:
    return {name: {scene: set(prompts) for scene, prompts in scenes.items()} for name, scenes in found.items()}
