"""bench is not installed; and its native measurements, replaced by a machine that is always the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2]))

STAGES = {"backbone": 3e-3, "kv": 1e-4, "condition": 2e-4, "fm_modulation": 5e-4, "fm_steps": 4e-3}


@pytest.fixture
def steady_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roofs and stage times that do not spread, above what any machine can do."""
    from bench import native
    from bench.floor import Stage
    from nextstep_rt import _core

    def stages(config: Any, dtype: str, rows: int, steps: int, positions: int) -> dict[str, Stage]:
        sizes = dict(_core.token_cost(config, dtype, rows, steps, positions))
        once = dict(_core.token_cost(config, dtype, rows, 1, positions))
        return {name: Stage(sizes[name], rows * sizes[name], 4, once[name]) for name in STAGES}

    monkeypatch.setattr(native, "read_seconds", lambda size, threads: size / (2e13 * threads))
    monkeypatch.setattr(native, "copy_seconds", lambda size, threads: size / (5e12 * threads))
    monkeypatch.setattr(native, "peak_flops", lambda dtype, threads: 1e14 * threads)
    monkeypatch.setattr(native, "barrier_seconds", lambda threads: 1e-10 * threads)
    monkeypatch.setattr(native, "wake_seconds", lambda threads: 5e-10 * threads)
    monkeypatch.setattr(native, "stage_seconds", lambda engine: dict(STAGES))
    monkeypatch.setattr(native, "stages", stages)
