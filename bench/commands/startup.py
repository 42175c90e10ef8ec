"""`startup`: how long until something can be drawn, from an import to the first token of a checkpoint."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from nextstep_rt import Error, InvalidRequest, ModelConfig, _core
from nextstep_rt.config import byte_size

from .. import options as o
from .. import startup as s
from ..measure import MAX_SPREAD, Policy
from ..startup_files import companion_keys, write_checkpoint
from ..subject import check_dtype, weight_bytes
from ..subject import find as find_shape

SHAPE = "1b"  # 2.1 GB in bfloat16
Synthetic = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SHAPE|KEY=VALUE",
        help=f"Random weights, written to a temporary folder: as of decode. Default {SHAPE}, 2.1 GB in bfloat16.",
    ),
]
Folder = Annotated[
    Path | None, typer.Option(help="Where the checkpoint is written and removed; default the system's temporary one.")
]


def startup(
    synthetic: Synthetic = None,
    dtype: o.Dtype = "bfloat16",
    threads: o.Threads = None,
    folder: Folder = None,
    repeats: o.Repeats = 7,
    warmup: o.Warmup = 1,
    max_spread: o.MaxSpread = MAX_SPREAD,
    allow_unsteady: o.AllowUnsteady = False,
    out: o.Out = None,
) -> None:
    """Import without torch; from a checkpoint in the page cache to an engine, a first token, a pipeline.

    Each time in a process of its own. The pipeline has the embedded model's tokenizer and VAE: a released tokenizer,
    with its 150,000 words, takes longer.
    """
    policy, count = Policy(repeats, warmup, max_spread), o.thread_count(threads)
    shape = find_shape(synthetic or (SHAPE,))
    keys = {**(shape.keys or {}), **companion_keys()}
    config = ModelConfig.from_json(json.dumps(keys))
    needed, available = weight_bytes(config, check_dtype(dtype)), int(_core.available_memory())
    if needed > available > 0:
        raise InvalidRequest(
            f"{shape.name} in {dtype} takes {byte_size(needed)}, and the page cache may have {byte_size(available)}: "
            "take a smaller shape"
        )
    fresh = s.Fresh()
    started = s.measure_import(policy, fresh)
    try:
        with tempfile.TemporaryDirectory(prefix="nextstep-startup-", dir=folder) as place:
            written = write_checkpoint(Path(place), keys, dtype)
            loaded = s.measure_folder(Path(place), dtype, count, policy, fresh)
    except OSError as error:
        raise Error(f"no temporary folder: {error.strerror or error}; give another --folder") from None
    settings = {"model": shape.name, "dtype": dtype, "threads": count, "repeats": repeats, "max_spread": max_spread}
    o.Ending(out, False, allow_unsteady)("startup", settings, s.figures(started, loaded, written))
