"""torch, eagerly: the reference backend, which computes a token's modulations in one product."""

from __future__ import annotations

from nextstep_rt.reference import ReferenceEngine

from ..loop import Load, token_seconds
from ..subject import Subject
from .backbone import Scope

NAME = "reference"
WHAT = 'torch, eager (backend="reference")'
SCOPE: Scope = "token"


def missing(subject: Subject) -> str | None:
    """Nothing: torch is a dependency of the package, and the reference knows every model."""
    return None


def version() -> str | None:
    """Of torch."""
    import torch

    return str(torch.__version__)


class Eager:
    """The reference engine."""

    how: str | None = None
    caveat: str | None = None

    def __init__(self, subject: Subject, threads: int) -> None:
        self.threads = threads
        self.engine = ReferenceEngine(subject.config, subject.weights, dtype=subject.dtype, threads=threads)

    def token_seconds(self, load: Load) -> float:
        """Median seconds of a token of one run."""
        return token_seconds(self.engine, load)


def prepare(subject: Subject, threads: int) -> Eager:
    """Borrows the weights."""
    return Eager(subject, threads)
