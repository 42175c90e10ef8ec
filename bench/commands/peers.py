"""`peers`: the native loop, or its backbone alone, against others on the same weights, in turn in one run.

Of each peer a result keeps: name, what, scope ("token" or "backbone"; older results know tokens only), version, and
either missing (why it was not run) or how, caveat (why it is no fair peer, or null), pinned, a (native), b (the peer)
and ratio (b / a).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import typer

from nextstep_rt import Error

from .. import options as o
from ..loop import Load, chosen, token_seconds
from ..measure import MAX_SPREAD, Policy, paired
from ..peers import REGISTRY, Peer, Runner, find
from ..peers.backbone import Scope, backbone_seconds
from ..peers.workers import workers_of
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
    """Time per image token, or its backbone step: native and others on the same weights, alternated in one run."""
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
    """Pairs of runs with each of the others; those that cannot run here are named with the reason.

    Each is held against the same part of the native loop. Raises `Error` where none of them can run.
    """
    engine, workers = threads_of(lambda: subject.engine(threads))
    longer = replace(asked, tokens=MORE * asked.tokens)
    native: dict[Scope, Callable[[], float]] = {
        "token": on_cores(lambda: token_seconds(engine, longer), workers, pin),
        "backbone": on_cores(lambda: backbone_seconds(engine, asked), workers, pin),
    }
    found: list[dict[str, Any]] = []
    for peer in others:
        told = {"name": peer.NAME, "what": peer.WHAT, "scope": peer.SCOPE, "version": peer.version()}
        if (reason := peer.missing(subject)) is not None:
            found.append({**told, "missing": reason})
        else:
            found.append({**told, **pairs_with(peer.prepare(subject, threads), native[peer.SCOPE], asked, policy, pin)})
    if all("missing" in one for one in found):
        raise Error("nothing to measure: " + "; ".join(f"{one['what']}: {one['missing']}" for one in found))
    return {"backend": engine.backend, "weights": subject.what, "peers": found}


def pairs_with(runner: Runner, native: Callable[[], float], asked: Load, policy: Policy, pin: bool) -> dict[str, Any]:
    """Pairs of runs of the native loop and of one other."""

    def run() -> float:
        return runner.token_seconds(asked)

    run()  # compiles, and starts the threads
    theirs = workers_of(run)
    # A library may start helpers beside its workers: then which is which cannot be told, and none is pinned.
    own = len(theirs) == runner.threads - 1
    pair = paired(native, on_cores(run, theirs, pin and own), policy.repeats, policy.max_spread, policy.warmup)
    return {"how": runner.how, "caveat": runner.caveat, "pinned": pin and own, **pair.to_json()}


def on_cores(run: Callable[[], float], workers: tuple[int, ...], pin: bool) -> Callable[[], float]:
    """The same function, with its threads on a core each while it runs."""

    def within() -> float:
        with pinned(workers, pin):
            return run()

    return within
