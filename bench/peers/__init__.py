"""Others that run the same model, one module each: `peers` measures the native loop against them.

A module has NAME and WHAT (one line), missing() (why it cannot run here, or None), version() (or None) and
prepare(subject, threads), which returns a `Runner` on the same weights. A new one is added to REGISTRY.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from nextstep_rt import InvalidRequest

from ..loop import Load
from ..subject import Subject
from . import eager


class Runner(Protocol):
    """A loaded model that can be timed."""

    def token_seconds(self, load: Load) -> float:
        """Median seconds of a token of one run."""
        ...


class Peer(Protocol):
    """What a module of this package has."""

    NAME: str
    WHAT: str

    def missing(self) -> str | None:
        """Why it cannot run here; None where it can."""
        ...

    def version(self) -> str | None:
        """Of what it runs on."""
        ...

    def prepare(self, subject: Subject, threads: int) -> Runner:
        """The subject's weights, loaded, on so many threads."""
        ...


REGISTRY: Mapping[str, Peer] = MappingProxyType({peer.NAME: peer for peer in (eager,)})


def find(name: str) -> Peer:
    """The peer of that name. Raises `InvalidRequest` for an unknown one."""
    if name not in REGISTRY:
        raise InvalidRequest(f"unknown peer {name!r}: known are {', '.join(REGISTRY)}")
    return REGISTRY[name]
