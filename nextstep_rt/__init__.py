"""nextstep_rt: an accelerated runtime for the NextStep-1 image generator.

Importing the package loads neither torch, numpy nor the native module: every public name is resolved on first use.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import ops as ops
    from ._core import Checkpoint as Checkpoint
    from ._core import Engine as Engine
    from ._core import ModelConfig as ModelConfig
    from ._core import SamplingParams as SamplingParams
    from .errors import Cancelled as Cancelled
    from .errors import CheckpointError as CheckpointError
    from .errors import Error as Error
    from .errors import InvalidRequest as InvalidRequest
    from .pipeline import Pipeline as Pipeline
    from .result import GenerationResult as GenerationResult

    __version__: str

# Run from a source tree, the package finds the native module in the installed copy.
__path__ = pkgutil.extend_path(__path__, __name__)

__all__ = [
    "Cancelled",
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
    "Cancelled": ".errors",
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


def _load(module: str) -> Any:
    try:
        return importlib.import_module(module, __name__)
    except ModuleNotFoundError as error:
        if error.name == f"{__name__}._core":
            raise ImportError(
                "nextstep_rt has no native module for this Python; run `pip install .` in its source tree"
            ) from error
        raise


def __getattr__(name: str) -> Any:
    """Resolve a public name on first use (PEP 562) and remember it."""
    if name in ("ops", "_core"):
        value: Any = _load(f".{name}")
    elif name in _HOME:
        value = getattr(_load(_HOME[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names too, loaded or not."""
    return sorted({*globals(), *__all__})
