"""`bench`: the measurements, a package of their own that is loaded only when it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import typer

from .errors import guarded

NAME = "nextstep_rt.bench"
EXTRA = 'pip install "nextstep-rt[bench]"'


@guarded
def bench(context: typer.Context) -> None:
    """Measure this machine and the runtime on it: `nextstep-rt bench --help` has the commands."""
    load_bench().app(args=context.args, prog_name="nextstep-rt bench")


def load_bench() -> Any:
    """The measurements' command line: the source tree's where this is one, else the installed one.

    Raises `Error` where neither is there.
    """
    from ..errors import Error

    tree = Path(__file__).parents[2]
    source = tree / "bench" / "__init__.py"
    if NAME not in sys.modules and source.is_file() and (tree / "pyproject.toml").is_file():
        spec = importlib.util.spec_from_file_location(NAME, source, submodule_search_locations=[str(source.parent)])
        if spec is not None and spec.loader is not None:
            module = importlib.util.module_from_spec(spec)
            sys.modules[NAME] = module
            spec.loader.exec_module(module)
    try:
        return importlib.import_module(f"{NAME}.app")
    except ModuleNotFoundError as error:
        if error.name != NAME:
            raise
        raise Error(f"this installation has no measurements: {EXTRA}") from None
