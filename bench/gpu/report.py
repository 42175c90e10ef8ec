"""What is written and shown: percent of the roof, a table as text, a plot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .figures import against_roof

EMULATED = "emulated, no figure of a GPU"


def figures_of(record: dict[str, Any], stage: str) -> dict[str, Any]:
    """A stage's figures; empty where it did not run or had none."""
    figures: dict[str, Any] = record["stages"].get(stage, {}).get("figures", {})
    return figures


def add_roofs(record: dict[str, Any]) -> None:
    """Sets every engine case's GB/s and, where the read bandwidth was measured, its share of that and the gap in ms."""
    engine, read = figures_of(record, "engine"), figures_of(record, "roofs").get("read_gbs")
    cases = [*engine.get("cases", []), *([engine["half_the_layers"]] if "half_the_layers" in engine else [])]
    for case in cases:
        case.update(against_roof(case["ms"], case["bytes"]["total"], read))
    profile = figures_of(record, "profile")
    for name, size in profile.get("stage_bytes", {}).items():
        ms = profile["stages_ms"][name]
        profile.setdefault("stages", {})[name] = {"ms": ms, **against_roof(ms, size, read)}


def text_table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Columns as wide as they must be, the first to the left, the others to the right; None is a dash."""
    cells = [list(head), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        padded = [row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))]
        lines.append("  ".join(padded).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def readable(record: dict[str, Any]) -> str:
    """All of a run, to be read in a terminal."""
    device = figures_of(record, "device")
    driver = device.get("nvidia_smi", {}).get("driver_version", "unknown")
    title = f"{device.get('name', 'no GPU')}, driver {driver}, "
    parts = [title + f"{record['shape']}, bfloat16, commit {record['commit']}"]
    if record["emulated"]:
        parts.append(f"*** {EMULATED} ***")
    stages = [
        (name, "ok" if stage["ok"] else "FAILED", stage["seconds"], stage.get("error") or "")
        for name, stage in record["stages"].items()
    ]
    parts.append("\n".join(f"{name:12} {ok:7} {seconds:6.1f} s  {why}".rstrip() for name, ok, seconds, why in stages))
    for stage in ("kernels", "correctness", "sanitizers", "roofs"):
        shown = {k: v for k, v in figures_of(record, stage).items() if k not in ("golden_errors", "errors", "bytes")}
        parts += [f"{stage}: " + ", ".join(f"{k} {v}" for k, v in shown.items())] if shown else []
    parts += _engine(figures_of(record, "engine")) + _others(record)
    return "\n\n".join(parts)


def _engine(engine: dict[str, Any]) -> list[str]:
    parts = []
    if "upload" in engine:
        said = engine["upload"].get("read_from")
        parts.append(f"upload: {engine['upload']['gb']} GB in {engine['upload']['seconds']} s")
        parts[-1] += f" ({said})" if said else ""
    if "cases" in engine:
        keys = ("ms", "p10", "p90", "gb_per_token", "gbs", "percent_of_read", "floor_ms", "gap_ms", "prefill_ms")
        rows = [
            (f"{c['rows']} rows, {c['steps']} steps, {c['positions']} positions", *(c.get(key) for key in keys))
            for c in engine["cases"]
        ]
        head = ("native", "ms/token", "p10", "p90", "GB", "GB/s", "% read", "floor ms", "gap ms", "prefill ms")
        parts.append(text_table(head, rows))
    if "stages" in engine:
        parts.append("stages by " + ", ".join(f"{k} {v}" for k, v in engine["stages"].items()).removeprefix("method "))
    if "image" in engine:
        parts.append(f"image: {engine['image']['seconds']} s ({engine['image']['what']})")
    elif "image_left_out" in engine:
        parts.append(f"image left out: {engine['image_left_out']}")
    return parts


def _prefill(prefill: dict[str, Any]) -> list[str]:
    if "ms" not in prefill:
        return []
    ways = prefill["ms"]
    lengths = sorted({int(n) for ms in ways.values() for n in ms})
    rows = [(way, *(ms.get(str(n)) for n in lengths)) for way, ms in ways.items()]
    head = (f"prefill of {prefill['layers']} layers, ms", *(f"{n} rows" for n in lengths))
    first = prefill.get("library_is_faster_from")
    paid = "never measured faster" if first is None else f"measured faster from {first} rows on"
    return [f"{text_table(head, rows)}\nlibrary: {prefill['products']}, {paid}"]


def _linear(linear: dict[str, Any]) -> list[str]:
    if "products_gbs" not in linear:
        return []
    lines = {f"{name}, {path}": gbs for name, paths in linear["products_gbs"].items() for path, gbs in paths.items()}
    lines |= {f"attention, {n} positions": gbs for n, gbs in linear.get("attention_gbs", {}).items()}
    columns = sorted({int(n) for gbs in lines.values() for n in gbs})
    head = ("kernel alone, GB/s", *(f"{n} rows" for n in columns))
    table = text_table(head, [(name, *(gbs.get(str(n)) for n in columns)) for name, gbs in lines.items()])
    first = linear.get("tensor_rows_from")
    said = "never measured faster" if first is None else f"as fast or faster from {first} rows on"
    return [f"{table}\ntensor cores: {said}"]


def _others(record: dict[str, Any]) -> list[str]:
    parts, profile, torch = [], figures_of(record, "profile"), figures_of(record, "torch")
    parts += _linear(figures_of(record, "linear")) + _prefill(figures_of(record, "prefill"))
    if profile:
        parts.append(
            f"profile ({profile['method']}): "
            + ", ".join(f"{name} {ms} ms" for name, ms in profile["stages_ms"].items())
        )
        keys = ("ms", "gb_per_token", "gbs", "percent_of_read", "gap_ms")
        rows = [(name, *(stage.get(key) for key in keys)) for name, stage in profile.get("stages", {}).items()]
        parts += [text_table(("stage", "ms", "GB", "GB/s", "% read", "gap ms"), rows)] if rows else []
        rows = [(name, k["calls"], k["us"]) for name, k in profile["kernels"].items()]
        parts.append(text_table(("kernel", "calls per token", "mean us"), rows))
    cases = figures_of(record, "engine").get("cases")
    native = cases[0]["ms"] if cases else None
    rows = [
        (name, torch[key]["ms"], torch[key]["ms"] / native if native else None)
        for name, key in (("torch, eager reference", "eager"), ("torch, CUDA graph", "graph"))
        if key in torch
    ]
    if rows:
        parts.append(text_table((torch.get("case", ""), "ms/token", "times the native"), rows))
    return parts


def plot(record: dict[str, Any], path: Path) -> str | None:
    """Times and floors of the cases, and torch's, as bars; None, or why there is no plot."""
    cases = figures_of(record, "engine").get("cases")
    if not cases:
        return "no plot: the engine was not measured"
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "no plot: matplotlib is not installed"
    names = [f"{c['rows']} rows, {c['steps']} steps, {c['positions']} pos." for c in cases]
    names = [name + " (again)" if name in names[:i] else name for i, name in enumerate(names)]
    times, torch = [c["ms"] for c in cases], figures_of(record, "torch")
    floors = [c.get("floor_ms", 0.0) for c in cases]
    if "graph" in torch:
        names.append("torch, CUDA graph")
        times.append(torch["graph"]["ms"])
        floors.append(floors[0])
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(names) + 1.6), layout="constrained")
    axes.barh(names, times, color="#9bb7d4", label="measured")
    if any(floors):
        axes.barh(names, floors, height=0.4, color="#2f5d8a", label="bytes / measured read bandwidth")
    axes.invert_yaxis()
    axes.set_xlabel("ms per image token")
    device = EMULATED if record["emulated"] else figures_of(record, "device").get("name", "")
    axes.set_title(f"{record['shape']}, bfloat16: {device}")
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return None
