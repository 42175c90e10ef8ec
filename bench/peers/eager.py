"""torch, eagerly: the reference backend, which computes a token's modulations in one product."""

from __future__ import annotations

from nextstep_rt.reference import ReferenceEngine

from ..loop import Load, token_seconds
from ..subject import Subject

NAME = "reference"
WHAT = 'torch, eager (backend="reference")'


def missing() -> str | None:
    """Nothing: torch is a dependency of the package."""
    return None


def version() -> str | None:
    """Of torch."""
    import torch

    return str(torch.__version__)


class Eager:
    """The reference engine."""

    def __init__(self, subject: Subject, threads: int) -> None:
        self.engine = ReferenceEngine(subject.config, subject.weights, dtype=subject.dtype, threads=threads)

    def token_seconds(self, load: Load) -> float:
        """Median seconds of a token of one run."""
        return token_seconds(self.engine, load)


def prepare(subject: Subject, threads: int) -> Eager:
    """Borrows the weights."""
    return Eager(subject, threads)
