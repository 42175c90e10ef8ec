"""`roofline`: what this machine reads, copies and computes at most, by size and number of threads."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import native
from .. import options as o
from ..environment import last_cache
from ..loop import whole
from ..measure import MAX_SPREAD, Policy
from ..pinning import limited
from ..roofs import FROM_MEMORY, places
from ..subject import DTYPES

Counts = Annotated[
    str | None,
    typer.Option("--threads", help="Numbers of threads, commas between; default 1, 2, 4, ... and all cores."),
]
Largest = Annotated[
    int | None, typer.Option(help="MiB of the largest array; default 4 times the last cache: read from memory.")
]


def roofline(
    threads: Counts = None,
    largest: Largest = None,
    repeats: o.Repeats = 7,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    out: o.Out = None,
    plot: o.Plot = False,
) -> None:
    """Read and copy bandwidth from each cache and from memory, peak FLOP/s, barriers, per number of threads."""
    policy = Policy(repeats, warmup, max_spread)
    counts = doubling(o.thread_count(None)) if threads is None else whole(threads, "--threads")
    end = FROM_MEMORY * last_cache() if largest is None else whole(str(largest), "--largest")[0] << 20
    data = {"runs": [measure(o.thread_count(count), policy, end) for count in counts]}
    settings = {"threads": list(counts), "largest_bytes": end, "repeats": repeats, "max_spread": max_spread}
    o.Ending(out, plot, allow_unsteady)("roofline", settings, data)


def doubling(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most`."""
    counts = {1 << i for i in range(most.bit_length())} | {most}
    return tuple(sorted(counts))


def measure(threads: int, policy: Policy, largest: int) -> dict[str, Any]:
    """All roofs of so many threads. A copy of n bytes reads n and writes n."""

    def at(size: int, place: str, seconds: Any) -> dict[str, Any]:
        sample = policy.collect(lambda: seconds(size, threads))
        return {"name": place, "bytes": size, "seconds": sample.to_json()}

    with limited(threads):
        return {
            "name": f"{threads} threads",
            "threads": threads,
            "reads": [at(size, place, native.read_seconds) for size, place in places(threads, largest).items()],
            # Half the size: both arrays of a copy are as large as what is read.
            "copies": [at(size // 2, place, native.copy_seconds) for size, place in places(threads, largest).items()],
            "flops": {
                dtype: policy.collect(lambda dtype=dtype: native.peak_flops(dtype, threads)).to_json()  # type: ignore[misc]
                for dtype in DTYPES
                if dtype == "float32" or native.has_bf16_products()
            },
            "barrier": policy.collect(lambda: native.barrier_seconds(threads)).to_json(),
            "wake": policy.collect(lambda: native.wake_seconds(threads)).to_json(),
        }
