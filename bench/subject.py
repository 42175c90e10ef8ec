"""What is measured: a checkpoint, or random weights of a shape; and how much memory that takes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nextstep_rt import Engine, InvalidRequest, ModelConfig, _core

from .environment import last_cache
from .synthetic import DEFAULT, keys_of, parse, random_weights, shared_weights

DTYPES = {"bfloat16": 2, "float32": 4}
KEEP_FREE = 0.8  # the share of the available memory that weights may take: caches and activations need the rest
OUT_OF_CACHE = 4  # a shared layer must exceed the last cache so many times, or it would be read from there


@dataclass(frozen=True)
class Subject:
    """A model to measure. weights: by name; what: "own layers", "one layer shared by all" or "checkpoint"."""

    name: str
    config: ModelConfig
    dtype: str
    weights: Any
    what: str

    def engine(self, threads: int | None = None) -> Engine:
        """A native engine on the CPU. Raises `Error` where it cannot be made."""
        return Engine(self.config, self.weights, dtype=self.dtype, threads=threads)


@dataclass(frozen=True)
class Shape:
    """A model's name and configuration, without weights; keys: its config.json where it is synthetic."""

    name: str
    config: ModelConfig
    keys: Mapping[str, Any] | None = None
    folder: str | None = None


def check_dtype(dtype: str) -> str:
    """The dtype itself. Raises `InvalidRequest` for another one."""
    if dtype not in DTYPES:
        raise InvalidRequest(f"--dtype is {dtype!r}: give {' or '.join(DTYPES)}")
    return dtype


def find(synthetic: Sequence[str] = (), model: str | None = None) -> Shape:
    """The shape that --synthetic or --model names; the 200m where neither does. Raises `InvalidRequest`."""
    if synthetic and model is not None:
        raise InvalidRequest("--synthetic and --model were both given: a run measures one model")
    if model is None:
        name, keys = parse(synthetic or (DEFAULT,))
        return Shape(name, ModelConfig.from_json(json.dumps(keys)), keys)
    from nextstep_rt.checkpoint import resolve_model

    folder = resolve_model(model)
    name = model.rstrip("/").rsplit("/", 1)[-1]
    return Shape(name, _core.Checkpoint(folder).config, folder=folder)


def named(name: str) -> Shape:
    """A synthetic shape of this name."""
    keys = keys_of(name)
    return Shape(name, ModelConfig.from_json(json.dumps(keys)), keys)


def weight_bytes(config: ModelConfig, dtype: str) -> int:
    """Bytes of all parameters that the loop reads, in `dtype`."""
    from nextstep_rt.reference import expected_shapes

    return DTYPES[dtype] * sum(math.prod(shape) for shape in expected_shapes(config).values())


def cache_bytes(config: ModelConfig, dtype: str, rows: int, positions: int) -> int:
    """Bytes of keys and values: 2 * layers * rows * positions * kv heads * head_dim numbers."""
    width = config.num_key_value_heads * config.head_dim
    return 2 * config.num_hidden_layers * rows * positions * width * DTYPES[dtype]


def head_bytes(config: ModelConfig, rows: int, steps: int) -> int:
    """Bytes of the head's modulations, the largest buffer of a token: steps * rows * (3 blocks + 2) * d_fm floats."""
    return 4 * steps * rows * (3 * config.fm_head_layers + 2) * config.fm_head_dim


def load(shape: Shape, dtype: str, available: int | None = None) -> Subject:
    """The model with its weights in `dtype`; synthetic ones share one layer where memory is too short for all.

    available: bytes that may be had; None asks the system. Raises `InvalidRequest` where not even one layer fits, or
    where a shared one would be read from a cache, which no model's layers are.
    """
    check_dtype(dtype)
    if shape.keys is None:
        return Subject(shape.name, shape.config, dtype, _core.Checkpoint(str(shape.folder)), "checkpoint")
    import torch

    from nextstep_rt.config import byte_size

    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    room = int(KEEP_FREE * (int(_core.available_memory()) if available is None else available))
    config, layers = shape.config, shape.config.num_hidden_layers
    needed = weight_bytes(config, dtype)
    if needed <= room or room <= 0:
        return Subject(shape.name, config, dtype, random_weights(config, kind), "own layers")
    one = ModelConfig.from_json(json.dumps({**shape.keys, "num_hidden_layers": 1}))
    none = weight_bytes(one, dtype)
    layer = (needed - none) // max(1, layers - 1)
    short = f"{shape.name} in {dtype} needs {byte_size(needed)} of weights and {byte_size(room)} may be used"
    if none > room:
        raise InvalidRequest(f"{short}; even one layer and the head need {byte_size(none)}: take a smaller shape")
    if layer < OUT_OF_CACHE * last_cache():
        raise InvalidRequest(
            f"{short}; one layer shared by all, {byte_size(layer)}, would stay in the last cache of "
            f"{byte_size(last_cache())}: take fewer num_hidden_layers"
        )
    return Subject(shape.name, config, dtype, shared_weights(dict(shape.keys), kind, layers), "one layer shared by all")
