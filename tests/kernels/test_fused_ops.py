"""The fused ops in host memory against the oracle in float64; tests/cuda holds the GPU's kernels to the same ops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from kit.compare import assert_close, assert_same_bits
from kit.fused import attn_case, fm_case, linear_case, normal, qkv_case

from nextstep_rt import Error, InvalidRequest, SamplingParams, _core, ops, reference
from nextstep_rt.ops import cuda
from nextstep_rt.reference.fm_head import NET, modulate
from nextstep_rt.reference.solver import SOLVERS

CLOSE = 2e-6


def double(array: Any) -> torch.Tensor:
    return torch.tensor(array, dtype=torch.float64)


def rms_normed(x: Any, weight: Any) -> torch.Tensor:
    return reference.rms_norm(double(x), double(weight), 1e-6)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_linear_behind_a_norm(rows: int) -> None:
    case = linear_case(np.random.default_rng(rows), rows, 23, 37)
    want = rms_normed(case["x"], case["norm_weight"]) @ double(case["weight"]).T + double(case["bias"])
    want = torch.nn.functional.silu(want) + double(case["residual"])
    assert_close(ops.linear(**case, silu=True), want, CLOSE)


def test_gated_linear() -> None:
    rng = np.random.default_rng(1)
    gate, up = linear_case(rng, 3, 23, 37), linear_case(rng, 3, 23, 37)
    given = {"gate": gate["weight"], "up": up["weight"], "gate_bias": gate["bias"], "up_bias": up["bias"]}
    x = rms_normed(gate["x"], gate["norm_weight"])
    g, u = (x @ double(c["weight"]).T + double(c["bias"]) for c in (gate, up))
    got = ops.gated_linear(gate["x"], **given, norm_weight=gate["norm_weight"])
    assert_close(got, torch.nn.functional.silu(g) * u, CLOSE)


def test_qkv_linear_rotates_scales_and_writes_its_places_only() -> None:
    case = qkv_case(np.random.default_rng(2), 5, 37, 4, 2, 6)
    before = [case[name].copy() for name in ("k_cache", "v_cache")]
    q = ops.qkv_linear(**case)
    x, position = rms_normed(case["x"], case["norm_weight"]), torch.tensor(case["places"][:, 1])
    wants = [
        (x @ double(weight).T + double(bias)).reshape(5, -1, 6)
        for weight, bias in zip(case["weights"], case["biases"], strict=True)
    ]
    tables = reference.rope_tables(position[:, None], 6, 10000.0, torch.float64)
    turned = [reference.apply_rope(heads[:, :, None], *tables)[:, :, 0] for heads in wants[:2]]
    assert_close(q, turned[0] / 6**0.5, CLOSE, what="q")
    at = (case["places"][:, 0], slice(None), case["places"][:, 1])
    for cache, old, want in zip((case["k_cache"], case["v_cache"]), before, (turned[1], wants[2]), strict=True):
        assert_close(cache[at], want, CLOSE, what="a cache")
        cache[at] = old[at]
        assert_same_bits(cache, old)


def test_attn_decode_sees_its_own_range_of_its_own_sequence() -> None:
    case = attn_case(np.random.default_rng(3), 6, 4, 2, 10, 41)
    got = ops.attn_decode(**case)
    for row, (sequence, position) in enumerate(case["places"]):
        seen = slice(case["starts"][row], position + 1)
        k, v = (double(case[name][sequence, :, seen]).repeat_interleave(2, dim=0) for name in ("k_cache", "v_cache"))
        weights = torch.softmax(k @ double(case["q"][row])[:, :, None], dim=1)
        assert_close(got[row], (weights * v).sum(dim=1), CLOSE, what=f"row {row}")


@dataclass
class Shape:
    fm_head_dim: int = 56
    fm_head_layers: int = 2


def head_weights(case: Any) -> dict[str, torch.Tensor]:
    """The list that fm_head takes, under the released names."""
    names = ["input_proj", "final_layer.linear"]
    for i in range(Shape.fm_head_layers):
        names += [f"res_blocks.{i}.{part}" for part in ("in_ln", "mlp.0", "mlp.2")]
    parts = [f"{NET}{name}.{part}" for name in names for part in ("weight", "bias")]
    return {name: double(array) for name, array in zip(parts, case["weights"], strict=True)}


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_fm_head(solver: str, branches: int) -> None:
    images = 2
    params = SamplingParams(num_tokens=4, solver=solver, num_inference_steps=4, branches=branches)
    made, head = fm_case(np.random.default_rng(branches), params, branches, images, 48)
    modulations = ops.fm_modulations(**made)
    cond = double(made["condition"]) @ double(made["cond_weight"]).T + double(made["cond_bias"])
    y = torch.nn.functional.silu(double(made["times"])[:, None] + cond[None])
    want = (y @ double(made["weight"]).T + double(made["bias"])).flatten(0, 1)
    assert_close(modulations, want, CLOSE, what="modulations")

    weights, per_time = head_weights(head), want.reshape(len(made["times"]), branches * images, -1)

    def velocity(x: torch.Tensor, time: int) -> torch.Tensor:
        v = reference.velocity(weights, Shape(), x.repeat(branches, 1), per_time[time])  # type: ignore[arg-type]
        return reference.combine_guidance(v, branches, head["guidance"], head["image_guidance"], head["renorm"])

    noise = double(head["noise"])
    sample = reference.integrate(params, ops.time_grid(params).tolist(), noise[0], noise[1:], velocity)[-1]
    tokens, embeds = ops.fm_head(modulations=modulations, **head)
    want = reference.normalize_token(sample)
    assert_close(tokens, want, 2e-5, what="tokens")
    assert_close(embeds, want.repeat(branches, 1) @ double(head["image_in"][0]).T + double(head["image_in"][1]), 2e-5)
    plain, nothing = ops.fm_head(modulations=modulations, **{**head, "image_in": ()}, normalize=False)
    assert nothing is None
    assert_close(plain, sample, 2e-5, what="the sample")


def test_modulate_of_the_oracle_is_one_product() -> None:
    """fm_modulations takes the matrices of all layers below one another, as the oracle's layers follow each other."""
    rng = np.random.default_rng(4)
    names = [f"res_blocks.{i}" for i in range(2)] + ["final_layer"]
    rows = {name: normal(rng, (2 if name == "final_layer" else 3) * 56, 56) for name in names}
    weights = {f"{NET}{name}.adaLN_modulation.1.weight": double(matrix) for name, matrix in rows.items()}
    y = double(normal(rng, 3, 56))
    stacked = torch.nn.functional.silu(y) @ double(np.concatenate(list(rows.values()))).T
    assert_close(modulate(weights, Shape(), y), stacked, 1e-12)  # type: ignore[arg-type]


