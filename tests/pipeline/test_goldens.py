"""Every golden case through the whole pipeline, native and reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from kit.golden import ALL, Golden, load_case, relative_error
from PIL import Image

from nextstep_rt import Engine, Pipeline

Loader = Callable[..., Pipeline]


def call_of(golden: Golden) -> dict[str, Any]:
    """The golden's request with its noise, and its picture as PIL."""
    call = {**golden.call, "noise": golden["noise"]}
    if "image" in golden.tensors:
        call["image"] = Image.fromarray(golden["image"][0].transpose(1, 2, 0))
    return call


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize(("dtype", "limit"), [("float32", 1e-5), ("bfloat16", 4e-2)])
@pytest.mark.parametrize(("checkpoint", "case"), ALL)
def test_goldens(pipeline: Loader, checkpoint: str, case: str, dtype: str, limit: float, backend: str) -> None:
    golden = load_case(checkpoint, case)
    pipe = pipeline(checkpoint, dtype=dtype, backend=backend)
    result = pipe(**call_of(golden), output_type="np")
    assert result.complete
    assert result.notes == []
    assert result.tokens.dtype == result.images.dtype == np.float32
    assert relative_error(result.tokens, golden["tokens"]) <= limit
    wanted = (np.clip(golden["pixels"], -1, 1) + 1) / 2
    assert relative_error(result.images.transpose(0, 3, 1, 2), wanted) <= limit
    latents = pipe.decode_tokens(result.tokens, golden.call["height"], golden.call["width"], "latent")
    assert relative_error(latents, golden["latents"]) <= limit


def test_auto_dtype_is_the_stored_one(pipeline: Loader) -> None:
    assert pipeline("tiny").engine.dtype == "bfloat16"
    assert isinstance(pipeline("tiny").engine, Engine)
