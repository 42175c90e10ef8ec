"""The ops as torch's own: right schemas and fakes, compiled without a break, the same numbers as nextstep_rt.ops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from kit.compare import assert_same_bits
from kit.fused import attn_case, fm_case, linear_case, normal, qkv_case

from nextstep_rt import InvalidRequest, SamplingParams, ops, torch_ops

RNG = np.random.default_rng(7)
MADE, HEAD = fm_case(RNG, SamplingParams(num_tokens=4, solver="sde", num_inference_steps=3), 2, 2, 48)
GATED = linear_case(RNG, 3, 20, 24)
CASES: dict[str, dict[str, Any]] = {
    "linear": {**linear_case(RNG, 3, 20, 24), "silu": True},
    "gated_linear": {"x": GATED["x"], "gate": GATED["weight"], "up": GATED["weight"][::-1].copy()},
    "qkv_linear": qkv_case(RNG, 4, 24, 4, 2, 8),
    "attn_decode": attn_case(RNG, 4, 4, 2, 8, 33),
    "rms_norm": {"x": normal(RNG, 3, 24), "weight": normal(RNG, 24), "eps": 1e-5},
    "add_position": {"hidden": normal(RNG, 3, 24), "position": normal(RNG, 24)},
    "fm_modulations": MADE,
    "fm_head": {**HEAD, "modulations": ops.fm_modulations(**MADE)},
}


def tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.tensor(value)
    if isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        return [tensors(item) for item in value]
    return value


def arguments(name: str) -> dict[str, Any]:
    return {key: tensors(value) for key, value in CASES[name].items()}


def results(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def test_every_gpu_op_is_registered() -> None:
    assert set(torch_ops.__all__) == set(CASES)
    for name in CASES:
        assert hasattr(torch.ops.nextstep_rt, name), name


@pytest.mark.parametrize("name", CASES)
def test_schema_fake_and_dispatch(name: str) -> None:
    op = getattr(torch.ops.nextstep_rt, name).default
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(op, (), arguments(name), test_utils=checks)


@pytest.mark.parametrize("name", CASES)
def test_same_numbers_as_the_plain_op(name: str) -> None:
    plain = {key: value.copy() if isinstance(value, np.ndarray) else value for key, value in CASES[name].items()}
    given = arguments(name)
    got, want = results(getattr(torch.ops.nextstep_rt, name)(**given)), results(getattr(ops, name)(**plain))
    for g, w in zip(got, want, strict=True):
        assert_same_bits(g.numpy(), w)
    for cache in ("k_cache", "v_cache"):
        if name == "qkv_linear":
            assert_same_bits(given[cache].numpy(), plain[cache])


def test_compiles_into_one_graph() -> None:
    given = arguments("gated_linear")
    weight = torch.tensor(normal(RNG, 24, 20))

    def layer(x: torch.Tensor) -> torch.Tensor:
        inner = torch.ops.nextstep_rt.gated_linear(x, given["gate"], given["up"])
        out: torch.Tensor = torch.ops.nextstep_rt.linear(inner * 2, weight, None, x)
        return out

    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert_same_bits(compiled(given["x"]).numpy(), layer(given["x"]).numpy())


def test_weights_that_want_gradients_are_taken_and_bad_ones_refused() -> None:
    x, weight = torch.zeros(2, 8), torch.nn.Parameter(torch.zeros(4, 8))
    assert not torch.ops.nextstep_rt.linear(x, weight).any()
    with pytest.raises(InvalidRequest, match=r"weight has shape \[4, 9\]|x has shape"):
        torch.ops.nextstep_rt.linear(x, torch.zeros(4, 9))
