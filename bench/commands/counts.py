"""`counts`: instructions and bytes of every CPU op and stage, held to the committed baseline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nextstep_rt import InvalidRequest

from .. import counts as c
from .. import counts_run

Update = Annotated[bool, typer.Option("--update", help="Write what was counted as the new baseline.")]
Baseline = Annotated[Path, typer.Option(metavar="FILE.json", help="The baseline to hold it to, or to write.")]
Build = Annotated[Path, typer.Option(metavar="FOLDER", help="Where the counted program is built.")]


def counts(update: Update = False, baseline: Baseline = c.BASELINE, build: Build = counts_run.FOLDER) -> None:
    """Instructions (under valgrind, one thread, AVX2) and bytes of every CPU op and stage, against the baseline.

    Fails where bytes differ at all or instructions by more than the tolerance; times are shown and never compared.
    """
    counts_run.need_tree()
    before = known(baseline, update)
    now = counts_run.measure(build)
    changes = c.compare(before or now, now)
    c.table(changes, now).show()
    if update:
        c.write(now, baseline)
        typer.echo(f"written: {baseline}")
        return
    reason = None if before is None else c.comparable(before, now)
    if reason is not None:
        typer.echo(f"note: instructions are shown and not asserted: {reason}. Bytes are asserted.")
    c.check(changes, baseline)
    what = "bytes are" if reason is not None else f"instructions within {c.TOLERANCE:.0%}, and bytes, are"
    typer.echo(f"{what} those of {baseline.name}: {len(changes)} cases")


def known(baseline: Path, update: bool) -> c.Counts | None:
    """What the file holds; None where it is to be written and there is none yet that can be read."""
    try:
        return c.read(baseline)
    except InvalidRequest:
        if update:
            return None
        raise
