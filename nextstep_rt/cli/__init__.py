"""The command line, `nextstep-rt`. Importing this loads nothing: Ctrl-C while the rest loads must be caught here."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .application import app as app


def main() -> None:
    """Run the command line and exit."""
    __getattr__("app")(prog_name="nextstep-rt")


def __getattr__(name: str) -> Any:
    """Load the application on first use (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .application import app as application
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("stopped\n")
        raise SystemExit(130) from None
    globals()["app"] = application
    return application


__all__ = ["app", "main"]
