"""Runs of the decode loop on engines that exist: seconds of each token, and of each stage."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nextstep_rt import InvalidRequest, SamplingParams

from . import native
from .results import SEED

WARM_UP = 2  # tokens before the clock counts: the first has no backbone step, the second meets cold pages


@dataclass(frozen=True)
class Load:
    """What an engine is asked for.

    positions: of the prompt, before the first image token; steps: of the solver; tokens: timed in each run; runs: how
    many follow one prefill.
    """

    rows: int = 2
    steps: int = 20
    positions: int = 32
    tokens: int = 16
    runs: int = 1

    def __post_init__(self) -> None:
        for name, low, high in (("rows", 1, 16), ("steps", 1, 1000), ("positions", 1, 1 << 20), ("tokens", 1, 1 << 16)):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InvalidRequest(f"--{name} is {value}: it must be from {low} to {high}")

    @property
    def branches(self) -> int:
        """Guidance branches: two where the rows can be split so, else one."""
        return 2 if self.rows % 2 == 0 else 1

    @property
    def middle(self) -> int:
        """Positions a row has at the median token that is timed."""
        return self.positions + WARM_UP + self.runs * self.tokens // 2

    @property
    def last(self) -> int:
        """Positions a row has in the end."""
        return self.positions + WARM_UP + self.runs * self.tokens

    def fits(self, config: Any) -> None:
        """Raises `InvalidRequest` where the model has fewer positions."""
        if self.last > config.max_position_embeddings:
            raise InvalidRequest(
                f"{self.positions} positions and {self.last - self.positions} tokens exceed the model's "
                f"{config.max_position_embeddings}: give fewer --positions or --tokens"
            )

    def settings(self) -> dict[str, int]:
        """As results keep it."""
        return {"rows": self.rows, "steps": self.steps, "positions": self.positions, "tokens": self.tokens}


def begin(engine: Any, load: Load) -> tuple[SamplingParams, range]:
    """Prefills the prompt; returns how its tokens are sampled, and the images' seeds."""
    shape = (load.rows, load.positions, engine.config.hidden_size)
    embeds = np.random.default_rng(SEED).standard_normal(shape).astype(np.float32)
    count = load.last - load.positions
    engine.prefill(embeds, max_new_tokens=count)
    params = SamplingParams(
        num_tokens=count, num_inference_steps=load.steps, guidance_scale=3.0, branches=load.branches
    )
    return params, range(SEED, SEED + load.rows // load.branches)


def token_times(engine: Any, load: Load) -> list[float]:
    """Seconds of each token after the warm-up, of an engine or of whatever has its prefill and decode."""
    params, seeds = begin(engine, load)
    stamps = [time.perf_counter()]
    engine.decode(params, seeds=seeds, callback=lambda *_: stamps.append(time.perf_counter()))
    return [b - a for a, b in pairwise(stamps)][WARM_UP:]


def token_seconds(engine: Any, load: Load) -> float:
    """Median seconds of a token of one run."""
    return statistics.median(token_times(engine, load))


def runs_after_prefill(engine: Any, load: Load) -> Callable[[], float]:
    """Prefills once, and returns a function that makes `tokens` more tokens: their median seconds.

    Good for `runs` calls. What a long prompt's prefill takes would be lost in each repeat otherwise.
    """
    params, seeds = begin(engine, load)
    engine.decode(params, WARM_UP, seeds=seeds)

    def run() -> float:
        stamps = [time.perf_counter()]
        engine.decode(params, load.tokens, seeds=seeds, callback=lambda *_: stamps.append(time.perf_counter()))
        return statistics.median(b - a for a, b in pairwise(stamps))

    return run


def stage_times(engine: Any, load: Load) -> dict[str, float]:
    """Mean seconds of each stage per token, over the tokens of one run after its warm-up."""
    params, seeds = begin(engine, load)
    engine.decode(params, WARM_UP, seeds=seeds)
    engine.profile(True)
    try:
        engine.decode(params, load.tokens, seeds=seeds)
        found = native.stage_seconds(engine)
    finally:
        engine.profile(False)
    return {name: seconds / load.tokens for name, seconds in found.items()}


def whole(words: str, flag: str) -> tuple[int, ...]:
    """Numbers with commas between, as an axis is given. Raises `InvalidRequest` naming the flag."""
    parts = [part.strip() for part in words.split(",") if part.strip()]
    if not parts or not all(part.isascii() and part.isdigit() and 0 < len(part) < 9 and int(part) for part in parts):
        raise InvalidRequest(f"{flag} is {words!r}: give whole numbers above 0 with commas between, e.g. {flag} 1,2,4")
    return tuple(dict.fromkeys(int(part) for part in parts))


def chosen(words: str, flag: str, known: Sequence[str]) -> tuple[str, ...]:
    """Names with commas between. Raises `InvalidRequest` naming the flag and what is known."""
    parts = tuple(dict.fromkeys(part.strip() for part in words.split(",") if part.strip()))
    wrong = [part for part in parts if part not in known]
    if wrong or not parts:
        raise InvalidRequest(f"{flag} is {words!r}: give one or more of {', '.join(known)}, commas between")
    return parts
