"""`info`: what a checkpoint is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from ..config import byte_size
from . import options as o
from .errors import guarded


@guarded
def info(
    model: Annotated[str, typer.Argument(help="demo, a checkpoint folder, or a Hugging Face repo id.")] = "demo",
    revision: o.Revision = None,
    dtype: o.Dtype = "auto",
    verify: Annotated[bool, typer.Option("--verify", help="Read every weight and name those with NaN or inf.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print a checkpoint's shapes, parameters and the bytes a token reads."""
    summary = summarize(model, revision, dtype)
    if as_json:
        typer.echo(json.dumps({key: value for key, value in summary.items() if key not in _OPEN}, indent=2))
    else:
        _print(summary)
    if verify:
        _verify(summary["checkpoint"], summary["vae"], quiet=as_json)


def summarize(model: str, revision: str | None, dtype: str) -> dict[str, Any]:
    """Everything `info` prints, as plain values; and, under the names in _OPEN, the open checkpoint and the VAE."""
    from .. import _core
    from ..checkpoint import Geometry, resolve_model, resolve_vae, weight_dtype
    from ..config import GenerationConfig, choice
    from ..pipeline import DTYPES
    from ..vae import VAE

    choice("dtype", dtype, DTYPES)
    folder = resolve_model(model, revision)
    checkpoint = _core.Checkpoint(folder)
    config = checkpoint.config
    vae_folder = resolve_vae(folder, config.vae_name_or_path)
    geometry = Geometry.of(config, vae_folder)
    vae = VAE.from_folder(vae_folder)
    defaults = GenerationConfig.from_folder(folder)
    wanted = weight_dtype(checkpoint) if dtype == "auto" else dtype
    rows = 2 if defaults.guidance_scale != 1.0 else 1
    steps, tokens = defaults.num_inference_steps, geometry.native_tokens
    return {
        "folder": folder,
        "files": [*checkpoint.files],
        "bytes": checkpoint.nbytes,
        "dtype": weight_dtype(checkpoint),
        "native_height": geometry.native_height,
        "native_width": geometry.native_width,
        "image_tokens": tokens,
        "size_multiple": geometry.factor,
        "shapes": {name: getattr(config, name) for name in _SHAPES},
        "parameters": {**_count(checkpoint), "vae": sum(parameter.numel() for parameter in vae.parameters())},
        "token": {"dtype": wanted, "rows": rows, "steps": steps, "positions": tokens},
        "bytes_per_token": dict(_core.token_cost(config, wanted, rows, steps, tokens)),
        "defaults": {name: getattr(defaults, name) for name in GenerationConfig.names()},
        "checkpoint": checkpoint,
        "vae": vae,
    }


_OPEN = ("checkpoint", "vae")

_SHAPES = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "fm_head_layers",
    "fm_head_dim",
    "token_dim",
)


def _count(checkpoint: Any) -> dict[str, int]:
    """Parameters of the backbone, the flow-matching head and the embeddings (text in and out, image in and out)."""
    groups = {"backbone": 0, "fm_head": 0, "embeddings": 0}
    for name in checkpoint.keys():  # noqa: SIM118 - not a dict
        size = 1
        for side in checkpoint[name].shape:
            size *= side
        bare = name.removeprefix("model.")
        if bare.startswith("image_head."):
            groups["fm_head"] += size
        elif bare.startswith(("layers.", "norm.")):
            groups["backbone"] += size
        else:
            groups["embeddings"] += size
    return groups


def _print(summary: dict[str, Any]) -> None:
    shapes, parameters, token = summary["shapes"], summary["parameters"], summary["token"]
    lines = [
        ("model", summary["folder"]),
        ("weights", f"{len(summary['files'])} file(s), {byte_size(summary['bytes'])}, {summary['dtype']}"),
        (
            "native image",
            f"{summary['native_height']}x{summary['native_width']}, {summary['image_tokens']} tokens of "
            f"{shapes['token_dim']} numbers",
        ),
        ("sizes", f"multiples of {summary['size_multiple']}"),
        (
            "backbone",
            "hidden {hidden_size}, {num_hidden_layers} layers, {num_attention_heads} heads / {num_key_value_heads} KV "
            "heads of {head_dim}, MLP {intermediate_size}".format(**shapes),
        ),
        ("FM head", f"{shapes['fm_head_layers']} blocks of {shapes['fm_head_dim']}"),
        ("vocabulary", f"{shapes['vocab_size']}"),
        ("positions", f"{shapes['max_position_embeddings']}"),
    ]
    _table("", lines)
    _table(
        "parameters",
        [(name, f"{count:,}") for name, count in [*parameters.items(), ("total", sum(parameters.values()))]],
    )
    head = "bytes read per token ({dtype}, {rows} rows, {steps} steps, {positions} positions)".format(**token)
    _table(head, [(name, byte_size(count)) for name, count in summary["bytes_per_token"].items()])


def _table(title: str, lines: list[tuple[str, str]]) -> None:
    if title:
        typer.echo(f"\n{title}")
    for name, value in lines:
        typer.echo(f"  {name:<14}{value}" if title else f"{name:<16}{value}")


def _verify(checkpoint: Any, vae: Any, *, quiet: bool) -> None:
    """The VAE as loaded, in float32: a float64 weight beyond its range counts too."""
    from ..errors import CheckpointError
    from ..progress import token_bar

    with token_bar("bytes checked") as report:
        broken = checkpoint.verify(report)
    broken += [f"the VAE's {name}" for name, tensor in vae.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 8} more" if len(broken) > 8 else ""
        raise CheckpointError(
            f"NaN or inf in {len(broken)} tensor(s): {', '.join(broken[:8])}{more}; fetch the files again"
        )
    if not quiet:
        typer.echo("\nverified: every weight is finite")
