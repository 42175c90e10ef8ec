"""Generation settings: the API's defaults, what a checkpoint's generation_config.json states, what the caller passes.

Later wins: API defaults < generation_config.json < explicit arguments. Every value is checked wherever it comes from; a
bad one is a `CheckpointError` in the file and an `InvalidRequest` in a call.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import numbers
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import CheckpointError, InvalidRequest
from .jsonfile import read_json as read_json

SOLVERS = ("sde", "sde-final-ode", "euler", "heun", "flow-sde", "flow-cps")
SCHEDULES = ("constant", "linear")
MAX_STEPS = 1000
MAX_THREADS = 1024
MAX_GUIDANCE = 1000.0
MAX_SIDE = 65536
MAX_PROMPT_CHARS = 100_000


def show(value: object) -> str:
    """`repr(value)` cut to a line's length, safe for values whose repr fails (huge integers, foreign objects)."""
    try:
        text = repr(value)
    except Exception:
        return f"a {type(value).__name__} too large or strange to print"
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"


def byte_size(count: int) -> str:
    """Bytes in decimal units, three digits."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g} {unit}"


def whole(name: str, value: object, low: int, high: int) -> int:
    """A whole number in [low, high]; bool is refused, since True is far more often a slip than a 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InvalidRequest(f"{name} must be a whole number from {low} to {high}, not {show(value)}")
    number = int(value)
    if not low <= number <= high:
        raise InvalidRequest(f"{name} is {show(number)}: it must be from {low} to {high}")
    return number


def real(name: str, value: object, low: float, high: float) -> float:
    """A finite number in [low, high]."""
    span = f"from {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidRequest(f"{name} must be a number {span}, not {show(value)}")
    try:
        number = float(value)
    except (OverflowError, ValueError, TypeError):
        raise InvalidRequest(f"{name} is {show(value)}: it must be {span}") from None
    if not (math.isfinite(number) and low <= number <= high):
        raise InvalidRequest(f"{name} is {number!r}: it must be {span}")
    return number


def is_bool(value: object) -> bool:
    """Python's or numpy's bool, and nothing that merely looks like it."""
    kind = type(value)
    return kind is bool or (kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"))


def flag(name: str, value: object) -> bool:
    """True or False."""
    if is_bool(value):
        return bool(value)
    raise InvalidRequest(f"{name} must be True or False, not {show(value)}")


def choice(name: str, value: object, options: Sequence[str]) -> str:
    """One of `options`; the error lists them and suggests the closest."""
    if isinstance(value, str) and value in options:
        return str(value)
    close = difflib.get_close_matches(value.lower(), options, 1, 0.5) if isinstance(value, str) else []
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise InvalidRequest(f"unknown {name} {show(value)}: choose one of {', '.join(options)}{hint}")


def text(name: str, value: object) -> str:
    """A string of a length no prompt needs more than."""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string, not {show(value)}")
    if len(value) > MAX_PROMPT_CHARS:
        raise InvalidRequest(f"{name} has {len(value)} characters: at most {MAX_PROMPT_CHARS} are taken; shorten it")
    return str(value)


def _side(name: str, value: object) -> int | None:
    return None if value is None else whole(name, value, 1, MAX_SIDE)


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    "negative_prompt": text,
    "positive_prompt": text,
    "height": _side,
    "width": _side,
    "num_inference_steps": lambda n, v: whole(n, v, 1, MAX_STEPS),
    "guidance_scale": lambda n, v: real(n, v, -MAX_GUIDANCE, MAX_GUIDANCE),
    "image_guidance_scale": lambda n, v: real(n, v, -MAX_GUIDANCE, MAX_GUIDANCE),
    "guidance_schedule": lambda n, v: choice(n, v, SCHEDULES),
    "guidance_renorm": flag,
    "timestep_shift": lambda n, v: real(n, v, 1e-3, 1e3),
    "solver": lambda n, v: choice(n, v, SOLVERS),
    "noise_level": lambda n, v: real(n, v, 0.0, 1.0),
    "last_step_size": lambda n, v: real(n, v, 1e-6, 1.0 - 1e-6),
    "normalize_tokens": flag,
}


@dataclass(frozen=True)
class GenerationConfig:
    """The settings of a generation that a checkpoint may state defaults for. Always valid once made.

    `height` and `width` None mean the model's native size. Raises `InvalidRequest` naming the bad value.
    """

    negative_prompt: str = ""
    positive_prompt: str = ""
    height: int | None = None
    width: int | None = None
    num_inference_steps: int = 28
    guidance_scale: float = 7.5
    image_guidance_scale: float = 1.0
    guidance_schedule: str = "constant"
    guidance_renorm: bool = False
    timestep_shift: float = 1.0
    solver: str = "sde"
    noise_level: float = 0.8
    last_step_size: float = 0.04
    normalize_tokens: bool = True

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if self.solver == "sde-final-ode" and self.num_inference_steps < 2:
            raise InvalidRequest(
                "num_inference_steps is 1, but solver 'sde-final-ode' needs 2 or more: its last is an ODE step"
            )

    def merged(self, explicit: Mapping[str, Any]) -> GenerationConfig:
        """These settings with the explicit ones on top. Raises `InvalidRequest` for a bad value."""
        return dataclasses.replace(self, **explicit)

    @staticmethod
    def names() -> tuple[str, ...]:
        """The settings' names, in the API's order."""
        return tuple(_CHECKS)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> GenerationConfig:
        """The API's defaults overlaid with the folder's generation_config.json, where there is one.

        Keys this package has no setting for are ignored (such a file also holds a text generator's settings). Raises
        `CheckpointError` when the file is no JSON object or a value is of the wrong type or out of range.
        """
        path = os.path.join(folder, "generation_config.json")
        if not os.path.exists(path):
            return cls()
        stated = {name: value for name, value in read_json(path).items() if name in _CHECKS}
        try:
            return cls(**stated)
        except InvalidRequest as error:
            raise CheckpointError(f"{path}: {error}; correct the file or delete it to use the defaults") from None
