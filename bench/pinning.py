"""Threads on cores: one each while times are taken, and what was before when they have been."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from nextstep_rt import Error

T = TypeVar("T")

TASKS = Path("/proc/self/task")
TOPOLOGY = Path("/sys/devices/system/cpu")


def usable_cores() -> list[int]:
    """Cores this thread may run on; one of each physical core first, so that few threads do not share one."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))
    seen: set[str] = set()
    first: list[int] = []
    rest: list[int] = []
    for core in allowed:
        try:
            siblings = (TOPOLOGY / f"cpu{core}/topology/thread_siblings_list").read_text(encoding="ascii").strip()
        except OSError:
            siblings = str(core)
        (rest if siblings in seen else first).append(core)
        seen.add(siblings)
    return first + rest


def thread_ids() -> set[int]:
    """Ids of this process's threads as the kernel knows them; empty where there is no /proc."""
    try:
        return {int(name) for name in os.listdir(TASKS)}
    except OSError:
        return set()


def threads_of(make: Callable[[], T]) -> tuple[T, tuple[int, ...]]:
    """What `make` returns, and the threads that it started and left running."""
    before = thread_ids()
    made = make()
    return made, tuple(sorted(thread_ids() - before))


@contextmanager
def pinned(workers: Sequence[int] = (), on: bool = True) -> Iterator[bool]:
    """Within this the calling thread and the threads `workers` run on one core each; undone after.

    Yields False, and pins nothing, where `on` is False, there are more threads than cores, or the system knows no
    affinity. Threads started within would inherit the caller's single core: start them before.
    """
    cores = usable_cores()
    threads = [0, *workers]
    if not on or len(threads) > len(cores):
        yield False
        return
    kept: list[tuple[int, set[int]]] = []
    try:
        for thread, core in zip(threads, cores, strict=False):
            kept.append((thread, os.sched_getaffinity(thread)))
            os.sched_setaffinity(thread, {core})
    except OSError as error:
        _restore(kept)
        raise Error(f"a thread could not be pinned to its core ({error}); run it with --no-pin") from None
    try:
        yield True
    finally:
        _restore(kept)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Within this the calling thread, and every thread it starts, keeps to so many cores; undone after."""
    cores = usable_cores()
    if not 0 < threads < len(cores):
        yield
        return
    kept = [(0, os.sched_getaffinity(0))]
    os.sched_setaffinity(0, set(cores[:threads]))
    try:
        yield
    finally:
        _restore(kept)


def _restore(kept: Sequence[tuple[int, set[int]]]) -> None:
    for thread, cores in kept:
        try:
            os.sched_setaffinity(thread, cores)
        except ProcessLookupError:  # it has ended meanwhile
            continue
