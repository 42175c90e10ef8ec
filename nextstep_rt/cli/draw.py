"""Running a drawing command: prompts to numbered PNGs, each written as soon as its engine batch is done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..batching import images_per_batch
from ..images import write_png
from ..pipeline import Pipeline
from ..progress import is_terminal, reporting
from ..request import Request
from .errors import say
from .files import output_paths
from .names import speaking_flags

if TYPE_CHECKING:
    from ..result import GenerationResult


@dataclass
class Totals:
    """What the last line reports."""

    images: int = 0
    tokens: int = 0
    decode_s: float = 0.0


def draw(
    *, prompts: list[str], output: str, preview: bool, quiet: bool, model: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Load, check everything, then draw and save batch by batch. Results go to stdout, notes to stderr."""
    with speaking_flags():
        pipe = Pipeline.from_pretrained(**model)
        request = pipe.check(prompts, **settings)
    paths = output_paths(output, request.num_images)
    for note in request.notes:
        typer.echo(f"note: {note}", err=True)
    pipe.vision.load()
    begin, totals = time.perf_counter(), Totals()
    size = images_per_batch(request.branches)
    batches = -(-request.num_images // size)
    with reporting(is_terminal(sys.stderr) and not quiet) as report:
        for number, (start, stop) in enumerate(_spans(request.num_images, size)):
            before = number * request.num_tokens
            listen = _listener(pipe, request, paths[start:stop], start, preview)

            def on_token(step: int, total: int, tokens: Any, before: int = before, listen: Any = listen) -> None:
                report(before + step, batches * request.num_tokens)
                listen(step, tokens)

            with speaking_flags():
                result = pipe(**_part(request, settings, start, stop), callback=on_token)
            _save(result, paths[start:stop], quiet=quiet)
            totals.images += stop - start
            totals.tokens += request.num_tokens
            totals.decode_s += result.timings["decode_s"]
    if not quiet:
        say(_summary(totals, time.perf_counter() - begin, pipe))


def _summary(totals: Totals, seconds: float, pipe: Pipeline) -> str:
    images = "1 image" if totals.images == 1 else f"{totals.images} images"
    per_token = 1e3 * totals.decode_s / max(totals.tokens, 1)
    return f"{images} in {seconds:.2f} s, {per_token:.2f} ms per token ({pipe.engine.backend}, {pipe.engine.dtype})"


def _spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, count)) for start in range(0, count, size))


def _part(request: Request, settings: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The call for images start..stop: each with its own prompt and seed, so the cut does not show in them.

    The picture is the one that was checked: the file may be an output of this very command, and so overwritten by now.
    """
    prompts = [request.prompts[i // request.images_per_prompt] for i in range(start, stop)]
    fixed: dict[str, Any] = {"height": request.height, "width": request.width}
    fixed["seed"] = list(request.seeds[start:stop])
    if request.image is not None:
        fixed["image"] = request.image
    return {**settings, **fixed, "prompt": prompts, "num_images_per_prompt": 1}


def _listener(
    pipe: Pipeline, request: Request, paths: Sequence[Path], start: int, preview: bool
) -> Callable[[int, Any], None]:
    """With preview, rewrites the PNGs whenever a row of tokens is complete; the last row is left to the result."""
    columns = request.grid[1]

    def listen(step: int, tokens: Any) -> None:
        if not preview or step % columns or step == request.num_tokens:
            return
        images = pipe.decode_tokens(tokens, request.height, request.width)
        for i, (image, path) in enumerate(zip(images, paths, strict=True)):
            write_png(image, path, {**request.to_json(start + i), "rows_complete": step // columns})

    return listen


def _save(result: GenerationResult, paths: Sequence[Path], *, quiet: bool) -> None:
    """Write the images, and name each on stdout as soon as it is there."""
    for image, path, seed, metadata in zip(result.images, paths, result.seeds, result.metadata, strict=True):
        write_png(image, path, metadata)
        say(str(path) if quiet else f"{path}  seed {seed}")