def test_rope_tables_and_add_position() -> None:
    cos, sin = ops.rope_tables(19, 8, theta=500.0)
    want = reference.rope_tables(torch.arange(19)[None], 8, 500.0, torch.float64)
    for got, table in zip((cos, sin), want, strict=True):
        assert_close(got, table[0, 0], 1e-7)
    hidden, position = np.ones((2, 3), np.float32), np.arange(3, dtype=np.float32)
    assert_same_bits(ops.add_position(hidden, position), hidden + position)
    assert ops.add_position(hidden) is not hidden
    with pytest.raises(InvalidRequest, match="head_dim 7"):
        ops.rope_tables(4, 7, theta=500.0)


def test_refusals() -> None:
    rng = np.random.default_rng(6)
    x, weight = normal(rng, 2, 8), normal(rng, 3, 8)
    with pytest.raises(InvalidRequest, match="out is for arrays of a GPU"):
        ops.linear(x, weight, out=np.empty((2, 3), np.float32))
    with pytest.raises(InvalidRequest, match="in host memory the result is float32"):
        ops.add_position(x, dtype="bfloat16")
    with pytest.raises(InvalidRequest, match="dtype is 'half'"):
        ops.add_position(x, dtype="half")
    case = qkv_case(rng, 2, 8, 4, 2, 6)
    case["k_cache"].flags.writeable = False
    with pytest.raises(InvalidRequest, match="k_cache must be a writeable float32 numpy array"):
        ops.qkv_linear(**case)
    with pytest.raises(InvalidRequest, match=r"position outside 0\.\.18"):
        ops.qkv_linear(**{**case, "k_cache": case["v_cache"].copy(), "places": np.array([[0, 19], [0, 1]], np.int32)})
    attention = attn_case(rng, 2, 4, 2, 6, 9)
    with pytest.raises(InvalidRequest, match=r"row 1 asks for positions 0\.\.9"):
        ops.attn_decode(**{**attention, "starts": None, "places": np.array([[0, 1], [1, 9]], np.int32)})
    with pytest.raises(InvalidRequest, match="q is a str"):
        ops.attn_decode(**{**attention, "q": "q"})


@pytest.mark.skipif(hasattr(_core, "cuda"), reason="this build has CUDA")
def test_a_build_without_cuda_says_so() -> None:
    class OnGpu:
        shape, dtype = (2, 8), "float32"

        def __dlpack_device__(self) -> tuple[int, int]:
            return (2, 0)

    with pytest.raises(Error, match="built without CUDA; build it with NSRT_CUDA=ON"):
        ops.linear(OnGpu(), np.zeros((3, 8), np.float32))
    with pytest.raises(Error, match="built without CUDA"):
        cuda.empty((3,))
