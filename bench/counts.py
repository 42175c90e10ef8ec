"""Instructions and bytes of every CPU op and stage, and what has become of them since the committed baseline.

Times depend on the machine and on what else it does; these do not. Instructions are those that valgrind counts for one
call on one thread, and depend on the compiler and the C library; bytes are what the cost model says must move, and
depend on nothing. A baseline is a JSON object:

schema_version  1
command         what writes it
isa             the instruction set level of the kernels
toolchain       compiler, libc, valgrind
cases           by name: instructions, and bytes (null where the cost model has no figure)
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nextstep_rt import Error, InvalidRequest

from .environment import ROOT
from .tables import TableData, number

SCHEMA_VERSION = 1
BASELINE = ROOT / "bench" / "baselines" / "cpu-avx2.json"
COMMAND = "python -m bench counts --update"
TOLERANCE = 0.02  # of a count; see `compare`
SAME = ("compiler", "libc")  # of the toolchain: where one differs, instructions cannot be compared
US = 1e6


@dataclass(frozen=True)
class Count:
    """One call: instructions, the bytes that must move (None: no figure), and the seconds of this run, if timed."""

    instructions: int
    bytes: int | None
    seconds: float | None = None


@dataclass(frozen=True)
class Counts:
    """What a run found, or a baseline holds."""

    isa: str
    toolchain: Mapping[str, str]
    cases: Mapping[str, Count] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As a baseline keeps it: without times."""
        return {
            "schema_version": SCHEMA_VERSION,
            "command": COMMAND,
            "isa": self.isa,
            "toolchain": dict(self.toolchain),
            "cases": {
                name: {"instructions": case.instructions, "bytes": case.bytes} for name, case in self.cases.items()
            },
        }


@dataclass(frozen=True)
class Change:
    """One case, before and now; None where it is not there. `verdict` is empty where nothing is to be said."""

    name: str
    before: Count | None
    now: Count | None
    verdict: str
    failed: bool

    @property
    def ratio(self) -> float | None:
        """Instructions now over those before."""
        if self.before is None or self.now is None:
            return None
        return self.now.instructions / self.before.instructions


def read(path: Path) -> Counts:
    """The baseline in a file. Raises `InvalidRequest` naming what is wrong with it, and how it is made."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema_version is {record['schema_version']!r}, not {SCHEMA_VERSION}")
        cases = {
            str(name): Count(_whole(case["instructions"]), None if case["bytes"] is None else _whole(case["bytes"]))
            for name, case in record["cases"].items()
        }
        toolchain = {name: str(record["toolchain"][name]) for name in (*SAME, "valgrind")}
        return Counts(str(record["isa"]), toolchain, cases)
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}; write it with `{COMMAND}`") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise InvalidRequest(f"{path} is no baseline: {reason}; write it anew with `{COMMAND}`") from None


def write(counts: Counts, path: Path) -> None:
    """Writes a baseline that is whole at any time. Raises `Error` where that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(counts.to_json(), indent=1) + "\n", encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        raise Error(f"the baseline cannot be written to {path}: {error.strerror or error}") from None


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no count")
    return value


def comparable(before: Counts, now: Counts) -> str | None:
    """Why instructions cannot be held to the baseline, e.g. another compiler; None where they can."""
    wrong = [f"isa {now.isa} here, {before.isa} there"] if before.isa != now.isa else []
    wrong += [
        f"{now.toolchain[name]} here, {before.toolchain[name]} there"
        for name in SAME
        if before.toolchain[name] != now.toolchain[name]
    ]
    return "; ".join(wrong) or None


def compare(before: Counts, now: Counts) -> list[Change]:
    """Every case of either, the baseline's order first, with what is wrong.

    Bytes must be equal, and the cases the same ones. Instructions may move by TOLERANCE either way, where they are
    `comparable`: more is a regression; fewer must be recorded, or a later regression would hide in what was won. On
    one toolchain a run repeats to the instruction, so the tolerance is for changes that are too small to matter.
    """
    asserted = comparable(before, now) is None
    names = dict.fromkeys([*before.cases, *now.cases])
    return [_change(name, before.cases.get(name), now.cases.get(name), asserted) for name in names]


def _change(name: str, before: Count | None, now: Count | None, asserted: bool) -> Change:
    if before is None:
        return Change(name, before, now, "not in the baseline", failed=True)
    if now is None:
        return Change(name, before, now, "only in the baseline", failed=True)
    if before.bytes != now.bytes:
        return Change(name, before, now, f"bytes were {before.bytes}", failed=True)
    moved = now.instructions - before.instructions
    if abs(moved) <= TOLERANCE * before.instructions:
        return Change(name, before, now, "", failed=False)
    verdict = "more instructions" if moved > 0 else "fewer instructions"
    return Change(name, before, now, verdict if asserted else f"{verdict}, not asserted", failed=asserted)


def check(changes: list[Change], path: Path) -> None:
    """Raises `Error` naming the cases that are not what the baseline in `path` says."""
    failed = [change for change in changes if change.failed]
    if not failed:
        return
    shown = [
        f"{change.name}: {change.verdict}" + (f" ({_percent(change)})" if "instructions" in change.verdict else "")
        for change in failed[:6]
    ]
    more = f"; and {len(failed) - len(shown)} more" if len(failed) > len(shown) else ""
    raise Error(
        f"{len(failed)} of {len(changes)} cases are not what {path.name} says: {'; '.join(shown)}{more}. Where that is "
        f"meant, record it with `{COMMAND}`"
    )


def table(changes: list[Change], now: Counts) -> TableData:
    """Each case now, beside the baseline's instructions. Times are this machine's, and are compared with nothing."""
    chain = ", ".join(now.toolchain[name] for name in SAME)
    made = TableData(
        f"one call, one thread, {now.isa}, {chain}, valgrind {now.toolchain['valgrind']}",
        ("case", "instructions", "baseline", "change", "bytes", "µs here", "verdict"),
    )
    for change in changes:
        case = change.now
        made.add(
            change.name,
            "-" if case is None else str(case.instructions),
            "-" if change.before is None else str(change.before.instructions),
            _percent(change),
            "-" if case is None or case.bytes is None else str(case.bytes),
            "-" if case is None or case.seconds is None else number(US * case.seconds),
            change.verdict or "-",
        )
    return made


def _percent(change: Change) -> str:
    if change.ratio is None:
        return "-"
    return "0" if change.ratio == 1 else f"{100 * (change.ratio - 1):+.2f}%"
