"""Tables of values, for a terminal and for Markdown; what each command's look like is in its own module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TableData:
    """A title, column heads and rows of texts; the first column is words, the others are numbers."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        """Appends a row of as many cells as there are heads."""
        self.rows.append(cells)

    def markdown(self) -> str:
        """As a Markdown table under its title."""
        lines = [f"**{self.title}**", "", _line(self.head), _line(["---", *["---:"] * (len(self.head) - 1)])]
        return "\n".join([*lines, *map(_line, self.rows)])

    def show(self) -> None:
        """Prints it."""
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(title=self.title, box=box.SIMPLE_HEAD, title_justify="left")
        for i, name in enumerate(self.head):
            table.add_column(name, justify="right" if i else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*row)
        Console().print(table)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def number(value: float | None, digits: int = 3) -> str:
    """So many significant digits, without an exponent; a dash for None."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    text = f"{value:.{digits}g}"
    if abs(value) < 1e-4:
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return f"{float(text):.0f}" if "e" in text and abs(value) >= 1 else text


def sample(value: Mapping[str, Any] | None, scale: float = 1e3, extremes: bool = True) -> str:
    """A sample times `scale` (1e3: ms) as "24.8 (24.3 to 26.1)", or that it is unsteady, and how much."""
    if value is None:
        return "-"
    if value["steady"] is False:
        wide = value.get("spread")
        return "unsteady" + (f" (spread {wide:.2f})" if wide is not None else "")
    if value["median"] is None:
        return "-"
    median = number(scale * value["median"])
    low, high = value["min"], value["max"]
    if not extremes or low is None or high is None or low == high:
        return median
    return f"{median} ({number(scale * low)} to {number(scale * high)})"


def case_of(settings: Mapping[str, Any]) -> str:
    """What a run measured: model, dtype, rows, steps and threads, as far as its settings say one of each."""
    parts = [str(settings[key]) for key in ("model", "dtype") if settings.get(key)]
    for key in ("rows", "steps", "threads"):
        count = settings.get(key)
        if isinstance(count, int):
            parts.append(f"{count} {key.removesuffix('s') if count == 1 else key}")
    return ", ".join(parts)


def percent(part: float | None, whole: float | None) -> str:
    """Part / whole in percent; a dash where either is missing."""
    return "-" if part is None or not whole else f"{100 * part / whole:.0f}%"


def size(count: float) -> str:
    """Bytes in binary units, as caches are named."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{number(count)} {unit}"
        count /= 1024
    return f"{number(count)} GiB"


def row_of(name: str, *cells: Any) -> tuple[str, ...]:
    """A row of texts from values."""
    return (name, *(cell if isinstance(cell, str) else number(cell) for cell in cells))
