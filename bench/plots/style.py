"""What all plots share: sizes, colours, the line that says what was measured on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..results import Record
from ..tables import case_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MEASURED, FLOOR = "#9bb7d4", "#2f5d8a"
LINES = ("#2f5d8a", "#c8641b", "#3a8f5c", "#8a4f9e", "#8c8c8c", "#b8991b", "#4aa3b8", "#c2476a")
MARKS = "osD^vPX*"


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that no window shows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def title(figure: Figure, record: Record, text: str) -> None:
    """The title, and under it the machine."""
    machine = record["machine"]
    where = ", ".join(str(part) for part in (machine.get("cpu"), machine.get("isa")) if part)
    figure.suptitle(f"{text}\n{where}", fontsize=10)


def quiet(axes: Axes, grid: str = "both") -> None:
    """No box, a faint grid behind what is drawn."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(visible=True, which="major", axis=grid, color="#e4e4e4", linewidth=0.7)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def median(sample: dict[str, Any] | None) -> float | None:
    """A sample's figure; None where it claims none."""
    return None if sample is None or sample["median"] is None else float(sample["median"])


def case(record: Record) -> str:
    """Model, dtype, rows and steps, as the title says them."""
    return case_of(record["settings"])
