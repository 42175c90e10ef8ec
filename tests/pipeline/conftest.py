"""Pipelines shared by the tests of this folder: loaded once, kept for the session."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from nextstep_rt import Pipeline

GOLDEN = Path(__file__).parent.parent / "golden"


@cache
def _load(model: str, options: tuple[tuple[str, Any], ...]) -> Pipeline:
    folder = model if model == "demo" else GOLDEN / model / "model"
    return Pipeline.from_pretrained(folder, device="cpu", **dict(options))


@pytest.fixture(scope="session")
def pipeline() -> Callable[..., Pipeline]:
    """A function: checkpoint name ("tiny", "gqa5", "demo") and from_pretrained's options -> a shared pipeline."""
    return lambda model="tiny", **options: _load(model, tuple(sorted(options.items())))


@pytest.fixture
def tiny(pipeline: Callable[..., Pipeline]) -> Pipeline:
    return pipeline("tiny", dtype="float32", threads=1)
