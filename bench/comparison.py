"""What changed between two results: every sample they hold, by its name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nextstep_rt import InvalidRequest

from .results import Record
from .tables import TableData, number, sample

ROOFS = "roofs"


@dataclass(frozen=True)
class Change:
    """A figure in both results; None where one has none. ratio: b / a of the medians, where both are steady."""

    name: str
    a: Mapping[str, Any] | None
    b: Mapping[str, Any] | None

    @property
    def ratio(self) -> float | None:
        """Below 1 where b takes less time."""
        if self.a is None or self.b is None or not self.a["median"] or self.b["median"] is None:
            return None
        return float(self.b["median"] / self.a["median"])

    @property
    def verdict(self) -> str:
        """What may be said: repeats that overlap show no difference."""
        if self.a is None or self.b is None:
            return "only in B" if self.a is None else "only in A"
        if self.ratio is None:
            return "unsteady"
        if None in (self.a["max"], self.b["max"]):
            return "extremes were not kept"
        if self.a["max"] < self.b["min"] or self.b["max"] < self.a["min"]:
            return "higher" if self.ratio > 1 else "lower"
        return "no difference shown"


def samples(value: Any, path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every sample under a record's data, with its name, e.g. "stages.backbone"; an element of a list has its own."""
    if isinstance(value, dict):
        if "samples" in value and "steady" in value:
            yield path.removesuffix(".seconds"), value
            return
        for key, inner in value.items():
            yield from samples(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            name = inner.get("name", i) if isinstance(inner, dict) else i
            yield from samples(inner, f"{path}[{name}]")


def compare_records(a: Record, b: Record) -> tuple[list[Change], list[str]]:
    """The changes, and what a reader must know of them. Raises `InvalidRequest` for results of different commands."""
    if a["command"] != b["command"]:
        raise InvalidRequest(f"A is a result of {a['command']} and B of {b['command']}: compare results of one command")
    found = [dict(samples(record["data"])) for record in (a, b)]
    names = sorted(dict.fromkeys([*found[0], *found[1]]), key=lambda name: name.startswith(ROOFS))
    notes = [
        f"{part} {key}: {a[part].get(key)} in A, {b[part].get(key)} in B"
        for part, keys in (("machine", ("cpu", "cores", "isa")), ("settings", sorted({*a["settings"], *b["settings"]})))
        for key in keys
        if a[part].get(key) != b[part].get(key)
    ]
    return [Change(name, found[0].get(name), found[1].get(name)) for name in names], notes


def table(changes: list[Change], title: str) -> TableData:
    """As it is shown. Milliseconds, but ratios and operations per second as they are."""
    made = TableData(title, ("figure", "A", "B", "B / A", "change", "verdict"))
    for change in changes:
        rate = "flops" in change.name
        scale = 1e-9 if rate else 1.0 if change.name.endswith("ratio") else 1e3
        unit = " (GFLOP/s)" if rate else "" if change.name.endswith("ratio") else " (ms)"
        shift = "-" if change.ratio is None else f"{100 * (change.ratio - 1):+.1f}%"
        made.add(
            change.name + unit, sample(change.a, scale, False), sample(change.b, scale, False), number(change.ratio),
            shift, change.verdict,
        )  # fmt: skip
    return made
