"""One measuring stage as a process: `python -m bench.gpu.worker STAGE --figures FILE ...`; started by cli.py."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from pathlib import Path

from .core import is_emulated, load_core, make_emulator_small
from .figures import Figures
from .smi import CLOCKS, DRIVER, ask

STAGES = ("device", "kernels", "roofs", "goldens", "engine", "linear", "prefill", "profile", "torch")


def describe_device(figures: Figures) -> None:
    """What the figures are measured on."""
    import torch

    traits = torch.cuda.get_device_properties(0)
    figures.put("name", traits.name)
    figures.put("capability", f"{traits.major}.{traits.minor}")
    figures.put("multiprocessors", traits.multi_processor_count)
    figures.put("memory_bytes", traits.total_memory)
    figures.put("l2_bytes", getattr(traits, "L2_cache_size", None))
    figures.put("python", platform.python_version())
    figures.put("torch", torch.__version__)
    figures.put("torch_cuda", torch.version.cuda)
    figures.put("nvidia_smi", ask(DRIVER))
    figures.put("clocks_before", ask(CLOCKS))


def run(stage: str, figures: Figures, shape: str, emulated: bool, seconds: float) -> None:
    """One stage, in this process."""
    end = time.monotonic() + seconds
    if stage == "device":
        describe_device(figures)
    elif stage == "kernels":
        from . import kernels

        kernels.check(figures, small=emulated)
    elif stage == "linear":
        from . import linear

        linear.measure(figures, shape, lambda: end - time.monotonic())
    elif stage == "roofs":
        from . import roofs

        roofs.measure(figures)
    elif stage == "goldens":
        from . import goldens

        if emulated:
            goldens.check(figures, ("bfloat16",), "plain")
        else:
            goldens.check(figures)
    elif stage == "engine":
        from . import engine

        engine.measure(figures, shape, lambda: end - time.monotonic())
    elif stage == "prefill":
        from . import prefill

        prefill.measure(figures, shape, lambda: end - time.monotonic())
    elif stage == "profile":
        from ..synthetic import config_of
        from . import profile

        profile.measure(figures, shape, config_of(shape).num_hidden_layers)
    else:
        from . import baselines

        baselines.measure(figures, shape)


def main(arguments: list[str]) -> int:
    """The process's exit status; what went wrong is on its standard error."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu.worker")
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--figures", type=Path, required=True)
    parser.add_argument("--core", type=Path)
    parser.add_argument("--shape", default="14b")
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args(arguments)
    emulated = False
    if options.core is not None:
        load_core(options.core)
        emulated = is_emulated(options.core)
        if emulated:
            make_emulator_small(options.core)
    run(options.stage, Figures(options.figures), options.shape, emulated, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
