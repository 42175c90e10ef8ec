"""Others that run the same model, one module each: `peers` measures the native loop against them.

A module has NAME, WHAT (one line), SCOPE, missing(subject) (why it cannot run here, or None), version() (or None) and
prepare(subject, threads), which returns a `Runner` on the same weights. A new one is added to REGISTRY.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from nextstep_rt import InvalidRequest

from ..loop import Load
from ..subject import Subject
from . import compiled, eager, llama
from .backbone import Scope


class Runner(Protocol):
    """A loaded model that can be timed.

    threads: that it computes with; how: the choices that its speed hangs on, in a few words; caveat: why it is no fair
    peer here; None: nothing to say.
    """

    threads: int
    how: str | None
    caveat: str | None

    def token_seconds(self, load: Load) -> float:
        """Seconds of a token, or of its backbone step, of one run: the median, or the mean for the backbone."""
        ...


class Peer(Protocol):
    """What a module of this package has."""

    NAME: str
    WHAT: str
    SCOPE: Scope

    def missing(self, subject: Subject) -> str | None:
        """Why it cannot run here, or not this model, and the way out; None where it can."""
        ...

    def version(self) -> str | None:
        """Of what it runs on."""
        ...

    def prepare(self, subject: Subject, threads: int) -> Runner:
        """The subject's weights, loaded, on so many threads. Raises `Error` where they cannot be loaded."""
        ...


REGISTRY: Mapping[str, Peer] = MappingProxyType({peer.NAME: peer for peer in (eager, compiled, llama)})


def find(name: str) -> Peer:
    """The peer of that name. Raises `InvalidRequest` for an unknown one."""
    if name not in REGISTRY:
        raise InvalidRequest(f"unknown peer {name!r}: known are {', '.join(REGISTRY)}")
    return REGISTRY[name]
