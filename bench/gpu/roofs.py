"""The device's roofs: bandwidth of copies and reads, and the cost of launches."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch

from .figures import Figures

BYTES = 4 << 30
REPEATS = 12


def best_ms(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """The shortest of several runs in ms, by events."""
    work()
    times: list[float] = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return min(times)


def bandwidths(figures: Figures, size: int = BYTES) -> None:
    """GB/s of a copy (bytes read and written), and of kernels that read and write next to nothing."""
    source = torch.ones(size // 4, device="cuda")
    target = torch.empty_like(source)
    figures.put("copy_gbs", round(2 * size / best_ms(lambda: target.copy_(source)) / 1e6, 1))
    halves = source.view(torch.bfloat16)[: size // 2].view(-1, 8192)
    vector = torch.ones(8192, dtype=torch.bfloat16, device="cuda")
    kernels: dict[str, Callable[[], object]] = {
        "sum of float32": source.sum,
        "maximum of float32": source.amax,
        "bfloat16 matrix times vector": lambda: torch.mv(halves, vector),
    }
    figures.put("bytes", size)
    reads: dict[str, float] = {}
    for name, work in kernels.items():
        reads[name] = round(size / best_ms(work) / 1e6, 1)
        figures.put("reads_gbs", reads)
        figures.put("read_gbs", max(reads.values()))


def graph_of(works: Sequence[Callable[[], object]]) -> torch.cuda.CUDAGraph:
    """All works, one after another, without Python between them; the first runs once before."""
    works[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for work in works:
            work()
    return graph


def launches(figures: Figures, kernels: int = 246) -> None:
    """Microseconds from a graph's launch until the host knows of its end, and of one more kernel in it."""
    x, times = torch.zeros(1, device="cuda"), {}
    for n in (1, kernels):
        graph, seconds = graph_of([lambda: x.add_(1)] * n), []
        for _ in range(200):
            begin = time.perf_counter()
            graph.replay()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
        times[n] = 1e6 * statistics.median(seconds[20:])
    figures.put("graph_of_one_kernel_us", round(times[1], 2))
    figures.put("kernel_in_graph_us", round((times[kernels] - times[1]) / (kernels - 1), 3))


def measure(figures: Figures) -> None:
    """All roofs."""
    bandwidths(figures)
    launches(figures)
