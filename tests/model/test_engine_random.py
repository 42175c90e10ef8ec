"""The native engine against the oracle in float64, on models and requests that hypothesis makes up."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kit.cases import LEVELS
from kit.compare import assert_close, norm_tolerance, relative_norm
from kit.models import config_of, random_weights, request, sampling, stored_as
from kit.stages import STATES, Setup, compare, tolerances

from nextstep_rt import Engine
from nextstep_rt.reference import ReferenceEngine
from nextstep_rt.reference.solver import SOLVERS


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
