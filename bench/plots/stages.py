"""Bars: a token's stages, an image's phases, peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..results import Record
from ..tables import number
from .style import FLOOR, MEASURED, case, median, new_figure, quiet, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def bars(
    record: Record, text: str, rows: Sequence[tuple[str, float, float | None]], axis: str, floor: str = "floor"
) -> Figure | None:
    """Horizontal bars, one a row of (name, value, floor or None), their values written at the end."""
    if not rows:
        return None
    figure = new_figure(8, 0.42 * len(rows) + 1.7)
    axes = figure.subplots()
    names, values = [row[0] for row in rows], [row[1] for row in rows]
    axes.barh(names, values, color=MEASURED, height=0.75, label="measured")
    if any(row[2] for row in rows):
        axes.barh(names, [row[2] or 0.0 for row in rows], color=FLOOR, height=0.35, label=floor)
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    for i, (_, value, least) in enumerate(rows):
        axes.annotate(
            number(value),
            (max(value, least or 0.0), i),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, 1.1 * max(values))
    axes.invert_yaxis()
    axes.set_xlabel(axis)
    quiet(axes, "x")
    title(figure, record, text)
    return figure


def breakdown(record: Record) -> Figure | None:
    """A token's stages beside their floors."""
    data = record["data"]
    claimed = data["floor_seconds"] is not None
    rows: list[tuple[str, float, float | None]] = []
    for name, stage in data["stages"].items():
        seconds = median(stage["seconds"])
        if seconds is not None:
            least = 1e3 * stage["floor"]["seconds"] if stage["floor"] and claimed else None
            rows.append((name.replace("_", " "), 1e3 * seconds, least))
    token = median(data["token"])
    if token is not None:
        rows.append(("token", 1e3 * token, 1e3 * data["floor_seconds"] if data["floor_seconds"] else None))
    return bars(record, case(record), rows, "ms per image token", "floor by the roofs measured beside it")


def phases(record: Record) -> Figure | None:
    """From prompt to PNG."""
    data: dict[str, Any] = record["data"]
    found = [(name, median(value)) for name, value in (*data["phases"].items(), ("total", data["total"]))]
    rows = [(name.replace("_", " "), 1e3 * value, None) for name, value in found if value is not None]
    return bars(record, f"{case(record)}: an image of {data['image_tokens']} tokens", rows, "ms")


def peers(record: Record) -> Figure | None:
    """Milliseconds per token of each, or of its backbone step, and of the native loop in the first of its pairs."""
    rows: list[tuple[str, float, float | None]] = []
    for scope, native in (("token", "native"), ("backbone", "native, the backbone alone")):
        for peer in record["data"]["peers"]:
            own, other = median(peer.get("a")), median(peer.get("b"))
            if own is None or other is None or peer.get("scope", "token") != scope:
                continue
            rows += [(native, 1e3 * own, None)] if native not in [row[0] for row in rows] else []
            rows.append((peer["what"], 1e3 * other, None))
    return bars(record, case(record), rows, "ms per image token")
