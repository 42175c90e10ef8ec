"""Running a drawing command: prompts to numbered PNGs, each written as soon as its engine batch is done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from ..batching import images_per_batch
from ..errors import InvalidRequest
from ..images import write_png
from ..pipeline import Pipeline
from ..progress import reporting
from ..request import Request

if TYPE_CHECKING:
    from ..result import GenerationResult


def read_prompts(prompt: str | None, file: Path | None) -> list[str]:
    """The one prompt, or the file's lines; exactly one of the two. Raises `InvalidRequest`."""
    if (prompt is None) == (file is None):
        raise InvalidRequest("give a prompt, or --prompts-file with one prompt a line (one of the two)")
    if file is None:
        return [prompt or ""]
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise InvalidRequest(f"cannot read {file}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{file} is not UTF-8 text: {error}") from None
    prompts = [line for line in lines if line.strip()]
    if not prompts:
        raise InvalidRequest(f"{file} holds no prompt: write one a line")
    return prompts


def output_paths(output: Path, count: int) -> list[Path]:
    """out.png, or out-0001.png ... for several. Checked before any work is done; raises `InvalidRequest`."""
    if output.suffix == "":
        output = output.with_name(output.name + ".png") if output.name else output
    if output.suffix.lower() != ".png":
        raise InvalidRequest(f"the output {output} must end in .png")
    folder = output.parent
    if not folder.is_dir():
        raise InvalidRequest(f"there is no folder {folder} for the output: make it with mkdir -p")
    if not os.access(folder, os.W_OK):
        raise InvalidRequest(f"the folder {folder} is not writable: choose another output with -o")
    paths = (
        [output]
        if count == 1
        else [output.with_name(f"{output.stem}-{i + 1:04d}{output.suffix}") for i in range(count)]
    )
    for path in paths:
        if path.exists() and not path.is_file():
            raise InvalidRequest(f"the output {path} exists and is not a file: choose another with -o")
    return paths


@dataclass
class Totals:
    """What the last line reports."""

    images: int = 0
    tokens: int = 0
    decode_s: float = 0.0


def draw(
    *, prompts: list[str], output: Path, preview: bool, quiet: bool, model: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Load, check everything, then draw and save batch by batch. Results go to stdout, notes to stderr."""
    pipe = Pipeline.from_pretrained(**model)
    request = pipe.check(prompts, **settings)
    paths = output_paths(output, request.num_images)
    for note in request.notes:
        typer.echo(f"note: {note}", err=True)
    pipe.vision.load()
    begin, totals = time.perf_counter(), Totals()
    size = images_per_batch(request.branches)
    batches = -(-request.num_images // size)
    with reporting(sys.stderr.isatty() and not quiet) as report:
        for number, (start, stop) in enumerate(_spans(request.num_images, size)):
            before = number * request.num_tokens
            listen = _listener(pipe, request, paths[start:stop], start, preview)

            def on_token(step: int, total: int, tokens: Any, before: int = before, listen: Any = listen) -> None:
                report(before + step, batches * request.num_tokens)
                listen(step, tokens)

            result = pipe(**_part(request, settings, start, stop), callback=on_token)
            _save(result, paths[start:stop])
            totals.images += stop - start
            totals.tokens += request.num_tokens
            totals.decode_s += result.timings["decode_s"]
    for path, seed in zip(paths, request.seeds, strict=True):
        typer.echo(str(path) if quiet else f"{path}  seed {seed}")
    if not quiet:
        typer.echo(_summary(totals, time.perf_counter() - begin, pipe))


def _summary(totals: Totals, seconds: float, pipe: Pipeline) -> str:
    images = "1 image" if totals.images == 1 else f"{totals.images} images"
    per_token = 1e3 * totals.decode_s / max(totals.tokens, 1)
    return f"{images} in {seconds:.2f} s, {per_token:.2f} ms per token ({pipe.engine.backend}, {pipe.engine.dtype})"


def _spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + size, count)) for start in range(0, count, size))


def _part(request: Request, settings: dict[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The call for images start..stop: each with its own prompt and seed, so the cut does not show in them."""
    prompts = [request.prompts[i // request.images_per_prompt] for i in range(start, stop)]
    fixed = {"height": request.height, "width": request.width, "seed": list(request.seeds[start:stop])}
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


def _save(result: GenerationResult, paths: Sequence[Path]) -> None:
    for image, path, metadata in zip(result.images, paths, result.metadata, strict=True):
        write_png(image, path, metadata)
