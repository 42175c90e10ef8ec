"""The files a command names: prompts to read, and PNGs to write, checked before any work is done."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

from ..errors import InvalidRequest

MAX_PROMPTS_BYTES = 1_000_000


def read_prompts(prompt: str | None, file: Path | None) -> list[str]:
    """The one prompt, or the file's lines ("-" is stdin); exactly one of the two. Raises `InvalidRequest`."""
    if (prompt is None) == (file is None):
        raise InvalidRequest("give a prompt, or --prompts-file with one prompt a line (one of the two)")
    if file is None:
        return [prompt or ""]
    name = "standard input" if str(file) == "-" else str(file)
    try:
        text = _read(file).decode("utf-8-sig")
    except OSError as error:
        raise InvalidRequest(f"cannot read {name}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{name} is not UTF-8 text: {error}") from None
    # Not splitlines(), which also splits at form feeds and U+2028.
    prompts = [line.removesuffix("\r") for line in text.split("\n") if line.strip()]
    if not prompts:
        raise InvalidRequest(f"{name} holds no prompt: write one a line")
    return prompts


def _read(file: Path) -> bytes:
    if str(file) != "-":
        with file.open("rb") as stream:
            return _bounded(stream, str(file))
    if sys.stdin is None:
        raise InvalidRequest("cannot read the prompts: standard input is closed")
    return _bounded(sys.stdin.buffer, "standard input")


def _bounded(stream: BinaryIO, name: str) -> bytes:
    data = stream.read(MAX_PROMPTS_BYTES + 1)
    if len(data) > MAX_PROMPTS_BYTES:
        raise InvalidRequest(f"{name} holds more than {MAX_PROMPTS_BYTES // 10**6} MB: split it into several files")
    return data


def output_paths(output: str, count: int) -> list[Path]:
    """out.png, or out-0001.png ... for several. Checked before any work is done; raises `InvalidRequest`."""
    if output in ("", "-"):
        where = "the output has no name" if output == "" else "images are not written to standard output"
        raise InvalidRequest(f"{where}: name a file with -o, e.g. -o out.png")
    path = Path(output)
    if output.endswith(("/", os.sep)) or path.name in ("", "..") or _is_folder(path):
        raise InvalidRequest(f"the output {output} is a folder: name a file in it, e.g. -o {path / 'image.png'}")
    _check_file(path)
    if path.suffix == "":
        path = path.with_name(path.name + ".png")
        _check_file(path)
    if path.suffix.lower() != ".png":
        raise InvalidRequest(f"the output {path} must end in .png")
    folder = path.parent
    if not _is_folder(folder):
        raise InvalidRequest(f"there is no folder {folder} for the output: make it with mkdir -p")
    if not os.access(folder, os.W_OK):
        raise InvalidRequest(f"the folder {folder} is not writable: choose another output with -o")
    if count == 1:
        return [path]
    paths = [path.with_name(f"{path.stem}-{i + 1:04d}{path.suffix}") for i in range(count)]
    for numbered in paths:
        _check_file(numbered)
    return paths


def _mode(path: Path) -> int | None:
    """The file's mode; None where there is none. Raises `InvalidRequest` where there can be none."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise InvalidRequest(f"cannot write {path}: {error.strerror or error}") from None


def _is_folder(path: Path) -> bool:
    mode = _mode(path)
    return mode is not None and stat.S_ISDIR(mode)


def _check_file(path: Path) -> None:
    mode = _mode(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise InvalidRequest(f"the output {path} exists and is not a file: choose another with -o")
