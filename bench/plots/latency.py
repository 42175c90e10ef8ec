"""Latency along an axis, with the floor of the cost model under it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..results import Record
from .stages import bars
from .style import FLOOR, LINES, case, median, new_figure, quiet, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LABELS = {
    "rows": "rows (images x guidance branches)",
    "positions": "positions of the prompt",
    "threads": "threads",
    "model": "model",
}


def axes(record: Record) -> Figure | None:
    """A panel an axis: measured with its range, and the floor."""
    panels = [(axis["name"], _points(axis)) for axis in record["data"]["axes"]]
    panels = [(name, points) for name, points in panels if points]
    if not panels:
        return None
    columns = min(2, len(panels))
    figure = new_figure(4.6 * columns + 0.4, 3.1 * -(-len(panels) // columns) + 0.9)
    grid = figure.subplots(-(-len(panels) // columns), columns, squeeze=False)
    for place, (name, points) in zip(grid.flat, panels, strict=False):
        _panel(place, name, points)
    for place in list(grid.flat)[len(panels) :]:
        place.set_visible(False)
    handles, labels = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=8)
    title(figure, record, case(record))
    return figure


def _points(axis: dict[str, Any]) -> list[tuple[Any, dict[str, Any], float | None]]:
    return [
        (point["value"], point["token"], point["floor_seconds"])
        for point in axis["points"]
        if median(point["token"]) is not None
    ]


def _panel(place: Any, name: str, points: list[tuple[Any, dict[str, Any], float | None]]) -> None:
    from matplotlib.ticker import FuncFormatter

    xs = [str(value) for value, _, _ in points] if name == "model" else [value for value, _, _ in points]
    ys = [1e3 * sample["median"] for _, sample, _ in points]
    ends = [
        [y - 1e3 * sample["min"] for y, (_, sample, _) in zip(ys, points, strict=True)],
        [1e3 * sample["max"] - y for y, (_, sample, _) in zip(ys, points, strict=True)],
    ]
    place.errorbar(xs, ys, yerr=ends, color=LINES[1], marker="o", markersize=4, capsize=3, label="measured, min to max")
    floors = [(x, 1e3 * floor) for x, (_, _, floor) in zip(xs, points, strict=True) if floor is not None]
    if floors:
        place.plot(*zip(*floors, strict=True), color=FLOOR, marker="s", markersize=4, linestyle="--", label="floor")
    if name == "model":
        place.set_yscale("log")
        for axis in (place.yaxis.set_major_formatter, place.yaxis.set_minor_formatter):
            axis(FuncFormatter(lambda value, _: f"{value:g}"))
    else:
        if name == "positions":
            place.set_xscale("log", base=2)
        place.set_xticks(xs, [str(x) for x in xs])
        place.minorticks_off()
        place.set_ylim(bottom=0)
    place.set_xlabel(LABELS[name])
    place.set_ylabel("ms per image token")
    quiet(place)


def points(record: Record) -> Figure | None:
    """The points of a sweep as bars beside their floors."""
    rows: list[tuple[str, float, float | None]] = []
    for point in record["data"]["points"]:
        seconds, floor = median(point["token"]), point["floor_seconds"]
        if seconds is not None:
            rows.append((point["name"], 1e3 * seconds, None if floor is None else 1e3 * floor))
    return bars(record, "sweep", rows, "ms per image token")
