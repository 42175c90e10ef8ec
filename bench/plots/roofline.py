"""Bandwidth against size, and ops under the roofs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..floor import Roofs
from ..results import Record
from .style import LINES, MARKS, median, new_figure, quiet, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KIB, MIB = 1 << 10, 1 << 20


def size_label(value: float, _: Any = None) -> str:
    """Bytes in KiB, MiB or GiB."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", MIB), ("KiB", KIB)):
        if value >= factor:
            return f"{value / factor:g} {unit}"
    return f"{value:g} B"


def bandwidths(record: Record) -> Figure | None:
    """GB/s of reading and copying against the array's size, a line a number of threads, the caches' ends marked."""
    from matplotlib.ticker import FuncFormatter

    figure = new_figure(9, 4)
    drawn = False
    for axes, kind, factor in zip(figure.subplots(1, 2, sharey=True), ("reads", "copies"), (1, 2), strict=True):
        for i, run in enumerate(record["data"]["runs"]):
            found = [(one["bytes"], median(one["seconds"])) for one in run[kind]]
            points = [(size, factor * size / seconds / 1e9) for size, seconds in found if seconds]
            if points:
                label = f"{run['threads']} thread" + ("s" if run["threads"] > 1 else "")
                axes.plot(*zip(*points, strict=True), marker=MARKS[i % 8], color=LINES[i % 8], label=label)
                drawn = True
        axes.set_xscale("log", base=2)
        axes.set_xticks([1 << 14, 1 << 18, 1 << 22, 1 << 26, 1 << 30])
        axes.margins(x=0.08, y=0.12)
        axes.xaxis.set_major_formatter(FuncFormatter(size_label))
        axes.set_xlabel("bytes of the array" if factor == 1 else "bytes of each of the two arrays")
        axes.set_title("read" if factor == 1 else "copy (bytes read and written)", fontsize=9)
        low, high = 1 << 12, max((one["bytes"] for run in record["data"]["runs"] for one in run["reads"]), default=0)
        axes.set_xlim(low, 2 * high)
        for cache in record["machine"].get("caches") or ():
            if low < cache["bytes"] < high:
                axes.axvline(cache["bytes"], color="#bbbbbb", linestyle=":", linewidth=1)
                axes.annotate(
                    f"L{cache['level']}", (cache["bytes"], 1), xycoords=("data", "axes fraction"), xytext=(-3, -3),
                    textcoords="offset points", ha="right", va="top", fontsize=8, color="#777777",
                )  # fmt: skip
        quiet(axes)
        if factor == 1:
            axes.set_ylabel("GB/s")
            axes.set_ylim(bottom=0)
        elif drawn:
            axes.legend(fontsize=8)
    title(figure, record, "Bandwidth by size; dotted: one core's caches")
    return figure if drawn else None


def kernels(record: Record) -> Figure | None:
    """GFLOP/s of each op against its operations per byte, under the roofs: a colour an op, a mark a group."""
    groups = record["data"]["groups"]
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    figure = new_figure(9, 5.5)
    axes = figure.subplots()
    tab20 = colormaps["tab20"]
    palette = [to_hex(tab20(i)) for i in (*range(0, 20, 2), *range(1, 20, 2))]
    colours: dict[str, str] = {}
    drawn = False
    for g, group in enumerate(groups):
        for one in group["ops"]:
            seconds = median(one["seconds"])
            if not seconds or not one["flops"]:
                continue
            colour = colours.setdefault(one["op"], palette[len(colours) % len(palette)])
            axes.plot(
                one["flops"] / one["bytes"], one["flops"] / seconds / 1e9, MARKS[g % 8], color=colour, markersize=5,
                linestyle="none",
            )  # fmt: skip
            drawn = True
    if not drawn:
        return None
    lines = _roofs(axes, groups[0]["roofs"]["roofs"])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte")
    axes.set_ylabel("GFLOP/s")
    quiet(axes)
    _legends(figure, lines, colours, [group["name"] for group in groups[:8]])
    title(figure, record, f"Ops under the roofs, {record['settings']['dtype']}")
    return figure


def _roofs(axes: Any, value: dict[str, Any]) -> list[Any]:
    """The slopes of memory and of the fastest cache up to the peak; returns the lines."""
    roofs = Roofs.from_json(value)
    low, high = axes.get_xlim()
    low, high = max(low, 1e-2), max(high, 2 * roofs.flops / roofs.memory)
    lines = []
    fastest = max(rate for _, rate in roofs.reads)
    for rate, name, style in ((roofs.memory, "memory", "-"), (fastest, "fastest cache", "--")):
        knee = roofs.flops / rate
        xs = [low, knee, high] if low < knee < high else [low, high]
        ys = [min(roofs.flops, rate * x) / 1e9 for x in xs]
        lines += axes.plot(
            xs, ys, color="#555555", linewidth=1, linestyle=style, label=f"{name}, {rate / 1e9:.3g} GB/s"
        )
    axes.annotate(
        f"peak {roofs.flops / 1e9:.3g} GFLOP/s", (high, roofs.flops / 1e9), xytext=(0, 4), textcoords="offset points",
        fontsize=8, color="#555555", ha="right",
    )  # fmt: skip
    return lines


def _legends(figure: Any, lines: list[Any], colours: dict[str, str], groups: list[str]) -> None:
    """Ops by colour and groups by mark, beside the plot."""
    from matplotlib.lines import Line2D

    ops = [Line2D([], [], marker="o", color=colour, linestyle="none", label=op) for op, colour in colours.items()]
    marks = [
        Line2D([], [], marker=MARKS[i], color="#444444", linestyle="none", label=name) for i, name in enumerate(groups)
    ]
    figure.legend(handles=[*lines, *marks, *ops], loc="outside right upper", fontsize=8)
