"""The tables of each command's results, for the terminal and for docs/performance.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .results import Record
from .startup_view import startup
from .tables import TableData, case_of, number, percent, sample, size

MS, US, GIGA = 1e3, 1e6, 1e-9


def tables(record: Record) -> list[TableData]:
    """What is shown of a record."""
    return VIEWS[record["command"]](record)


def _case(record: Record) -> str:
    return case_of(record["settings"])


def _rate(amount: float, value: dict[str, Any]) -> str:
    """Billions of `amount` per second; a dash where the time is unsteady."""
    return "-" if value["median"] is None else number(GIGA * amount / value["median"])


def _roofline(record: Record) -> list[TableData]:
    runs = record["data"]["runs"]
    counts = [f"{run['threads']} thread" + ("s" if run["threads"] > 1 else "") for run in runs]
    made = []
    for kind, factor in (("read", 1), ("copy", 2)):
        unit = "GB/s" + (" (bytes read and written)" if factor > 1 else "")
        table = TableData(f"{kind}, {unit}, by where the array lives", ("", *counts))
        cells: dict[str, dict[int, str]] = {}
        for column, run in enumerate(runs):
            for one in run["reads" if kind == "read" else "copies"]:
                shown = (
                    _rate(factor * one["bytes"], one["seconds"]) if one["seconds"]["steady"] else sample(one["seconds"])
                )
                cells.setdefault(one["name"], {})[column] = f"{shown} ({size(one['bytes'])})"
        for place, row in cells.items():
            table.add(place, *(row.get(column, "-") for column in range(len(runs))))
        made.append(table)
    table = TableData("compute and exchanges", ("", *counts))
    for dtype in runs[0]["flops"]:
        table.add(f"{dtype}, GFLOP/s", *(sample(run["flops"][dtype], GIGA) for run in runs))
    table.add("barrier, µs", *(sample(run["barrier"], US) for run in runs))
    table.add("wake and wait, µs", *(sample(run["wake"], US) for run in runs))
    return [*made, table]


def _kernels(record: Record) -> list[TableData]:
    made = []
    for group in record["data"]["groups"]:
        title = f"{group['name']}, {record['settings']['dtype']}"
        table = TableData(title, ("op", "µs (min to max)", "GB/s", "GFLOP/s", "% of the roof", "threads"))
        for one in group["ops"]:
            value = one["seconds"]
            table.add(
                one["name"], sample(value, US), _rate(one["bytes"], value),
                _rate(one["flops"], value) if one["flops"] else "-", percent(one["floor_seconds"], value["median"]),
                str(one["threads"]),
            )  # fmt: skip
        made.append(table)
    return made


def _millions(count: int | None) -> str:
    return number(None if count is None else count / 1e6)


def _stage_row(table: TableData, name: str, stage: dict[str, Any], total: float | None) -> None:
    value, floor = stage["seconds"], stage["floor"]
    median = value["median"] if value else None
    least = floor["seconds"] if floor else None
    table.add(
        name, sample(value, MS), percent(median, total), _millions(stage["bytes"]), _millions(stage["flops"]),
        number(None if least is None else MS * least),
        floor["bound"] if floor and least else "-", percent(least, median),
    )  # fmt: skip


def _decode(record: Record) -> list[TableData]:
    data = record["data"]
    token = data["token"]
    table = TableData(
        _case(record),
        ("stage", "ms per token", "share", "MB", "MFLOP", "floor ms", "bound by", "floor / time"),
    )
    total, claimed = data["clocked"]["median"], data["floor_seconds"] is not None
    for name, stage in data["stages"].items():
        _stage_row(table, name, stage if claimed else {**stage, "floor": None}, total)
    floor = data["floor_seconds"]
    table.add(
        "token", sample(token, MS), "-", "-", "-", number(None if floor is None else MS * floor), "-",
        percent(floor, token["median"]),
    )  # fmt: skip
    rate = "-" if token["median"] is None else number(1 / token["median"])
    memory = data["memory"]
    other = TableData(f"{_case(record)}: {data['backend']}, weights: {data['weights']}", ("", "value"))
    other.add("tokens of an image per second", rate)
    other.add("achieved over floor", number(token["median"] / floor) if floor and token["median"] else "-")
    other.add("sum of the clocked stages, ms", sample(data["clocked"], MS))
    other.add("threads on a core each", "yes" if data["pinned"] else "no")
    other.add("memory", size(sum(memory[key] for key in ("weights", "converted", "kv_cache", "scratch"))))
    if not claimed:
        other.add("floors", "not claimed: the roofs are unsteady, or the loop was faster than they allow")
    return [table, other]


def _image(record: Record) -> list[TableData]:
    data = record["data"]
    table = TableData(f"{_case(record)}, {data['image_tokens']} image tokens", ("phase", "ms (min to max)", "share"))
    total = data["total"]["median"]
    for name, value in data["phases"].items():
        table.add(name, sample(value, MS), percent(value["median"], total))
    table.add("total", sample(data["total"], MS), "-")
    table.add("peak memory", size(data["peak_bytes"]), "-")
    return [table]


POINT_HEAD = ("ms per token", "floor ms", "floor / time", "GB/s", "memory", "model of it")


def _point(table: TableData, point: dict[str, Any]) -> None:
    value, floor = point["token"], point["floor_seconds"]
    table.add(
        point["name"], sample(value, MS), number(None if floor is None else MS * floor),
        percent(floor, value["median"]), _rate(point["bytes"], value), size(point["memory_bytes"]),
        size(point["model_bytes"]),
    )  # fmt: skip


def _scaling(record: Record) -> list[TableData]:
    made = []
    for axis in record["data"]["axes"]:
        table = TableData(f"{_case(record)}: along {axis['name']}", (axis["name"], *POINT_HEAD))
        for point in axis["points"]:
            _point(table, point)
        made.append(table)
    return made


def _sweep(record: Record) -> list[TableData]:
    table = TableData(f"{record['settings']['model']}: sweep", ("case", *POINT_HEAD))
    for point in record["data"]["points"]:
        _point(table, point)
    return [table]


SCOPES = {"token": ("", "ms per token"), "backbone": ("the backbone alone, ", "ms per backbone step")}


def _ahead(peer: dict[str, Any]) -> str:
    """Who is ahead, in words: claimed where every pair of runs says the same."""
    ratio = peer["ratio"]
    if ratio["median"] is None:
        return "nothing is claimed"
    low, high = (ratio["median"] if ratio[end] is None else ratio[end] for end in ("min", "max"))
    words = "native is ahead" if low > 1 else "the peer is ahead" if high < 1 else "no difference shown"
    return f"{words}, but {peer['caveat']}" if peer.get("caveat") else words


def _peers(record: Record) -> list[TableData]:
    """Whole tokens and backbone steps apart: the native column of each is the same part of the loop."""
    data = record["data"]
    made = []
    for scope, (part, unit) in SCOPES.items():
        table = TableData(
            f"{_case(record)}: {part}native is {data['backend']}",
            ("", unit, "native, ms", "times the native", "in words"),
        )
        for peer in data["peers"]:
            if peer.get("scope", "token") != scope:
                continue
            version = peer["version"] or ""
            if "missing" in peer:
                table.add(peer["what"], "-", "-", "-", f"not run: {peer['missing']}")
                continue
            how = f" ({peer['how']})" if peer.get("how") else ""
            table.add(
                f"{peer['what']} {version}".strip() + how, sample(peer["b"], MS), sample(peer["a"], MS),
                sample(peer["ratio"], 1), _ahead(peer),
            )  # fmt: skip
        if table.rows:
            made.append(table)
    return made


def _plan(record: Record) -> list[TableData]:
    data = record["data"]
    table = TableData(f"{_case(record)}: predicted", ("stage", "MB", "MFLOP", "floor ms", "bound by", "predicted ms"))
    calibrated = data["predicted_seconds"] is not None
    for name, stage in data["stages"].items():
        table.add(
            name, number(stage["bytes"] / 1e6), number(stage["flops"] / 1e6), number(MS * stage["floor"]["seconds"]),
            stage["floor"]["bound"], number(MS * stage["predicted_seconds"] if calibrated else None),
        )  # fmt: skip
    shown = number(MS * data["predicted_seconds"]) if calibrated else "-"
    table.add("token", "-", "-", number(MS * data["floor_seconds"]), "-", shown)
    memory = TableData(f"{_case(record)}: memory", ("", "bytes"))
    for name, count in data["memory"].items():
        memory.add(name, size(count))
    memory.add("in all", size(sum(data["memory"].values())))
    return [table, memory]


VIEWS: dict[str, Callable[[Record], list[TableData]]] = {
    "roofline": _roofline, "kernels": _kernels, "decode": _decode, "image": _image, "scaling": _scaling,
    "sweep": _sweep, "peers": _peers, "plan": _plan, "startup": startup,
}  # fmt: skip
