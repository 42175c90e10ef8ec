"""Finding a model: the embedded demo, a folder, or a Hugging Face repo id; and the VAE folder that belongs to it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .config import show
from .errors import CheckpointError, InvalidRequest
from .vae.config import VaeConfig

if TYPE_CHECKING:
    from ._core import Checkpoint, ModelConfig

_REPO_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
# Weights, tokenizer and VAE; never the repository's Python code, which this package does not run.
_HUB_FILES = ["*.json", "*.safetensors", "*.pt", "*.txt"]


def resolve_model(model: str | os.PathLike[str], revision: str | None = None) -> str:
    """The folder of a model: "demo" (embedded), an existing folder, or a repo id fetched from the Hugging Face hub.

    Raises `CheckpointError` when there is no such model, `InvalidRequest` for a revision of something not on the hub.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InvalidRequest(f"model must be 'demo', a folder or a Hugging Face repo id, not {show(model)}")
    if revision is not None and (not isinstance(revision, str) or not revision):
        raise InvalidRequest(f"revision must be a branch, tag or commit of a Hugging Face repo, not {show(revision)}")
    name = os.fspath(model)
    if "\0" in name:
        raise CheckpointError(f"no model {show(name)}: a path holds no NUL")
    local = os.path.join(os.path.dirname(__file__), "demo") if name == "demo" else os.path.expanduser(name)
    if os.path.isdir(local):
        if revision is not None:
            raise InvalidRequest(f"revision {revision!r} was given, but {name} is a local folder: leave revision out")
        return os.path.abspath(local)
    if name == "demo":
        raise CheckpointError(
            f"the embedded model is missing from this installation ({local}): install the package again"
        )
    if os.path.exists(local):
        raise CheckpointError(f"{name} is a file: give the folder that holds config.json and model.safetensors")
    if _REPO_ID.fullmatch(name) is None:
        raise CheckpointError(
            f"no folder {show(name)}: give 'demo', a checkpoint folder, or a Hugging Face repo id 'owner/name'"
        )
    return _download(name, revision)


def _download(repo: str, revision: str | None) -> str:
    """Fetch a repo into the hub's cache. Whatever goes wrong there becomes one CheckpointError with the ways out."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise CheckpointError(
            f"no folder {repo!r}, and fetching it from the hub needs: pip install huggingface_hub"
        ) from None
    try:
        return str(snapshot_download(repo, revision=revision, allow_patterns=_HUB_FILES))
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        at = f" at revision {revision!r}" if revision else ""
        raise CheckpointError(
            f"there is no folder {repo!r}, and the Hugging Face repo of that name{at} could not be fetched: {reason} "
            "(check the name, the network and, for a private repo, `hf auth login`; or give a local folder)"
        ) from error


def resolve_vae(folder: str, stated: str) -> str:
    """The VAE's folder: `vae_name_or_path`, absolute or relative to the model, never out of it by `..`.

    An absolute path that does not exist here (a config may hold the path of the machine it was trained on) falls back
    to the model's own `vae/`. Raises `CheckpointError` when there is no such folder.
    """
    stated = stated or "vae/"
    own = os.path.join(folder, "vae")
    if "\0" in stated:
        raise CheckpointError(f"{folder}: vae_name_or_path {show(stated)} holds a NUL")
    if os.path.isabs(stated):
        candidates = [stated, own]
    elif ".." in re.split(r"[/\\]", stated):
        raise CheckpointError(
            f"{folder}: vae_name_or_path {stated!r} leaves the model's folder by '..': put the VAE inside it, or give "
            "an absolute path"
        )
    else:
        candidates = [os.path.join(folder, stated)]
    for candidate in candidates:
        if os.path.isfile(os.path.join(candidate, "config.json")):
            return os.path.normpath(candidate)
    raise CheckpointError(
        f"no VAE for {folder}: config.json's vae_name_or_path is {stated!r}, but there is no config.json in "
        f"{' or '.join(candidates)}; put the VAE's folder there (a hub repo id is not supported here)"
    )


@dataclass(frozen=True)
class Geometry:
    """The sizes a model draws at, in pixels. `factor` image pixels make one token's side, `vae_factor` one latent's."""

    native_height: int
    native_width: int
    factor: int
    vae_factor: int
    patch: int
    channels: int
    max_positions: int

    @property
    def token_dim(self) -> int:
        """Numbers per image token."""
        return self.channels * self.patch**2

    @property
    def native_tokens(self) -> int:
        """Image tokens of a native image."""
        return (self.native_height // self.factor) * (self.native_width // self.factor)

    @classmethod
    def of(cls, config: ModelConfig, vae_folder: str) -> Geometry:
        """From the model's config and the VAE's config.json, whose levels each halve the image but the last.

        Raises `CheckpointError` where the VAE's config is wrong or belongs to another model.
        """
        vae = VaeConfig.from_folder(vae_folder)
        _check_belongs(config, vae, os.path.join(vae_folder, "config.json"))
        vae_factor = vae.down_factor
        factor = vae_factor * config.latent_patch_size
        # A latent_size no multiple of the patch would make a native size nobody can ask for.
        side = max(config.latent_size * vae_factor // factor, 1) * factor
        return cls(
            side,
            side,
            factor,
            vae_factor,
            config.latent_patch_size,
            config.latent_channels,
            config.max_position_embeddings,
        )


def _check_belongs(config: ModelConfig, vae: VaeConfig, path: str) -> None:
    pairs = [("z_channels", vae.z_channels, "latent_channels", config.latent_channels)]
    if vae.encoder_norm and vae.psz is not None:
        pairs.append(("psz", vae.psz, "latent_patch_size", config.latent_patch_size))
    for name, value, model_name, wanted in pairs:
        if value != wanted:
            raise CheckpointError(
                f"{path} has {name} = {value}, but the model's config.json has {model_name} = {wanted}: they must be "
                "equal; this VAE belongs to another model"
            )
    for name, value in (("in_channels", vae.in_channels), ("out_ch", vae.out_ch)):
        if value != 3:
            raise CheckpointError(f"{path} has {name} = {value}: it must be 3, for red, green and blue")


def weight_dtype(checkpoint: Checkpoint) -> str:
    """The dtype the checkpoint's matrices are stored in: "bfloat16" or "float32"."""
    for name in checkpoint.keys():  # noqa: SIM118 - not a dict
        if name.endswith("mlp.down_proj.weight"):
            return str(checkpoint[name].dtype)
    raise CheckpointError("the checkpoint has no mlp.down_proj.weight: it holds no NextStep-1 backbone")
