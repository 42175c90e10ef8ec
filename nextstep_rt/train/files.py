"""Files that are written whole or not at all, and what they are known by."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name beside `path` to write to, which takes its place at the end: a stop leaves no half of a file."""
    part = path.with_name(path.name + ".part")
    yield part
    os.replace(part, path)


def sha256(path: str | os.PathLike[str]) -> str:
    """The file's hash, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 22):
            digest.update(part)
    return digest.hexdigest()


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as safetensors, in bfloat16."""
    state = {name: weight.to("cpu", torch.bfloat16).contiguous() for name, weight in weights.items()}
    with replacing(path) as part:
        save_file(state, part)


def git_commit() -> str | None:
    """The commit of the source tree this package runs from; None outside of one.

    With "-dirty" where what decides a result differs from it: the package and the engine's sources.
    """
    here = os.path.dirname(os.path.dirname(__file__))

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True, check=False)
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed copy may lie below a repository of something else.
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}-dirty" if commit and git("status", "--porcelain", "--", ":/nextstep_rt", ":/csrc") else commit
