"""nextstep_rt: an accelerated runtime for the NextStep-1 image generator.

Importing the package loads neither torch, numpy nor the native module: every public name is resolved on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import ops as ops
    from ._core import Checkpoint as Checkpoint
    from ._core import Engine as Engine
    from ._core import ModelConfig as ModelConfig
    from ._core import SamplingParams as SamplingParams
    from .errors import CheckpointError as CheckpointError
    from .errors import Error as Error
    from .errors import InvalidRequest as InvalidRequest
    from .pipeline import Pipeline as Pipeline
    from .result import GenerationResult as GenerationResult

    __version__: str

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "Engine",
    "Error",
    "GenerationResult",
    "InvalidRequest",
    "ModelConfig",
    "Pipeline",
    "SamplingParams",
    "__version__",
    "ops",
]

_HOME = {
    "Checkpoint": "._core",
    "CheckpointError": ".errors",
    "Engine": "._core",
    "Error": ".errors",
    "GenerationResult": ".result",
    "InvalidRequest": ".errors",
    "ModelConfig": "._core",
    "Pipeline": ".pipeline",
    "SamplingParams": "._core",
    "__version__": "._core",
}


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use (PEP 562) and remember it."""
    if name in ("ops", "_core"):
        value: Any = importlib.import_module(f".{name}", __name__)
    elif name in _HOME:
        value = getattr(importlib.import_module(_HOME[name], __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names too, loaded or not."""
    return sorted({*globals(), *__all__})
