"""How every plot looks: one palette, intervals as bars or bands, no frame around."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .numbers import Number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito: told apart without colour vision, and in print by their markers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = ("o", "s", "^", "D")
DPI = 120


def panels(rows: int, columns: int, *, width: float = 4.2, height: float = 3.4, **shared: Any) -> tuple[Figure, Any]:
    """A figure and its axes [rows, columns]; sizes of a panel in inches."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), squeeze=False, layout="constrained", **shared
    )
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
    return figure, axes


def points(axis: Axes, x: Sequence[float], numbers: Sequence[Number], index: int = 0, label: str | None = None) -> None:
    """A line through numbers, each with its interval as a bar."""
    values = [n.value for n in numbers]
    # A Wilson interval need not hold its value's rounding: a bar of negative length is refused.
    below = [max(n.value - n.low, 0.0) for n in numbers]
    above = [max(n.high - n.value, 0.0) for n in numbers]
    style: dict[str, Any] = {
        "color": COLOURS[index],
        "marker": MARKERS[index],
        "markersize": 5,
        "linewidth": 1.4,
        "capsize": 3,
    }
    axis.errorbar(x, values, yerr=[below, above], label=label, **style)


def save(figure: Figure, path: Path) -> None:
    """Writes a PNG and lets the figure go."""
    import matplotlib.pyplot as plt

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI, format="png")
    plt.close(figure)
