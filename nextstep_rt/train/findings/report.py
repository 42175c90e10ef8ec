"""docs/findings.md and its plots, from the parts' results alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import InvalidRequest
from ...jsonfile import read_json
from . import gamma, head_size, solvers, statistics
from .work import SCHEMA, Part, Values

PARTS: dict[str, Part] = {module.PART.name: module.PART for module in (statistics, head_size, gamma, solvers)}
COMMAND = "python -m nextstep_rt.train.findings"


def write_report(results: Path, docs: Path) -> Path:
    """Writes `docs`/findings.md and `docs`/findings/<part>.png from `results`/<part>.json; returns the former's path.

    A part without its result is said not to have been run. Raises `InvalidRequest` for a result of another version,
    and where the files cannot be written.
    """
    sections = [_INTRODUCTION.format(command=COMMAND)]
    target = docs / "findings.md"
    try:
        for number, part in enumerate(PARTS.values(), 1):
            sections.append(f"## {number}. {part.title}\n\n{part.origin}\n")
            path = results / f"{part.name}.json"
            if not path.exists():
                sections.append(f"Not run yet: `{COMMAND} --part {part.name}` runs it.\n")
                continue
            result = _read(path)
            part.plot(result, docs / "findings" / f"{part.name}.png")
            sections.append(_section(part, result))
        docs.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join(sections), encoding="utf-8")
    except OSError as error:
        raise InvalidRequest(f"cannot write {target}: {error.strerror or error}; name another --docs") from None
    return target


def _read(path: Path) -> Values:
    result = read_json(path)
    if result.get("schema") != SCHEMA:
        raise InvalidRequest(
            f"{path} has schema {result.get('schema')!r}, this version reads {SCHEMA}: remove it and run the part again"
        )
    return result


def _section(part: Part, result: Values) -> str:
    """What was run, the plot, the table and the verdict."""
    hashes = ", ".join(f"{name} {value[:12]}" for name, value in result["weights_sha256"].items())
    return "\n".join(
        [
            f"**Run:** `{result['command']}`, commit {result['commit']}, {result['date'][:10]}; weights (SHA-256): "
            f"{hashes}.\n",
            f"Settings: {settings_text(result['settings'])}.\n",
            f"![{part.title}](findings/{part.name}.png)\n",
            part.table(result) + "\n",
            part.verdict(result) + "\n",
        ]
    )


def settings_text(settings: dict[str, Any]) -> str:
    """Every setting in a line; those of a nested group follow its name in brackets."""
    parts = []
    for name, value in settings.items():
        shown = f"({settings_text(value)})" if isinstance(value, dict) else _plain(value)
        parts.append(f"{name} {shown}")
    return ", ".join(parts)


def _plain(value: Any) -> str:
    """`3x192 4x320`, `0.5`."""
    if not isinstance(value, (list, tuple)):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if value and isinstance(value[0], dict):
        return " ".join(f"({settings_text(row)})" for row in value)
    if value and isinstance(value[0], (list, tuple)):
        return " ".join("x".join(str(v) for v in row) for row in value)
    return " ".join(_plain(v) for v in value)


_INTRODUCTION = """# The paper's findings in miniature

What NextStep-1 reports of its large models, asked again of tiny ones in the world of shapes.
`{command}` makes this page: it trains and draws what is missing, and every plot, number and verdict
follows from the results by rule.

Values are followed by their 95 % intervals [low, high], by a bootstrap over scenes (of statistics along the sequence,
over prompts). Two things are said to differ where the interval of their difference, taken prompt by prompt or scene by
scene, leaves out zero. Each interval is 95 % by itself: of twenty comparisons of equals, one is expected to differ.
Models that are compared were trained once each, so how two trainings of one recipe differ by chance is in no interval.
ShapeEval is the share of pictures that show what held-out prompts ask for, averaged over six categories.
"""
