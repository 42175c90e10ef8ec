"""Plots of results as PNG files, one module a kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..results import Record

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.figure import Figure


def draw(record: Record, path: Path) -> Path | None:
    """Draws a record's plot to `path`; None where nothing in it is steady.

    Raises `Error` where the file cannot be written.
    """
    from nextstep_rt import Error

    from . import latency, roofline, stages

    kinds: dict[str, Callable[[Record], Figure | None]] = {
        "roofline": roofline.bandwidths, "kernels": roofline.kernels, "decode": stages.breakdown,
        "image": stages.phases, "peers": stages.peers, "scaling": latency.axes, "sweep": latency.points,
    }  # fmt: skip
    make = kinds.get(record["command"])
    figure = None if make is None else make(record)
    if figure is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise Error(f"the plot cannot be written to {path}: {error.strerror or error}; name another --out") from None
    return path
