"""Results as files: one JSON object a run, with its schema's version, and what it was measured on.

schema_version  1
command         roofline, kernels, decode, image, startup, scaling, peers, sweep or plan
arguments       the command line that repeats it
date            UTC, ISO 8601
seed            of weights and inputs
machine         cpu, cores, physical_cores, caches, memory_bytes, isa, kernel (see environment.machine)
software        version, commit, dirty, compiler, python, torch, numpy, matplotlib
settings        the options as they were understood; max_spread among them
steady          whether every figure may be claimed
note            what else a reader must know; absent where nothing
data            the command's figures: seconds and bytes. A time is a Sample: median (null where unsteady), min, max,
spread, steady (null in converted results whose samples were not kept), samples; and minor where it is less than
a hundredth of its whole, and may be unsteady without the run being so
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from nextstep_rt import Error, InvalidRequest

from .measure import Unsteady

SCHEMA_VERSION = 1
COMMANDS = ("roofline", "decode", "peers", "scaling", "sweep", "kernels", "image", "startup", "plan")
KEYS: dict[str, type | tuple[type, ...]] = {
    "schema_version": int, "command": str, "arguments": str, "date": str, "seed": int, "machine": dict,
    "software": dict, "settings": dict, "steady": bool, "data": dict,
}  # fmt: skip
SEED = 0
MAX_BYTES = 64 << 20

Record = dict[str, Any]


def new_record(command: str, arguments: str, settings: Mapping[str, Any], data: Mapping[str, Any]) -> Record:
    """A run's record, dated now, on this machine."""
    from .environment import machine, software

    return {
        "schema_version": SCHEMA_VERSION,
        "command": command,
        "arguments": arguments,
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seed": SEED,
        "machine": machine(),
        "software": software(),
        "settings": dict(settings),
        "steady": not any(unsteady(data)),
        "data": dict(data),
    }


def unsteady(value: Any, path: str = "") -> Iterator[str]:
    """Where in a record's data an unsteady sample stands, as "stages.backbone.seconds"."""
    if isinstance(value, dict):
        if value.get("steady") is False:
            if not value.get("minor"):
                yield path
        else:
            for key, inner in value.items():
                yield from unsteady(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from unsteady(inner, f"{path}[{i}]")


def check_steady(record: Record) -> None:
    """Raises `Unsteady` naming what spread too widely."""
    names = list(unsteady(record["data"]))
    if names:
        shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        raise Unsteady(
            f"{len(names)} of the times spread more than --max-spread {record['settings'].get('max_spread')}, and no "
            f"figure is claimed for them ({shown}): run it again on a quieter machine, with more --repeats, or with "
            "--allow-unsteady"
        )


def write(record: Record, path: Path) -> None:
    """Writes a file that is whole at any time, and its folder. Raises `Error` where that cannot be."""
    check(record, str(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(new, path)
    except OSError as error:
        raise Error(f"the results cannot be written to {path}: {error.strerror or error}; name another --out") from None


def read(path: Path) -> Record:
    """The record in a file. Raises `InvalidRequest` naming what is wrong with it."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidRequest(f"{path} is larger than any result: give a JSON file that `bench` wrote")
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{path} is no JSON: {error}; give a file that `bench` wrote") from None
    check(record, str(path))
    return dict(record)


def check(record: Any, name: str) -> None:
    """Raises `InvalidRequest` where `record` is not of this schema."""
    if not isinstance(record, dict):
        raise InvalidRequest(f"{name} holds a {type(record).__name__}: expected the JSON object of one run")
    version = record.get("schema_version")
    if version != SCHEMA_VERSION:
        raise InvalidRequest(
            f"{name} has schema_version {version!r}, and this version reads {SCHEMA_VERSION}: measure again"
        )
    for key, kind in KEYS.items():
        if not isinstance(record.get(key), kind):
            found = f"is a {type(record[key]).__name__}" if key in record else "is missing"
            raise InvalidRequest(f"{name}: {key!r} {found}; expected a {getattr(kind, '__name__', kind)}")
    if record["command"] not in COMMANDS:
        raise InvalidRequest(f"{name}: command {record['command']!r} is none of {', '.join(COMMANDS)}")


def destination(out: Path, command: str, settings: Mapping[str, Any]) -> Path:
    """The file that --out means: itself where it ends in .json, else a file in that folder, named after the run."""
    if out.suffix == ".json":
        return out
    parts = [command, settings.get("model"), settings.get("dtype")]
    if "rows" in settings and isinstance(settings["rows"], int):
        parts.append(f"{settings['rows']}rows")
    name = "-".join(str(part) for part in parts if part)
    return out / (re.sub(r"[^\w.]+", "-", name) + ".json")
