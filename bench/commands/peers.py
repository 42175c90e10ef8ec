"""`peers`: the native loop against others on the same weights, in turn in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import typer

from .. import options as o
from ..loop import Load, chosen, token_seconds
from ..measure import MAX_SPREAD, Policy, paired
from ..peers import REGISTRY, Peer, find
from ..pinning import pinned, threads_of
from ..subject import Subject, check_dtype, load
from ..subject import find as find_shape

ALL = ",".join(REGISTRY)
MORE = 3  # times as many tokens in each run of the native loop, which is quicker
Against = Annotated[str, typer.Option(help=f"Of {', '.join(REGISTRY)}, commas between; default all.")]


def peers(
    synthetic: o.Synthetic = None,
    model: o.Model = None,
    against: Against = ALL,
    dtype: o.Dtype = "bfloat16",
    rows: o.Rows = 2,
    steps: o.Steps = 20,
    positions: o.Positions = 32,
    tokens: o.Tokens = 8,
    threads: o.Threads = None,
    repeats: o.Repeats = 5,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    pin: o.Pin = True,
    out: o.Out = None,
    plot: o.Plot = False,
) -> None:
    """Time per image token: the native loop against others on the same weights, alternated in one run."""
    asked, policy = Load(rows, steps, positions, tokens), Policy(repeats, warmup, max_spread)
    replace(asked, tokens=MORE * tokens).fits((shape := find_shape(synthetic or (), model)).config)
    names = chosen(against, "--against", tuple(REGISTRY))
    count = o.thread_count(threads)
    subject = load(shape, check_dtype(dtype))
    data = measure(subject, asked, [find(name) for name in names], count, policy, pin)
    settings = {
        "model": subject.name, "dtype": dtype, **asked.settings(), "threads": count, "repeats": repeats,
        "max_spread": max_spread, "pin": pin,
    }  # fmt: skip
    o.Ending(out, plot, allow_unsteady)("peers", settings, data)


def measure(
    subject: Subject, asked: Load, others: list[Peer], threads: int, policy: Policy, pin: bool
) -> dict[str, Any]:
    """Pairs of runs with each of the others; those that cannot run here are named with the reason."""
    engine, workers = threads_of(lambda: subject.engine(threads))
    longer = replace(asked, tokens=MORE * asked.tokens)
    native = on_cores(lambda: token_seconds(engine, longer), workers, pin)
    found: list[dict[str, Any]] = []
    for peer in others:
        told: dict[str, Any] = {"name": peer.NAME, "what": peer.WHAT, "version": peer.version()}
        if (reason := peer.missing()) is not None:
            found.append({**told, "missing": reason})
            continue

        def ready(peer: Peer = peer) -> Callable[[], float]:
            runner = peer.prepare(subject, threads)
            runner.token_seconds(asked)  # libraries start their threads with the first work
            return lambda: runner.token_seconds(asked)

        run, theirs = threads_of(ready)
        # A library may start helpers beside its workers: then which is which cannot be told, and none is pinned.
        own = len(theirs) == threads - 1
        pair = paired(native, on_cores(run, theirs, pin and own), policy.repeats, policy.max_spread, policy.warmup)
        found.append({**told, "pinned": pin and own, **pair.to_json()})
    return {"backend": engine.backend, "weights": subject.what, "peers": found}


def on_cores(run: Callable[[], float], workers: tuple[int, ...], pin: bool) -> Callable[[], float]:
    """The same function, with its threads on a core each while it runs."""

    def within() -> float:
        with pinned(workers, pin):
            return run()

    return within
