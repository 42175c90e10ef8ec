"""The API's names of settings, and the flags a user of the command line knows them by."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Parameter of `generate` and `edit` -> the API's name.
API_NAMES = {
    "seed": "seed",
    "num_images": "num_images_per_prompt",
    "height": "height",
    "width": "width",
    "steps": "num_inference_steps",
    "guidance": "guidance_scale",
    "image_guidance": "image_guidance_scale",
    "schedule": "guidance_schedule",
    "renorm": "guidance_renorm",
    "solver": "solver",
    "timestep_shift": "timestep_shift",
    "noise_level": "noise_level",
    "last_step_size": "last_step_size",
    "normalize": "normalize_tokens",
    "negative": "negative_prompt",
    "positive": "positive_prompt",
}
_FLAGS = {api: "--" + name.replace("_", "-") for name, api in API_NAMES.items()} | {
    name: f"--{name}" for name in ("model", "revision", "device", "dtype", "backend", "threads")
}
_CLEAR = "|".join(name for name in _FLAGS if "_" in name)
_PLAIN = "|".join(name for name in _FLAGS if "_" not in name)
# Quoted text is the user's and stays, except as name='value'. A plain word is a setting only where messages put one.
_PATTERN = re.compile(
    rf"\b(?P<assigned>{_CLEAR}|{_PLAIN})='(?P<value>[^']*)'"
    r"|(?<!\w)(?:'[^']*'|\"[^\"]*\")"
    rf"|(?<![\w/.-])(?P<clear>{_CLEAR})(?![\w/.-])"
    rf"|(?P<before>^|unknown |leave )(?P<plain>{_PLAIN})(?= )"
)


def in_flags(message: str) -> str:
    """An error message of the API, with flags in place of its names."""
    return _PATTERN.sub(_replace, message)


def _replace(match: re.Match[str]) -> str:
    if match["assigned"]:
        return f"{_FLAGS[match['assigned']]} {match['value']}"
    if match["clear"]:
        return _FLAGS[match["clear"]]
    if match["plain"]:
        return match["before"] + _FLAGS[match["plain"]]
    return match[0]


@contextmanager
def speaking_flags() -> Iterator[None]:
    """Within this, an `InvalidRequest` names flags."""
    from ..errors import InvalidRequest

    try:
        yield
    except InvalidRequest as error:
        raise InvalidRequest(in_flags(str(error))) from error
