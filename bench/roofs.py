"""The machine's roofs, measured: bandwidth at several sizes, operations per second, exchanges.

A roof is the best of its repeats: it is what the machine can do at most. Whether it may be claimed is for the spread of
all repeats to say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from . import native
from .environment import caches, last_cache
from .floor import Roofs
from .measure import Policy, Sample
from .pinning import limited

T = TypeVar("T")

FROM_MEMORY = 4  # an array this many times the last cache is read from memory
SMALLEST = 16 << 10


def places(threads: int, largest: int | None = None) -> dict[int, str]:
    """Bytes of the arrays to read, and where they live: half and three quarters of each cache, and beyond the last."""
    end = FROM_MEMORY * last_cache() if largest is None else largest
    found: dict[int, str] = {}
    for cache in caches():
        reach = cache["bytes"] * max(1, -(-threads // cache["cores"]))
        found |= {reach // 2: f"1/2 of L{cache['level']}", 3 * reach // 4: f"3/4 of L{cache['level']}"}
    return {size: place for size, place in sorted(found.items()) if size < end} | {end: "beyond the caches"}


def sizes(threads: int, largest: int | None = None) -> list[int]:
    """The sizes of `places`."""
    return list(places(threads, largest))


@dataclass(frozen=True)
class Measured:
    """Roofs with every repeat they come from."""

    threads: int
    dtype: str
    reads: dict[int, Sample]  # bytes -> seconds
    flops: Sample  # operations per second
    barrier: Sample
    wake: Sample

    def joined(self, other: Measured) -> Measured:
        """Of two measurements, e.g. before and after something: all repeats of both."""

        def both(a: Sample, b: Sample) -> Sample:
            return Sample(a.values + b.values, a.max_spread)

        reads = {size: both(sample, other.reads[size]) for size, sample in self.reads.items()}
        pairs = ((self.flops, other.flops), (self.barrier, other.barrier), (self.wake, other.wake))
        return Measured(self.threads, self.dtype, reads, *(both(a, b) for a, b in pairs))

    @property
    def roofs(self) -> Roofs:
        """The best of the repeats; steady where bandwidths, operations and barriers are."""
        reads = tuple((size, size / min(sample.values)) for size, sample in self.reads.items())
        steady = all(sample.steady for sample in (*self.reads.values(), self.flops, self.barrier))
        return Roofs(
            reads, max(self.flops.values), min(self.barrier.values), min(self.wake.values), last_cache(), steady
        )

    def to_json(self) -> dict[str, Any]:
        """The roofs, and their samples."""
        return {
            "threads": self.threads,
            "dtype": self.dtype,
            "roofs": self.roofs.to_json(),
            "reads": [
                {"name": f"{size} bytes", "bytes": size, "seconds": sample.to_json()}
                for size, sample in self.reads.items()
            ],
            "flops": self.flops.to_json(),
            "barrier": self.barrier.to_json(),
            "wake": self.wake.to_json(),
        }


def measure_roofs(threads: int, dtype: str, policy: Policy, at: Sequence[int] | None = None) -> Measured:
    """The roofs of so many threads, reading arrays of the sizes `at` (bytes), or of those that `sizes` names."""
    with limited(threads):
        reads = {
            size: policy.collect(lambda size=size: native.read_seconds(size, threads))  # type: ignore[misc]
            for size in sorted(set(at or sizes(threads)))
        }
        return Measured(
            threads,
            dtype,
            reads,
            policy.collect(lambda: native.peak_flops(dtype, threads)),
            policy.collect(lambda: native.barrier_seconds(threads)),
            policy.collect(lambda: native.wake_seconds(threads)),
        )


def needed_sizes(different: Sequence[int], largest: int | None = None) -> list[int]:
    """Sizes at which a floor asks for a bandwidth: the stages' own bytes, all of them, and memory."""
    end = FROM_MEMORY * last_cache() if largest is None else largest
    wanted = {size for size in (*different, sum(different)) if size > 0}
    return sorted({min(end, max(SMALLEST, size)) for size in wanted} | {end})


def beside(threads: int, dtype: str, policy: Policy, at: Sequence[int], work: Callable[[], T]) -> tuple[T, Measured]:
    """What `work` returns, and the roofs measured right before and right after it.

    A shared machine's bandwidth moves: what is compared with a roof must have met the same minutes.
    """
    before = measure_roofs(threads, dtype, policy, at)
    done = work()
    return done, before.joined(measure_roofs(threads, dtype, policy, at))
