"""The native engine against the oracle in float64, on models and requests that hypothesis makes up.

After every token the oracle is handed the native token, so that each token is compared from equal pasts and rounding
does not pile up over an image; every stage's buffer is compared, not only the token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.cases import LEVELS
from kit.compare import assert_close, norm_tolerance, relative_norm
from kit.models import SMALL, config_of, random_weights, request, sampling, stored_as

from nextstep_rt import Engine
from nextstep_rt.reference import ReferenceEngine, normalize_token
from nextstep_rt.reference.solver import SOLVERS

DEFAULTS = {"guidance_scale": 2.0, "image_guidance_scale": 1.0, "num_inference_steps": 3}
STATES = ("hidden", "cond", "modulation", "velocity", "latent")


@dataclass(frozen=True)
class Setup:
    """A model, a request to it, and how the native side gets both."""

    config: dict[str, Any]
    sampling: dict[str, Any]
    images: int
    width: int
    threads: int
    seed: int


@st.composite
def setups(draw: st.DrawFn) -> Setup:
    kv = draw(st.integers(1, 3))
    branches = draw(st.integers(1, 3))
    width = draw(st.sampled_from([1, 2, 5, 33, 63, 64, 65, 66, 130, 255, 256, 258, 300]))
    most = 16 // branches if width < 100 else max(1, 5 // branches)
    config = {
        "hidden_size": draw(st.integers(8, 80)),
        "intermediate_size": draw(st.integers(1, 90)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "num_attention_heads": kv * draw(st.integers(1, 4)),
        "num_key_value_heads": kv,
        "head_dim": draw(st.sampled_from([*range(32, 257, 8)])),
        "rope_theta": draw(st.sampled_from([1e4, 1e6])),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5])),
        "attention_bias": draw(st.booleans()),
        "o_attention_bias": draw(st.booleans()),
        "mlp_bias": draw(st.booleans()),
        "tie_word_embeddings": draw(st.booleans()),
        "use_gen_pos_embed": draw(st.booleans()),
        "latent_channels": draw(st.integers(1, 5)),
        "latent_patch_size": 2,
        "fm_head_dim": draw(st.integers(8, 70)),
        "fm_head_layers": draw(st.integers(1, 3)),
        "fm_head_mlp_ratio": draw(st.sampled_from([0.5, 1.0, 1.37, 2.0])),
    }
    options = {
        "num_tokens": 3,
        "num_inference_steps": draw(st.integers(2, 5)),
        "solver": draw(st.sampled_from(SOLVERS)),
        "guidance_scale": draw(st.sampled_from([0.0, 1.0, 1.7, 3.0])),
        "image_guidance_scale": draw(st.sampled_from([1.0, 1.5])),
        "guidance_schedule": draw(st.sampled_from(["constant", "linear"])),
        "guidance_renorm": draw(st.booleans()),
        "timestep_shift": draw(st.sampled_from([1.0, 3.2])),
        "noise_level": draw(st.sampled_from([0.0, 0.8, 1.0])),
        "normalize_tokens": draw(st.booleans()),
        "branches": branches,
    }
    return Setup(
        config, options, draw(st.integers(1, most)), width, draw(st.sampled_from([1, 1, 2])), draw(st.integers(0, 999))
    )


def tolerances(setup: Setup, dtype: str) -> dict[str, float]:
    """Relative, by norm. Each stage adds its roundings to those before it; guidance multiplies what it is handed.

    float32: a product of length k rounds k / 8 times in each lane. bfloat16: a product's input and the KV cache are
    rounded once, beside which the sums' own rounding is nothing.
    """
    c, s = {**SMALL, **setup.config}, {**DEFAULTS, **setup.sampling}
    wide = {
        "backbone": max(c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * c["head_dim"]),
        "head": max(c["hidden_size"], c["fm_head_dim"] * c["fm_head_mlp_ratio"], 256),
    }
    each = {part: 1 + k / 8 if dtype == "float32" else 1.0 for part, k in wide.items()}
    # Per layer: q k v's input, keys, values, the scores (softmax makes their error relative), o's input, gate and up's
    # input, down's input.
    backbone = 8 * c["num_hidden_layers"] * each["backbone"] + setup.width / 8 * (dtype == "float32")
    cond = backbone + each["backbone"]
    modulation = cond + 4 * each["head"]
    evaluation = modulation + (3 * c["fm_head_layers"] + 2) * each["head"]
    g, gi = s["guidance_scale"], s["image_guidance_scale"]
    gain = {1: 1.0, 2: abs(g) + abs(1 - g), 3: abs(g) + abs(gi - g) + abs(1 - gi)}[s["branches"]]
    trajectory = norm_tolerance(evaluation, dtype) * max(gain, 1.0)
    return {
        "hidden": norm_tolerance(backbone, dtype),
        "cond": norm_tolerance(cond, dtype),
        "modulation": norm_tolerance(modulation, dtype),
        "velocity": trajectory * math.sqrt(s["num_inference_steps"]),
        "latent": trajectory * math.sqrt(s["num_inference_steps"]),
    }


def compare(setup: Setup, dtype: str) -> None:
    config, params = config_of(**setup.config), sampling(**setup.sampling)
    weights = random_weights(config, setup.seed)
    embeds, mask, noise = request(config, params, setup.images, setup.width, setup.seed)
    native = Engine(config, stored_as(weights, dtype), dtype=dtype, threads=setup.threads)
    oracle = ReferenceEngine(config, weights, dtype="float64", threads=1)
    allowed = tolerances(setup, dtype)
    for engine in (native, oracle):
        engine.prefill(embeds, mask, max_new_tokens=params.num_tokens)
    for s in range(params.num_tokens):
        got, _ = (engine.decode(params, 1, noise=noise[s : s + 1]) for engine in (native, oracle))
        for state in STATES:
            if state == "hidden" and config.use_gen_pos_embed:
                continue  # see test_hidden_with_gen_pos_embed
            assert_close(native.state(state), oracle.state(state), allowed[state], what=f"token {s}, {state}")
        token = torch.from_numpy(native.state("latent").astype(np.float64))
        if params.normalize_tokens:
            spread = token.std(dim=-1, correction=0).min()
            token = normalize_token(token)
            amplified = 1 + float(np.abs(native.state("latent")).max() / spread)
            assert_close(got[:, 0], token, norm_tolerance(8) * amplified, what=f"token {s}, normalised")
        else:
            assert np.array_equal(got[:, 0], native.state("latent"))
        oracle._pending = torch.from_numpy(got[:, 0].astype(np.float64))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("isa", LEVELS)
@settings(
    max_examples=16,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(setup=setups())
def test_every_stage(monkeypatch: pytest.MonkeyPatch, isa: str, dtype: str, setup: Setup) -> None:
    monkeypatch.setenv("NSRT_ISA", isa)
    compare(setup, dtype)


@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_and_branch_count(solver: str, branches: int) -> None:
    """What chance may leave out."""
    options = {"solver": solver, "branches": branches, "num_inference_steps": 4, "image_guidance_scale": 1.5}
    for renorm in (False, True):
        compare(Setup({}, {**options, "guidance_renorm": renorm}, 2, 7, 2, 3), "float32")


@pytest.mark.parametrize("head_dim", range(32, 257, 8))
def test_every_head_dim(head_dim: int) -> None:
    for dtype in ("float32", "bfloat16"):
        compare(Setup({"head_dim": head_dim, "num_hidden_layers": 1}, {"branches": 2}, 1, 70, 1, head_dim), dtype)


@pytest.mark.parametrize("rows", range(1, 17))
def test_every_number_of_rows(rows: int) -> None:
    for dtype in ("float32", "bfloat16"):
        compare(Setup({}, {"branches": 1}, rows, 9, 2, rows), dtype)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("which", ["hidden_size", "intermediate_size", "fm_head_dim", "latent_channels"])
def test_the_smallest_sizes(which: str, size: int) -> None:
    """A norm over so few numbers may cancel at will: held to what torch loses in the same dtype on the same model."""
    config, params = config_of(**{which: size}), sampling(branches=2, normalize_tokens=size > 2)
    weights = random_weights(config, size)
    given = request(config, params, 3, 5)
    native = Engine(config, stored_as(weights, "float32"), dtype="float32", threads=2)
    wide, narrow = (ReferenceEngine(config, weights, dtype=dtype, threads=1) for dtype in ("float64", "float32"))
    for engine in (native, wide, narrow):
        engine.prefill(*given[:2], max_new_tokens=1)
        engine.decode(params, 1, noise=given[2][:1])
    for state in STATES:
        want = wide.state(state)
        allowed = 16 * relative_norm(narrow.state(state), want) + norm_tolerance(200)
        assert_close(native.state(state), want, allowed, what=state)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_hidden_with_gen_pos_embed(dtype: str) -> None:
    """The state named hidden is the h of the model's definition, which includes the position embedding."""
    config, params = config_of(use_gen_pos_embed=True), sampling(branches=2)
    weights = random_weights(config)
    given = request(config, params, 2)
    native = Engine(config, stored_as(weights, dtype), dtype=dtype, threads=2)
    oracle = ReferenceEngine(config, weights, dtype="float64", threads=1)
    for engine in (native, oracle):
        engine.prefill(*given[:2], max_new_tokens=3)
        engine.decode(params, 1, noise=given[2][:1])
    allowed = tolerances(Setup({}, {"branches": 2}, 2, 6, 2, 0), dtype)["hidden"]
    assert_close(native.state("hidden"), oracle.state("hidden"), allowed)
