"""Which threads work for a library: those that run while it does."""

from __future__ import annotations

import threading
from collections.abc import Callable

from ..pinning import TASKS, thread_ids

BUSY = 0.1  # of the time of the busiest thread: who ran for less of it did something else


def cpu_seconds(thread: int) -> float:
    """Seconds that a thread of this process has been on a core; 0 where the system does not tell, or it has ended."""
    try:
        return 1e-9 * int((TASKS / str(thread) / "schedstat").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0


def workers_of(run: Callable[[], object]) -> tuple[int, ...]:
    """Threads other than the caller's that were on a core during a call of `run`, and live on.

    Libraries share pools (one OpenMP serves all who link to it), so who started a thread does not say whom it serves.
    """
    before = {thread: cpu_seconds(thread) for thread in thread_ids()}
    run()
    spent = {thread: cpu_seconds(thread) - before.get(thread, 0.0) for thread in thread_ids()}
    least = BUSY * max(spent.values(), default=0.0)
    return tuple(sorted(t for t, seconds in spent.items() if seconds > least and t != threading.get_native_id()))
