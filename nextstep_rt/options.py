"""The pipeline's call signature: what may be given, with its type, and the defaults a reader sees."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict

from .config import GenerationConfig, show
from .errors import InvalidRequest


class SamplingOptions(TypedDict, total=False):
    """How a picture is drawn. A key that is absent was not given, so a checkpoint's own default may hold."""

    negative_prompt: str
    positive_prompt: str
    num_inference_steps: int
    guidance_scale: float
    image_guidance_scale: float
    guidance_schedule: str
    guidance_renorm: bool
    timestep_shift: float
    solver: str
    noise_level: float
    last_step_size: float
    normalize_tokens: bool


class CallOptions(SamplingOptions, total=False):
    """Keyword arguments of a call."""

    image: Any
    height: int | None
    width: int | None
    num_images_per_prompt: int
    seed: int | Sequence[int] | None
    noise: Any
    output_type: str
    progress: bool | Callable[[int, int], Any] | None
    callback: Callable[[int, int, Any], Any] | None


_OTHERS: dict[str, Any] = {"num_images_per_prompt": 1, "output_type": "pil"}


def call_signature() -> inspect.Signature:
    """The signature `pipe(prompt, *, ...)` with the API's defaults, for help() and editors."""
    defaults = GenerationConfig()
    kind = inspect.Parameter
    parameters = [
        kind("self", kind.POSITIONAL_OR_KEYWORD),
        kind("prompt", kind.POSITIONAL_OR_KEYWORD, annotation="str | list[str]"),
    ]
    for name, annotation in CallOptions.__annotations__.items():
        default = getattr(defaults, name, _OTHERS.get(name))
        shown = getattr(annotation, "__forward_arg__", annotation)
        parameters.append(kind(name, kind.KEYWORD_ONLY, default=default, annotation=shown))
    return inspect.Signature(parameters, return_annotation="GenerationResult")


def check_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError for a name that is no option, as Python does, and `InvalidRequest` for what is not callable."""
    for name in options:
        if name not in CallOptions.__annotations__:
            import difflib

            close = difflib.get_close_matches(name, CallOptions.__annotations__, 1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise TypeError(f"the pipeline takes no argument {name!r}{hint}")
    callback = options.get("callback")
    if callback is not None and not callable(callback):
        raise InvalidRequest(f"callback must be a function of (step, total, tokens), not {show(callback)}")
