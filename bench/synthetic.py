"""Random weights of any shape, so that speed can be measured without a checkpoint."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nextstep_rt import InvalidRequest, ModelConfig

if TYPE_CHECKING:
    import torch

# The 14B is the released model; "200m" is the shape this project's CPU targets are stated at, "1b" the one between;
# "tiny" is for tests. "demo" is the embedded model's shape.
SHAPES: dict[str, dict[str, Any]] = {
    "200m": {
        "hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 4, "fm_head_dim": 768, "fm_head_layers": 8,
    },
    "1b": {
        "hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 16,
        "num_key_value_heads": 4, "fm_head_dim": 1024, "fm_head_layers": 12,
    },
    "14b": {
        "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48, "num_attention_heads": 40,
        "num_key_value_heads": 8, "fm_head_dim": 1536, "fm_head_layers": 12,
    },
    "tiny": {
        "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "fm_head_dim": 64, "fm_head_layers": 2,
    },
}  # fmt: skip
COMMON: dict[str, Any] = {
    "rms_norm_eps": 1e-6, "rope_theta": 1e6, "vocab_size": 1024, "max_position_embeddings": 8192,
    "attention_bias": True, "o_attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
    "latent_size": 32, "latent_patch_size": 2, "latent_channels": 16, "boi": 1, "eoi": 2, "image_placeholder_id": 3,
    "pad_token_id_added": 0,
}  # fmt: skip
NAMES = (*SHAPES, "demo")
DEFAULT = "200m"
# Keys a KEY=VALUE may set; the ids of special tokens change nothing that is measured.
KNOWN = sorted({
    *SHAPES[DEFAULT], "head_dim", "fm_head_mlp_ratio", "vocab_size", "max_position_embeddings", "attention_bias",
    "o_attention_bias", "mlp_bias", "latent_size", "latent_patch_size", "latent_channels", "use_gen_pos_embed",
    "rope_theta",
})  # fmt: skip


def keys_of(shape: str) -> dict[str, Any]:
    """The config.json of a named shape. Raises `InvalidRequest` for an unknown name."""
    if shape == "demo":
        import nextstep_rt

        for folder in nextstep_rt.__path__:
            path = Path(folder) / "demo" / "config.json"
            if path.is_file():
                return dict(json.loads(path.read_text(encoding="utf-8")))
        raise InvalidRequest("the embedded model is missing from this installation: install the package again")
    if shape not in SHAPES:
        close = difflib.get_close_matches(shape, NAMES, 1, 0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InvalidRequest(
            f"unknown shape {shape!r}: give one of {', '.join(NAMES)}, or KEY=VALUE with a key of "
            f"{', '.join(KNOWN)}{hint}"
        )
    return COMMON | SHAPES[shape]


def config_of(shape: str, **changes: Any) -> ModelConfig:
    """The configuration of a named shape."""
    return ModelConfig.from_json(json.dumps(keys_of(shape) | changes))


def parse(words: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """A name for the shape and its config.json, from words like "200m", "hidden_size=2048" or "200m hidden_size=2048".

    Without a name the keys change the 200m. Raises `InvalidRequest` naming the word and what is known.
    """
    parts = [part for word in words for part in word.replace(",", " ").split()]
    names = [part for part in parts if "=" not in part]
    if len(names) > 1:
        raise InvalidRequest(f"--synthetic names the shapes {' and '.join(names)}: give one, then KEY=VALUE")
    base = (names or [DEFAULT])[0].lower()
    changes: dict[str, Any] = {}
    for part in parts:
        if "=" in part:
            key, value = _assignment(part)
            if key in changes:
                raise InvalidRequest(f"--synthetic gives {key} twice: keep the one that is meant")
            changes[key] = value
    keys = keys_of(base)
    if "head_dim" in keys and "head_dim" not in changes and {"hidden_size", "num_attention_heads"} & changes.keys():
        raise InvalidRequest(f"the shape {base} states head_dim {keys['head_dim']}: give head_dim=... too")
    return " ".join([base, *(f"{key}={value}" for key, value in sorted(changes.items()))]), keys | changes


def _assignment(part: str) -> tuple[str, Any]:
    key, _, text = part.partition("=")
    if key not in KNOWN:
        close = difflib.get_close_matches(key, KNOWN, 1, 0.5)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise InvalidRequest(f"--synthetic has the unknown key {key!r}: known are {', '.join(KNOWN)}{hint}")
    try:
        value = json.loads(text.lower())
    except ValueError:
        value = None
    if not isinstance(value, (int, float)):
        raise InvalidRequest(f"--synthetic {part}: {text!r} is no number, nor true or false")
    return key, value


def random_weights(config: ModelConfig, dtype: torch.dtype, seed: int = 0) -> dict[str, torch.Tensor]:
    """Normal weights scaled by 1/sqrt(fan in), by the released names; norms are ones, biases small."""
    import torch

    from nextstep_rt.reference import expected_shapes

    generator = torch.Generator().manual_seed(seed)
    out: dict[str, torch.Tensor] = {}
    for name, shape in expected_shapes(config).items():
        if name.endswith(("norm.weight", "in_ln.weight")):
            out[name] = torch.ones(shape, dtype=dtype)
        else:
            scale = shape[1] ** -0.5 if len(shape) == 2 else 0.02
            out[name] = (torch.randn(shape, generator=generator) * scale).to(dtype)
    return out


def shared_weights(
    shape: str | dict[str, Any], dtype: torch.dtype, layers: int, device: str = "cpu"
) -> dict[str, torch.Tensor]:
    """Like random_weights, but all backbone layers are the same arrays: little to make, little host memory.

    The FM head's blocks stay different ones: together they may fit in a cache that a layer of the backbone does not.
    shape: a name, or the keys of a config.json.
    """
    keys = keys_of(shape) if isinstance(shape, str) else shape
    config = ModelConfig.from_json(json.dumps(keys | {"num_hidden_layers": 1}))
    made = {name: tensor.to(device) for name, tensor in random_weights(config, dtype).items()}
    layer = {name.removeprefix("layers.0."): t for name, t in made.items() if name.startswith("layers.0.")}
    out = {name: tensor for name, tensor in made.items() if not name.startswith("layers.0.")}
    for i in range(layers):
        out |= {f"layers.{i}.{name}": tensor for name, tensor in layer.items()}
    return out
