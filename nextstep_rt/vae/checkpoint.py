"""Reading an autoencoder's folder: nothing in it is ever executed, and everything in it is checked."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..errors import CheckpointError
from .config import VaeConfig

MAX_NAMED = 8


def read_config(folder: Path) -> VaeConfig:
    """The folder's config.json. Raises CheckpointError."""
    if not folder.is_dir():
        raise CheckpointError(f"no VAE at {folder}: a folder with config.json and weights is needed")
    return VaeConfig.from_folder(folder)


def read_state_dict(folder: Path) -> dict[str, torch.Tensor]:
    """All *.safetensors of the folder or, where there are none, checkpoint.pt. Raises CheckpointError."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        return _read_pickle(folder / "checkpoint.pt")
    merged: dict[str, torch.Tensor] = {}
    for file in files:
        try:
            tensors = load_file(file)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"cannot read {file}: {error}") from error
        twice = sorted(merged.keys() & tensors.keys())
        if twice:
            raise CheckpointError(f"{file} repeats tensors of another file: {_some(twice)}")
        merged.update(tensors)
    return merged


def _read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """A pickled state dict, bare or under "state_dict". weights_only refuses whatever could run code."""
    if not file.is_file():
        raise CheckpointError(f"no weights in {file.parent}: checkpoint.pt or *.safetensors is needed")
    try:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise half a dozen unrelated types
        raise CheckpointError(
            f"cannot read {file} as plain tensors ({_reason(error)}): it is damaged, or holds objects that are refused "
            "because loading them could run code; fetch it again, or ask its author for *.safetensors"
        ) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict):
        raise CheckpointError(f"{file} holds {type(loaded).__name__}, not a dictionary of tensors")
    other = [str(name) for name, value in loaded.items() if not (isinstance(name, str) and torch.is_tensor(value))]
    if other:
        raise CheckpointError(f"{file} holds entries that are not tensors: {_some(other)}")
    odd = [name for name, value in loaded.items() if not _is_dense(value)]
    if odd:
        raise CheckpointError(
            f"{file} holds tensors that are sparse or without data ({_some(odd)}): save them dense, on the CPU"
        )
    return dict(loaded)


def check_state_dict(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], folder: Path) -> None:
    """Raises CheckpointError naming what is missing, unknown, misshapen or not of floating point."""
    problems = []
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    if missing:
        problems.append(f"missing: {_some(missing)}")
    if unknown:
        problems.append(f"unknown: {_some(unknown)}")
    for name in sorted(expected.keys() & found.keys()):
        have, want = found[name], expected[name]
        if have.shape != want.shape:
            problems.append(f"{name} has shape {tuple(have.shape)}, config.json asks for {tuple(want.shape)}")
        elif not have.is_floating_point():
            problems.append(f"{name} is {have.dtype}, not floating point")
    if problems:
        raise CheckpointError(f"the VAE weights in {folder} do not fit its config.json: {_some(problems, '; ')}")


def _some(names: list[str], separator: str = ", ") -> str:
    more = len(names) - MAX_NAMED
    return separator.join(names[:MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_dense(tensor: torch.Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_nested


def _reason(error: Exception) -> str:
    """The kind of error, with its first line or the refused object; never torch's advice to load without safety."""
    kind, text = type(error).__name__, str(error)
    refused = re.search(r"GLOBAL ([\w.]+)", text)
    if refused:
        return f"{kind}: {refused[1]}"
    first = (text.splitlines() or [""])[0]
    advice = re.search(r"weights_only|torch\.load|can still be loaded", first)
    return kind if advice or not first else f"{kind}: {first}"
