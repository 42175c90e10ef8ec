"""`doctor`: what this installation is and whether it works."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any

import typer

from .errors import fail, guarded, say

_PACKAGES = ("torch", "numpy", "tokenizers", "safetensors", "huggingface_hub", "pillow", "typer", "rich")


@guarded
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print the build, the instruction set, the backends and versions, and draw a test image."""
    report = examine()
    if as_json:
        say(json.dumps(report, indent=2))
    else:
        _print(report)
    if report["problems"]:
        raise fail("; ".join(report["problems"]), 1)


def examine() -> dict[str, Any]:
    """The report as plain values; what does not work is a line under "problems", never an exception."""
    problems: list[str] = []
    report: dict[str, Any] = {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "packages": {name: _version(name, problems) for name in _PACKAGES},
        "problems": problems,
    }
    try:
        from .. import _core
    except Exception as error:
        problems.append(f"the native module does not load ({error}): install the package again")
        return report
    checks: dict[str, Callable[[], Any]] = {
        "version": lambda: _core.__version__,
        "build": lambda: dict(_core.build_info()),
        "isa": _core.isa,
        "isa_levels": lambda: list(_core.isa_levels()),
        "isa_forced": lambda: os.environ.get("NSRT_ISA"),
        "cuda_devices": lambda: list(_core.cuda_devices()),
        "max_rows": lambda: _core.MAX_ROWS,
        "available_memory": lambda: int(_core.available_memory()),
    }
    for name, check in checks.items():
        try:
            report[name] = check()
        except Exception as error:
            report[name] = None
            problems.append(f"{name} cannot be told: {error}")
    cuda = (report["build"] or {}).get("cuda") == "on"
    report["backends"] = {"native/cpu": report["isa"] is not None, "native/cuda": cuda, "reference": True}
    if report["packages"].get("torch") is None:
        report["backends"]["reference"] = False
    if cuda:
        report["prefill_attention"] = _prefill_attention(report, problems)
    report["demo"] = _try_demo(problems)
    return report


def _version(name: str, problems: list[str]) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        problems.append(f"the package {name} is missing: pip install {name}")
    except Exception as error:  # a damaged installation
        problems.append(f"the package {name} cannot be read ({error}): install it again")
    return None


def _prefill_attention(report: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    """Of each GPU, which attention a long prompt of the released checkpoints gets, and the candidates' times."""
    if "linear kernels" in report["build"].get("cuda_prefill", ""):
        return {"all": "kernel, in chunks of rows"}
    from .. import prefill_attention

    told: dict[str, Any] = {}
    for device in range(len(report["cuda_devices"] or ())):
        try:
            told[f"cuda:{device}"] = prefill_attention.choose(device).to_json()
        except Exception as error:
            problems.append(f"the attention of prefill on cuda:{device} cannot be chosen: {error}")
    return told


def _try_demo(problems: list[str]) -> str:
    """Draw one small image with the embedded model, tokens only, so that torch is not needed."""
    try:
        import numpy as np

        from ..pipeline import Pipeline

        result = Pipeline.from_pretrained("demo", device="cpu")(
            "a red circle", seed=0, num_inference_steps=4, output_type="latent"
        )
        if not np.isfinite(result.tokens).all():
            raise RuntimeError("its tokens are not finite")
    except Exception as error:
        problems.append(f"the embedded model does not run: {error}")
        return "failed"
    return f"ok, {result.timings['ms_per_token']:.2f} ms per token at 4 steps"


def _print(report: dict[str, Any], indent: int = 0) -> None:
    for name, value in report.items():
        if isinstance(value, dict):
            say(f"{' ' * indent}{name}")
            _print(value, indent + 2)
        elif name != "problems":
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            say(f"{' ' * indent}{name:<{20 - indent}} {shown}")
