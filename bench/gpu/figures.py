"""What the figures mean: bytes, bandwidths, spreads. Nothing here needs a GPU."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Figures(dict[str, Any]):
    """A stage's figures, written to its file after each one, so that a stage that is cut off keeps what it had."""

    def __init__(self, path: Path | None = None) -> None:
        super().__init__()
        self._path = path

    def put(self, name: str, value: Any) -> None:
        """Sets one figure and writes all."""
        self[name] = value
        if self._path is not None:
            write_json(self._path, self)


def write_json(path: Path, value: Any) -> None:
    """Writes a file that is whole at any time."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    os.replace(new, path)


def token_bytes(config: Any, dtype: str, rows: int, steps: int, positions: int) -> dict[str, int]:
    """Bytes one image token must read at least, by stage and in all ("total"), with weights and cache in `dtype`.

    backbone: L * d * (2 * d_q + 2 * d_kv + 3 * d_ff) weights and the token's projection d * d_tok
    kv: 2 * L * rows * positions * d_kv        condition: d * d + d_fm * d
    fm_modulation: (3 * blocks + 2) * d_fm * d_fm, once for all steps
    fm_steps: steps * d_fm * (2 * d_tok + 2 * blocks * d_mlp)
    (L layers; positions: the mean length of a row.) Biases, norms and activations are left out: less than a thousandth.
    What stays in a cache between steps is counted as read again, so a time below this floor is possible.
    """
    from nextstep_rt import _core

    return dict(_core.token_cost(config, dtype, rows, steps, positions))


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 10th and 90th percentile, smallest and largest of times in seconds, in ms."""
    ordered = sorted(1e3 * s for s in seconds)
    last = len(ordered) - 1
    return {
        "ms": round(statistics.median(ordered), 4),
        "p10": round(ordered[round(0.1 * last)], 4),
        "p90": round(ordered[round(0.9 * last)], 4),
        "min": round(ordered[0], 4),
        "max": round(ordered[-1], 4),
        "tokens": len(ordered),
    }


def relative_error(actual: Any, expected: Any) -> float:
    """Of two arrays, by norm, in float64."""
    import numpy as np

    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    return float(np.linalg.norm(a - e) / np.linalg.norm(e))


def against_roof(ms: float, size: int, read_gbs: float | None) -> dict[str, float]:
    """GB/s of `size` bytes in `ms`; where the read bandwidth is known, percent of it, the floor and the gap in ms."""
    out = {"gb_per_token": round(size / 1e9, 4), "gbs": round(size / ms / 1e6, 3)}
    if read_gbs:
        floor = size / read_gbs / 1e6
        out |= {
            "percent_of_read": round(100 * floor / ms, 1),
            "floor_ms": round(floor, 4),
            "gap_ms": round(ms - floor, 4),
        }
    return out


def differences(times: dict[str, float], layers: tuple[int, int], steps: tuple[int, int, int]) -> dict[str, Any]:
    """Stage times in ms from four token times in ms: "few" and "many" steps, "default", and "shallow" (fewer layers).

    layers: (fewer, all); steps: (few, default, many). What belongs to neither a layer nor a step is "rest".
    """
    per_layer = (times["default"] - times["shallow"]) / (layers[1] - layers[0])
    per_step = (times["many"] - times["few"]) / (steps[2] - steps[0])
    backbone, head = per_layer * layers[1], per_step * steps[1]
    return {
        "method": f"differences: {layers[1]} against {layers[0]} layers, {steps[2]} against {steps[0]} steps; a step's "
        "share includes its rows of the modulations' product, but not reading the modulations' weights",
        "backbone_ms": round(backbone, 4),
        "layer_ms": round(per_layer, 5),
        "fm_steps_ms": round(head, 4),
        "step_ms": round(per_step, 5),
        "rest_ms": round(times["default"] - backbone - head, 4),
    }
