"""The tables of `startup`."""

from __future__ import annotations

from typing import Any

from .results import Record
from .tables import TableData, case_of, number, sample, size

MS = 1e3
PARTS = {
    "import": "of that, import nextstep_rt", "native": "of that, the native module and numpy",
    "open": "of that, opening the checkpoint", "engine": "of that, making the engine",
    "prefill": "then, prefill of one position", "token": "then, one token of one step",
}  # fmt: skip


def startup(record: Record) -> list[TableData]:
    """Times beside what is aimed at, and memory. "Ready" is the sum of its four parts."""
    data, case = record["data"], case_of(record["settings"])
    targets = data["target_seconds"]
    what = f"{size(data['weight_bytes'])} of weights from the page cache"
    table = TableData(f"{case}: {what}", ("", "ms (min to max)", "aimed at"))

    def add(name: str, value: dict[str, Any], target: float | None = None) -> None:
        table.add(name, sample(value, MS), "-" if target is None else f"< {number(MS * target)}")

    add("import nextstep_rt, without torch", data["import"], targets["import"])
    add("a process that imports it, start to end", data["process"])
    add("engine ready, in a new interpreter", data["ready"], targets["ready"])
    for name, value in data["phases"].items():
        add(PARTS[name], value)
    add("pipeline ready, in a new interpreter", data["pipeline"], targets["pipeline"])
    memory = TableData(f"{case}: memory", ("", "bytes"))
    memory.add("weights on disk", size(data["file_bytes"]))
    memory.add("memory of its own of a process with the engine", size(data["private_bytes"]))
    return [table, memory]
