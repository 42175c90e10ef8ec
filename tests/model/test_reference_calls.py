"""What the oracle's engine refuses, and which answers of a callback stop it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kit.toy import random_request, random_tensors, sampling, small_config, started

from nextstep_rt.errors import Error, InvalidRequest
from nextstep_rt.reference import ReferenceEngine


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeds": np.zeros((1, 3, 5))}, r"\(1, 3, 5\)"),
        ({"embeds": np.zeros((1, 0, 24))}, r"\(1, 0, 24\)"),
        ({"mask": np.ones((2, 2))}, r"\(2, 2\)"),
        ({"mask": [[1, 1, 1], [0, 0, 0]]}, "row 1 of the mask is all padding"),
        ({"embeds": [[["x"] * 24]]}, "embeds has dtype"),
        ({"embeds": np.zeros((17, 1, 24), np.float32)}, "prefill of 17 rows; an engine carries 1 to 16"),
        ({"embeds": np.zeros((1, 9000, 24), np.float32)}, "twice the model's 4096 positions"),
        ({"mask": [["a", "b", "c"]] * 2}, "mask has dtype"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"max_new_tokens": 1.5}, r"max_new_tokens must be a whole number .* not 1\.5"),
        ({"max_new_tokens": 4094}, "3 prompt tokens and 4094 image tokens exceeds the model's 4096 positions"),
        ({"max_new_tokens": 10**12}, "exceeds the model's 4096 positions"),
    ],
)
def test_bad_prefill(arguments: dict[str, Any], message: str) -> None:
    config = small_config()
    engine = ReferenceEngine(config, random_tensors(config))
    with pytest.raises(InvalidRequest, match=message):
        engine.prefill(**{"embeds": np.zeros((2, 3, 24), np.float32), "max_new_tokens": 1, **arguments})


def test_bad_decode() -> None:
    config, params = small_config(), sampling()
    engine = ReferenceEngine(config, random_tensors(config))
    embeds, noise = random_request(config, 3, 3, params)
    with pytest.raises(InvalidRequest, match="prefill first"):
        engine.decode(params, noise=noise)
    engine.prefill(embeds, max_new_tokens=2)
    with pytest.raises(InvalidRequest, match="3 rows cannot be 2 branches"):
        engine.decode(sampling(branches=2), noise=noise)
    with pytest.raises(InvalidRequest, match="2 remain"):
        engine.decode(params, noise=noise)
    with pytest.raises(InvalidRequest, match="noise has shape"):
        engine.decode(params, 1, noise=noise)
    with pytest.raises(InvalidRequest, match="2 seeds for 3 images"):
        engine.decode(params, 1, seeds=[1, 2])
    for both in ({}, {"noise": noise[:1], "seeds": [1, 2, 3]}):
        with pytest.raises(InvalidRequest, match="exactly one"):
            engine.decode(params, 1, **both)
    with pytest.raises(InvalidRequest, match=r"0\.\.10.*11"):
        engine.embed_tokens([0, 11])
    with pytest.raises(InvalidRequest, match=r"\(2, 7\)"):
        engine.project_tokens(np.zeros((2, 7)))
    for options in ({"dtype": "float16"}, {"threads": 0}):
        with pytest.raises(InvalidRequest, match=str(next(iter(options.values())))):
            ReferenceEngine(config, random_tensors(config), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "ids", [[1.0], np.ones(2, np.float32), ["a"], [[1]], [[1], [1, 2]], [2**64 - 1], [2**70], [-1]]
)
def test_bad_token_ids(ids: Any) -> None:
    config = small_config()
    engine = ReferenceEngine(config, random_tensors(config))
    with pytest.raises(InvalidRequest, match="ids"):
        engine.embed_tokens(ids)
    assert engine.embed_tokens([]).shape == (0, 24)


@pytest.mark.parametrize("seed", [-1, "x", 1.5, None, 2**64])
def test_bad_seeds(seed: Any) -> None:
    config = small_config()
    embeds, _ = random_request(config, 1, 3, sampling())
    engine = started(config, random_tensors(config), embeds)
    with pytest.raises(InvalidRequest, match="is not an integer between 0 and 2"):
        engine.decode(sampling(), 1, seeds=[seed])
    with pytest.raises(InvalidRequest, match="seeds must be a list"):
        engine.decode(sampling(), 1, seeds=3)  # type: ignore[arg-type]
    assert engine.decode(sampling(), 1, seeds=[2**64 - 1]).shape[1] == 1


@pytest.mark.parametrize("count", [-1, 1.5, "2", True, 10**30])
def test_bad_counts(count: Any) -> None:
    config, params = small_config(), sampling()
    embeds, noise = random_request(config, 1, 3, params)
    with pytest.raises(InvalidRequest, match="count"):
        started(config, random_tensors(config), embeds).decode(params, count, noise=noise)


@pytest.mark.parametrize(
    "sizes", [(-1, 1, 1), (17, 1, 1), (1, 0, 1), (1, 4097, 1), (1, 1, 0), (1, 1, 1001), (1.5, 1, 1)]
)
def test_bad_plans(sizes: tuple[Any, Any, Any]) -> None:
    config = small_config()
    with pytest.raises(InvalidRequest, match=r"rows|positions|steps"):
        ReferenceEngine(config, random_tensors(config)).plan(*sizes)


@pytest.mark.parametrize(
    "answer", [None, 0, 0.0, "", [], np.zeros(0), np.zeros(2), True, np.True_, np.int64(0)], ids=repr
)
def test_only_false_stops(answer: Any) -> None:
    config, params = small_config(), sampling()
    embeds, noise = random_request(config, 1, 3, params)
    engine = ReferenceEngine(config, random_tensors(config))
    engine.prefill(embeds, max_new_tokens=4, progress=lambda *_: answer)
    assert engine.decode(params, noise=noise, callback=lambda *_: answer).shape[1] == 4
    engine.prefill(embeds, max_new_tokens=4)
    assert engine.decode(params, noise=noise, callback=lambda *_: np.False_).shape[1] == 1


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    config = small_config()
    tensors = random_tensors(config)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device, index in (("cuda", 0), ("cuda:3", 3)):
        with pytest.raises(Error, match=f"device cuda:{index} was asked for, but torch has no CUDA here; use .*'cpu'"):
            ReferenceEngine(config, tensors, device=device)
    for unknown in ("x", "cuda:", "cuda:-1", "cuda:²", "cpu:0", "mps", "", None, 3):
        with pytest.raises(InvalidRequest, match="unknown device"):
            ReferenceEngine(config, tensors, device=unknown)  # type: ignore[arg-type]
    assert ReferenceEngine(config, tensors, device="auto").rows == 0
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(Error, match="device cuda:2 was asked for, but torch has 2 CUDA"):
        ReferenceEngine(config, tensors, device="cuda:2")
