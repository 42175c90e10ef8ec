"""The least time a token can take on a machine whose roofs were measured. Pure arithmetic: nothing here measures.

A stage reads `unique` bytes for the first time in a token and the rest of its `bytes` again. What is read for the first
time comes from wherever the whole token's bytes live: from memory where they exceed the last cache, since the token
before has driven them out. What is read again comes from wherever the stage's own bytes live. Each level's bandwidth is
that measured at such a size with the same number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from nextstep_rt import InvalidRequest

REFUTED = 1.05  # times the fastest measured: a floor above that is none


@dataclass(frozen=True)
class Roofs:
    """What a machine can do at most with some number of threads.

    reads: (bytes of the array, bytes per second) by size; flops: operations per second in the weights' dtype; barrier:
    seconds of one exchange among the threads; wake: seconds to wake them and wait for them; llc: bytes of the last
    cache; steady: whether all of them were.
    """

    reads: tuple[tuple[int, float], ...]
    flops: float
    barrier: float = 0.0
    wake: float = 0.0
    llc: int = 0
    steady: bool = True

    def __post_init__(self) -> None:
        if not self.reads or any(size <= 0 or rate <= 0 for size, rate in self.reads):
            raise InvalidRequest("roofs need a bandwidth above 0 at one size at least")
        if self.flops <= 0 or self.barrier < 0 or self.wake < 0:
            raise InvalidRequest("roofs need operations per second above 0, and no negative time")
        object.__setattr__(self, "reads", tuple(sorted(self.reads)))

    def bandwidth(self, size: float) -> float:
        """Bytes per second of reading `size` bytes again and again: log-linear in size, flat beyond the measured."""
        at = math.log(max(size, 1.0))
        points = [(math.log(s), math.log(rate)) for s, rate in self.reads]
        if at <= points[0][0]:
            return self.reads[0][1]
        for (s0, r0), (s1, r1) in pairwise(points):
            if at <= s1:
                return math.exp(r0 + (r1 - r0) * (at - s0) / (s1 - s0))
        return self.reads[-1][1]

    @property
    def memory(self) -> float:
        """Bytes per second of the largest array measured."""
        return self.reads[-1][1]

    def to_json(self) -> dict[str, Any]:
        """What results keep."""
        return {
            "reads": [{"bytes": size, "bytes_per_second": rate} for size, rate in self.reads],
            "flops": self.flops,
            "barrier_seconds": self.barrier,
            "wake_seconds": self.wake,
            "llc_bytes": self.llc,
            "steady": self.steady,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Roofs:
        """The roofs in a result. Raises `InvalidRequest` where one is missing or no number."""
        try:
            reads = tuple((int(read["bytes"]), float(read["bytes_per_second"])) for read in value["reads"])
            flops, barrier, wake = (float(value[key]) for key in ("flops", "barrier_seconds", "wake_seconds"))
            return cls(reads, flops, barrier, wake, int(value["llc_bytes"]), bool(value["steady"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(f"the roofs in the result cannot be read: {error}") from None


@dataclass(frozen=True)
class Stage:
    """What a stage of a token must do: bytes read in all, the different ones among them, operations, exchanges."""

    bytes: int = 0
    flops: int = 0
    exchanges: int = 0
    unique: int | None = None  # None: all of them

    @property
    def different(self) -> int:
        """Bytes read for the first time."""
        return self.bytes if self.unique is None else min(self.unique, self.bytes)


@dataclass(frozen=True)
class Floor:
    """The least seconds of a stage, by each bound, and which binds: memory, cache, compute, exchange or none."""

    seconds: float
    bound: str
    bounds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """What results keep."""
        return {"seconds": self.seconds, "bound": self.bound, "bounds": self.bounds}


def stage_floor(stage: Stage, roofs: Roofs, token_bytes: int) -> Floor:
    """The floor of one stage of a token that reads `token_bytes` different bytes in all."""
    first = stage.different / roofs.bandwidth(max(token_bytes, stage.different))
    again = (stage.bytes - stage.different) / roofs.bandwidth(stage.different)
    bounds = {"read": first + again, "compute": stage.flops / roofs.flops, "exchange": stage.exchanges * roofs.barrier}
    name = max(bounds, key=lambda key: bounds[key])
    bound = name
    if bounds[name] == 0:
        bound = "none"
    elif name == "read":
        bound = "memory" if first >= again and token_bytes > roofs.llc else "cache"
    return Floor(bounds[name], bound, bounds)


def token_floors(stages: Mapping[str, Stage], roofs: Roofs) -> dict[str, Floor]:
    """The floor of every stage of a token; its sum is the token's, since a stage needs what the one before it made."""
    size = sum(stage.different for stage in stages.values())
    return {name: stage_floor(stage, roofs, size) for name, stage in stages.items()}


def token_floor(stages: Mapping[str, Stage], roofs: Roofs) -> float:
    """The least seconds of a token: its stages, and waking the threads once."""
    return sum(floor.seconds for floor in token_floors(stages, roofs).values()) + roofs.wake


def claimed_floor(stages: Mapping[str, Stage], roofs: Roofs, fastest: float) -> float | None:
    """The token's floor; None where the roofs are unsteady, or refuted by a token of `fastest` seconds below it.

    Such roofs met a busier machine than the loop did: they are not what it can do at most.
    """
    floor = token_floor(stages, roofs)
    return floor if roofs.steady and floor <= REFUTED * fastest else None


def op_floor(size: int, flops: int, roofs: Roofs, resident: int | None = None) -> float:
    """The least seconds of one op that reads `size` bytes; `resident`: of how many bytes they are a part, or all."""
    return max(size / roofs.bandwidth(size if resident is None else resident), flops / roofs.flops)
