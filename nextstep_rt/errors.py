"""The exceptions of this package; the native module raises the same classes."""

from __future__ import annotations

__all__ = ["Cancelled", "CheckpointError", "Error", "InvalidRequest"]


class Error(RuntimeError):
    """Base of all errors: a device, memory or state problem. The message says what to do about it."""


class CheckpointError(Error):
    """The checkpoint cannot be used: missing, damaged, or not a NextStep-1 model."""


class InvalidRequest(Error, ValueError):  # noqa: N818 - a fixed public name
    """The request is impossible; correct it and send it again."""


class Cancelled(Error):  # noqa: N818 - says what happened, which is no error of anyone's
    """A callback stopped the engine before it had a result."""
