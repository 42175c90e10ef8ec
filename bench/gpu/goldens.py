"""The golden cases on the GPU, read without the tests' own helpers: for machines that lack what those import."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from .figures import Figures, relative_error
from .process import ROOT

FOLDER = ROOT / "tests" / "golden"
TOLERANCE = {"float32": 1e-5, "bfloat16": 4e-2}
KINDS = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
MOST_TOKENS = 3


def read_case(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The request and the tensors of a case's safetensors file."""
    raw = path.read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:begin])
    call = json.loads(header.pop("__metadata__")["call"])
    tensors = {}
    for name, entry in header.items():
        start, end = (begin + offset for offset in entry["data_offsets"])
        tensors[name] = np.frombuffer(raw[start:end], KINDS[entry["dtype"]]).reshape(entry["shape"])
    return call, tensors


def sampling(call: dict[str, Any], tensors: dict[str, np.ndarray]) -> Any:
    """SamplingParams of a case."""
    from nextstep_rt import SamplingParams
    from nextstep_rt.config import GenerationConfig

    known = vars(GenerationConfig(**{k: v for k, v in call.items() if k in GenerationConfig.names()}))
    settings = {k: v for k, v in known.items() if k not in ("negative_prompt", "positive_prompt", "height", "width")}
    edits = "image" in tensors and settings["image_guidance_scale"] != 1.0
    branches = 3 if edits else 2 if settings["guidance_scale"] != 1.0 else 1
    return SamplingParams(**settings, num_tokens=tensors["tokens"].shape[1], branches=branches)


def error_of(engine: Any, path: Path) -> float:
    """Of the first tokens, by norm."""
    call, tensors = read_case(path)
    params, ids = sampling(call, tensors), tensors["input_ids"]
    embeds = np.array(engine.embed_tokens(np.ascontiguousarray(ids.reshape(-1)))).reshape(*ids.shape, -1)
    if "image_tokens" in tensors:
        projected = engine.project_tokens(np.ascontiguousarray(tensors["image_tokens"][0], np.float32))
        for row, columns in enumerate(ids == engine.config.image_placeholder_id):
            if columns.any():
                embeds[row, columns] = projected
    count = min(MOST_TOKENS, params.num_tokens)
    engine.prefill(embeds, tensors["attention_mask"].astype(bool), max_new_tokens=params.num_tokens)
    noise = np.ascontiguousarray(tensors["noise"][:count], np.float32)
    return relative_error(engine.decode(params, count, noise=noise), tensors["tokens"][:, :count])


def check(figures: Figures, dtypes: tuple[str, ...] = tuple(TOLERANCE), only: str = "*") -> None:
    """Every case in every dtype; raises RuntimeError naming those that are too far off."""
    from nextstep_rt import Checkpoint, Engine

    errors: dict[str, float] = {}
    wrong = []
    for folder in sorted(p for p in FOLDER.iterdir() if p.is_dir()):
        model = Checkpoint(str(folder / "model"))
        for dtype in dtypes:
            engine = Engine(model.config, model, dtype=dtype, device="cuda")
            for path in sorted(folder.glob(f"{only}.safetensors")):
                name = f"{folder.name}/{path.stem} {dtype}"
                errors[name] = error_of(engine, path)
                figures.put("golden_errors", errors)
                if not errors[name] <= TOLERANCE[dtype]:
                    wrong.append(name)
    if wrong or not errors:
        raise RuntimeError(f"golden cases too far off: {', '.join(wrong) or 'there are none'}")
