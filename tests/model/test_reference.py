"""The oracle against the golden results, against an independent loop, and against what its formulas imply."""

from __future__ import annotations

import importlib
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kit.golden import ALL, load_case, load_config, load_tensors, relative_error

from nextstep_rt.errors import Cancelled, CheckpointError, Error, InvalidRequest
from nextstep_rt.reference import (
    ReferenceEngine,
    combine_guidance,
    expected_shapes,
    integrate,
    lm_logits,
    normalize_token,
    scheduled_guidance,
    sinusoid,
    time_grid,
)
from nextstep_rt.reference.solver import sde_step

# By norm over the whole free-running image. float64 compares with goldens rounded to float32 (6e-8).
TOLERANCE = {"float64": 1e-6, "float32": 1e-5, "bfloat16": 4e-2}


def sampling(**changes: Any) -> SimpleNamespace:
    defaults = {
        "num_tokens": 4,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "image_guidance_scale": 1.0,
        "guidance_schedule": "constant",
        "guidance_renorm": False,
        "timestep_shift": 1.0,
        "solver": "sde",
        "noise_level": 0.8,
        "last_step_size": 0.04,
        "normalize_tokens": True,
        "branches": 1,
    }
    return SimpleNamespace(**{**defaults, **changes})


def small_config(**changes: Any) -> SimpleNamespace:
    """As many features as fit in a toy: a head_dim that is not hidden / heads, GQA, every bias, a wide FM MLP."""
    values = {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 11,
        "attention_bias": True,
        "o_attention_bias": True,
        "mlp_bias": True,
        "latent_channels": 2,
        "fm_head_dim": 16,
        "fm_head_layers": 2,
        "fm_head_mlp_ratio": 1.5,
    }
    return load_config("tiny", **{**values, **changes})


def random_tensors(config: SimpleNamespace, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) / math.sqrt(shape[-1])
        for name, shape in expected_shapes(config).items()
    }


def random_request(config: SimpleNamespace, rows: int, width: int, params: SimpleNamespace, seed: int = 1) -> tuple:
    rng = np.random.default_rng(seed)
    embeds = rng.standard_normal((rows, width, config.hidden_size)).astype(np.float32)
    shape = (params.num_tokens, 1 + params.num_inference_steps, rows // params.branches, config.token_dim)
    return embeds, rng.standard_normal(shape).astype(np.float32)


def started(config: SimpleNamespace, tensors: Any, embeds: np.ndarray, mask: Any = None, **kw: Any) -> ReferenceEngine:
    engine = ReferenceEngine(config, tensors, dtype=kw.pop("dtype", "float64"), **kw)
    engine.prefill(embeds, mask, max_new_tokens=8)
    return engine


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("checkpoint", "name"), ALL)
def test_golden(checkpoint: str, name: str, dtype: str) -> None:
    case, config = load_case(checkpoint, name), load_config(checkpoint)
    engine = ReferenceEngine(config, load_tensors(checkpoint), dtype=dtype, trace=True)
    embeds = case.embeds(engine, config.image_placeholder_id)
    engine.prefill(embeds, case["attention_mask"], max_new_tokens=case.num_tokens)
    tokens = engine.decode(SimpleNamespace(**case.sampling()), noise=case["noise"])
    assert tokens.dtype == np.float32
    assert relative_error(tokens, case["tokens"]) <= TOLERANCE[dtype]
    assert engine.trace is not None
    conds = torch.stack(engine.trace["cond"]).to(torch.float64)
    assert relative_error(conds, case["conds"]) <= TOLERANCE[dtype]


# ---- the backbone against a loop that shares no code with it


def naive_hidden(config: SimpleNamespace, weights: dict[str, np.ndarray], embeds: np.ndarray) -> np.ndarray:
    """One row without padding, no cache, one position and one head at a time. embeds [s, d_model] -> [s, d_model]."""

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return x @ weights[name + ".weight"].T + weights.get(name + ".bias", 0.0)

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.rms_norm_eps) * weights[name + ".weight"]

    def rotate(x: np.ndarray, position: int) -> np.ndarray:
        half = config.head_dim // 2
        out = np.empty_like(x)
        for i in range(half):
            angle = position * config.rope_theta ** (-2 * i / config.head_dim)
            z = complex(x[i], x[i + half]) * complex(math.cos(angle), math.sin(angle))
            out[i], out[i + half] = z.real, z.imag
        return out

    x, d, group = embeds, config.head_dim, config.num_attention_heads // config.num_key_value_heads
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}."
        y = norm(name + "input_layernorm", x)
        q, k, v = (dense(f"{name}self_attn.{p}_proj", y).reshape(len(x), -1, d) for p in "qkv")
        mixed = np.zeros((len(x), config.num_attention_heads, d))
        for i in range(len(x)):
            for h in range(config.num_attention_heads):
                query = rotate(q[i, h], i)
                scores = np.array([query @ rotate(k[j, h // group], j) / math.sqrt(d) for j in range(i + 1)])
                share = np.exp(scores - scores.max())
                mixed[i, h] = (share / share.sum()) @ v[: i + 1, h // group]
        x = x + dense(name + "self_attn.o_proj", mixed.reshape(len(x), -1))
        y = norm(name + "post_attention_layernorm", x)
        gate = dense(name + "mlp.gate_proj", y)
        x = x + dense(name + "mlp.down_proj", gate / (1 + np.exp(-gate)) * dense(name + "mlp.up_proj", y))
    return norm("norm", x)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"attention_bias": False, "o_attention_bias": False, "mlp_bias": False},
        {"attention_bias": False, "num_key_value_heads": 6},
        {"o_attention_bias": False, "num_key_value_heads": 1},
    ],
)
def test_backbone_equals_a_naive_loop(changes: dict[str, Any]) -> None:
    config, params = small_config(**changes), sampling()
    tensors = random_tensors(config)
    weights = {name: tensor.numpy() for name, tensor in tensors.items()}
    embeds, noise = random_request(config, 2, 5, params)
    mask = np.array([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    engine = started(config, tensors, embeds, mask, trace=True)
    tokens = engine.decode(params, noise=noise)
    assert engine.trace is not None
    for row, pads in enumerate((0, 2)):
        fed = weights["image_in_projector.bias"] + tokens[row, :-1] @ weights["image_in_projector.weight"].T
        expected = naive_hidden(config, weights, np.concatenate([embeds[row, pads:], fed]))[4 - pads :]
        actual = torch.stack(engine.trace["hidden"])[:, row]
        assert relative_error(actual, expected) < 1e-6  # tokens were rounded to float32


def test_fm_head_equals_a_naive_loop() -> None:
    config, params = small_config(), sampling(solver="euler", num_inference_steps=1, num_tokens=1)
    tensors = random_tensors(config)
    w = {name.removeprefix("image_head.net."): tensor.numpy() for name, tensor in tensors.items()}
    embeds, noise = random_request(config, 1, 3, params)
    engine = started(config, tensors, embeds, trace=True)
    engine.decode(params, noise=noise)

    def dense(name: str, x: np.ndarray) -> np.ndarray:
        return w[name + ".weight"] @ x + w[name + ".bias"]

    def silu(x: np.ndarray) -> np.ndarray:
        return x / (1 + np.exp(-x))

    def norm(x: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-6)

    cond = dense("image_out_projector", engine.trace["hidden"][0][0].numpy())  # type: ignore[index]
    waves = np.concatenate([np.ones(128), np.zeros(128)])  # at t = 0
    y = silu(dense("time_embed.mlp.2", silu(dense("time_embed.mlp.0", waves))) + dense("cond_embed", cond))
    h = dense("input_proj", noise[0, 0, 0].astype(np.float64))
    for i in range(config.fm_head_layers):
        shift, scale, gate = np.split(dense(f"res_blocks.{i}.adaLN_modulation.1", y), 3)
        inner = norm(h) * w[f"res_blocks.{i}.in_ln.weight"] + w[f"res_blocks.{i}.in_ln.bias"]
        inner = dense(f"res_blocks.{i}.mlp.2", silu(dense(f"res_blocks.{i}.mlp.0", inner * (1 + scale) + shift)))
        h = h + gate * inner
    shift, scale = np.split(dense("final_layer.adaLN_modulation.1", y), 2)
    expected = dense("final_layer.linear", norm(h) * (1 + scale) + shift)
    assert relative_error(engine.trace["velocity"][0][0][0], expected) < 1e-12  # type: ignore[index]


def test_sinusoid_has_cosines_first_and_unscaled_time() -> None:
    waves = sinusoid(torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert waves.shape == (2, 256)
    assert torch.equal(waves[0], torch.cat([torch.ones(128), torch.zeros(128)]).double())
    assert waves[1, 0].item() == pytest.approx(math.cos(0.5))
    assert waves[1, 128 + 127].item() == pytest.approx(math.sin(0.5 * 10000 ** (-127 / 128)))


def test_logits_use_the_tied_embedding() -> None:
    config = small_config(tie_word_embeddings=True)
    tensors = random_tensors(config)
    hidden = torch.ones(1, config.hidden_size, dtype=torch.float64)
    assert torch.allclose(lm_logits(tensors, config, hidden)[0], tensors["embed_tokens.weight"].sum(-1))
    config.tie_word_embeddings = False
    tensors["lm_head.weight"] = torch.zeros(config.vocab_size, config.hidden_size, dtype=torch.float64)
    assert not lm_logits(tensors, config, hidden).any()


# ---- solvers


def test_time_grid() -> None:
    knots = time_grid(sampling(num_inference_steps=7, timestep_shift=3.2))
    assert knots.dtype == np.float32
    assert len(knots) == 8
    assert knots[0] == 0
    assert knots[-1] == 1
    assert (np.diff(knots) > 0).all()
    assert knots[3] == pytest.approx((3 / 7) / (3.2 - 2.2 * 3 / 7))
    knots = time_grid(sampling(num_inference_steps=7, solver="sde-final-ode"))
    assert len(knots) == 7
    assert knots[-1] == np.float32(0.96)


def final_state(solver: str, steps: int, velocity: Any, samples: int = 1, **changes: Any) -> torch.Tensor:
    params = sampling(solver=solver, num_inference_steps=steps, **changes)
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(samples, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(steps, samples, 1, generator=generator, dtype=torch.float64)
    knots = [float(t) for t in time_grid(params)]
    return integrate(params, knots, start, noise, lambda x, k: velocity(x, knots[k]))[-1]


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver: str, order: int) -> None:
    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return x * math.cos(3 * t)

    start = final_state("euler", 1, lambda x, _: 0 * x)
    exact = start * math.exp(math.sin(3) / 3)
    errors = [(final_state(solver, steps, velocity) - exact).abs().item() for steps in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


MEAN, DEVIATION = 1.5, 0.4


def gaussian_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    """The exact velocity where the data are normal."""
    variance = (t * DEVIATION) ** 2 + (1 - t) ** 2
    return MEAN + (t * DEVIATION**2 - (1 - t)) / variance * (x - t * MEAN)


@pytest.mark.parametrize("solver", ["euler", "heun", "sde", "sde-final-ode", "flow-sde"])
def test_solvers_agree_on_a_known_distribution(solver: str) -> None:
    samples = final_state(solver, 200, gaussian_velocity, samples=20000, last_step_size=0.005)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("solver", ["flow-sde", "flow-cps"])
def test_without_noise_the_flow_solvers_are_euler(solver: str) -> None:
    euler = final_state("euler", 9, gaussian_velocity, samples=50)
    assert torch.allclose(final_state(solver, 9, gaussian_velocity, samples=50, noise_level=0.0), euler, rtol=1e-12)


def test_sde_step_in_its_simplified_form() -> None:
    x, v, eps = torch.randn(3, 10, dtype=torch.float64)
    t, dt = 0.3, 0.05
    expected = x + ((1 + t) * v - x) * dt + math.sqrt(2 * (1 - t) * dt) * eps
    assert torch.allclose(sde_step(x, v, t, t + dt, eps), expected, rtol=1e-12)


def test_guidance() -> None:
    cond, image, uncond = torch.randn(3, 2, 8, dtype=torch.float64)
    assert torch.equal(combine_guidance(cond, 1, 7.0), cond)
    assert torch.allclose(combine_guidance(torch.cat([cond, uncond]), 2, 1.0), cond)
    three = torch.cat([cond, image, uncond])
    assert torch.allclose(combine_guidance(three, 3, 4.0, 2.0), uncond + 2 * (image - uncond) + 4 * (cond - image))
    renormed = combine_guidance(three, 3, 4.0, 2.0, renorm=True)
    assert torch.allclose(renormed.norm(dim=-1), cond.norm(dim=-1), rtol=1e-5)
    weak = torch.cat([cond, 0.9 * cond])
    assert torch.allclose(combine_guidance(weak, 2, 0.5, renorm=True), 0.95 * cond)  # never scaled up
    with pytest.raises(InvalidRequest, match="4"):
        combine_guidance(three, 4, 1.0)


def test_guidance_schedule() -> None:
    assert scheduled_guidance(5.0, "constant", 3, 4) == 5.0
    assert [scheduled_guidance(5.0, "linear", s, 4) for s in range(4)] == [5.0, 4.0, 3.0, 2.0]
    with pytest.raises(InvalidRequest, match="cosine"):
        scheduled_guidance(5.0, "cosine", 0, 4)


def test_normalized_tokens_have_mean_zero_and_variance_one() -> None:
    token = normalize_token(torch.randn(3, 64, dtype=torch.float64) * 9 + 4)
    assert torch.allclose(token.mean(-1), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(token.var(-1, correction=0), torch.ones(3, dtype=torch.float64), rtol=1e-6)


def test_unknown_solver_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"rk4.*euler, heun"):
        final_state("rk4", 2, gaussian_velocity)


# ---- the engine


def test_tokens_in_pieces_are_the_same_bits() -> None:
    config, params = small_config(), sampling(branches=2)
    tensors = random_tensors(config)
    embeds, noise = random_request(config, 4, 5, params)
    whole = started(config, tensors, embeds).decode(params, noise=noise)
    engine = started(config, tensors, embeds)
    pieces = [engine.decode(params, n, noise=noise[a : a + n]) for a, n in ((0, 1), (1, 0), (1, 2), (3, 1))]
    assert np.array_equal(np.concatenate(pieces, axis=1), whole)
    assert engine.position == 4
    assert engine.rows == 4
    assert engine.decode(params, noise=noise[:0]).shape == (2, 0, config.token_dim)
    with pytest.raises(InvalidRequest, match="1 tokens asked for; 0 remain"):
        engine.decode(params, 1, noise=noise[:1])


def test_padding_changes_nothing() -> None:
    config, params = small_config(), sampling()
    tensors = random_tensors(config)
    embeds, noise = random_request(config, 1, 4, params)
    expected = started(config, tensors, embeds).decode(params, noise=noise)
    rng = np.random.default_rng(3)
    padded = rng.standard_normal((2, 7, config.hidden_size)).astype(np.float32)
    mask = np.zeros((2, 7), bool)
    mask[0], mask[1, [0, 2, 3, 6]] = True, True  # beside a longer row, with padding anywhere
    padded[1, mask[1]] = embeds[0]
    both = started(config, tensors, padded, mask).decode(params, noise=np.repeat(noise, 2, axis=2))
    assert relative_error(both[1], expected[0]) < 1e-6


def test_seeds_draw_by_absolute_token(monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(seed: int, token: int, draw: int, n: int) -> np.ndarray:
        return np.random.default_rng([seed, token, draw]).standard_normal(n).astype(np.float32)

    monkeypatch.setattr(importlib.import_module("nextstep_rt._core"), "normal_noise", fake, raising=False)
    config, params = small_config(), sampling()
    tensors = random_tensors(config)
    embeds, _ = random_request(config, 2, 5, params)
    noise = np.array(
        [[[fake(seed, s, k, config.token_dim) for seed in (7, 9)] for k in range(4)] for s in range(params.num_tokens)]
    )
    expected = started(config, tensors, embeds).decode(params, noise=noise)
    engine = started(config, tensors, embeds)
    pieces = [engine.decode(params, 2, seeds=[7, 9]), engine.decode(params, seeds=[7, 9])]
    assert np.array_equal(np.concatenate(pieces, axis=1), expected)


def test_callback_sees_each_token_and_stops() -> None:
    config, params = small_config(), sampling()
    embeds, noise = random_request(config, 1, 3, params)
    engine = started(config, random_tensors(config), embeds)
    seen: list[tuple[int, int, tuple[int, ...]]] = []

    def callback(position: int, total: int, tokens: np.ndarray) -> bool | None:
        seen.append((position, total, tokens.shape))
        return False if position == 2 else None

    tokens = engine.decode(params, noise=noise, callback=callback)
    assert seen == [(1, 4, (1, 1, config.token_dim)), (2, 4, (1, 2, config.token_dim))]
    assert tokens.shape == (1, 2, config.token_dim)
    assert engine.position == 2


def test_prefill_progress_can_stop() -> None:
    config = small_config()
    embeds, _ = random_request(config, 1, 3, sampling())
    engine = ReferenceEngine(config, random_tensors(config))
    seen: list[tuple[int, int]] = []
    engine.prefill(embeds, max_new_tokens=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(3, 3)]
    assert engine.rows == 1
    with pytest.raises(Cancelled):
        engine.prefill(embeds, max_new_tokens=1, progress=lambda *_: False)
    assert engine.rows == 0


def test_gen_pos_embed() -> None:
    config, params = small_config(use_gen_pos_embed=True), sampling()
    tensors = random_tensors(config)
    embeds, noise = random_request(config, 1, 3, params)
    with pytest.raises(CheckpointError, match="gen_pos_embed"):
        ReferenceEngine(config, tensors)
    plain = small_config()
    first = started(plain, tensors, embeds).state("hidden")
    table = torch.randn(4, config.hidden_size, dtype=torch.float64)
    results = []
    for stored in (table, table[None]):
        engine = started(config, {**tensors, "gen_pos_embed": stored}, embeds)
        assert np.allclose(engine.state("hidden"), first + table[0].numpy(), atol=1e-6)
        results.append(engine.decode(params, noise=noise))
    assert np.array_equal(*results)
    assert np.array_equal(
        started(plain, {**tensors, "gen_pos_embed": table}, embeds).decode(params, noise=noise),
        started(plain, tensors, embeds).decode(params, noise=noise),
    )
    short = started(config, {**tensors, "gen_pos_embed": table[:3]}, embeds)
    with pytest.raises(InvalidRequest, match="image token 3 is past the 3"):
        short.decode(params, noise=noise)
    assert short.decode(params, 3, noise=noise[:3]).shape[1] == 3


def test_not_finite_names_token_and_row() -> None:
    config, params = small_config(), sampling()
    embeds, noise = random_request(config, 2, 3, params)
    noise[2, 0, 1, 0] = np.nan
    engine = started(config, random_tensors(config), embeds)
    with pytest.raises(Error, match="token 2 of row 1 is not finite"):
        engine.decode(params, noise=noise)


def test_states_and_trace() -> None:
    config, params = small_config(), sampling(branches=2, solver="heun")
    embeds, noise = random_request(config, 4, 3, params)
    engine = ReferenceEngine(config, random_tensors(config), dtype="float32", trace=True)
    with pytest.raises(Error, match="call prefill first"):
        engine.state("hidden")
    engine.prefill(embeds, max_new_tokens=4)
    with pytest.raises(Error, match="call decode first"):
        engine.state("cond")
    with pytest.raises(InvalidRequest, match="logits"):
        engine.state("logits")
    tokens = engine.decode(params, noise=noise)
    assert engine.trace is not None
    shapes = {name: engine.state(name).shape for name in ("hidden", "cond", "modulation", "velocity", "latent")}
    assert shapes == {"hidden": (4, 24), "cond": (4, 24), "modulation": (12, 128), "velocity": (4, 8), "latent": (2, 8)}
    normalized = normalize_token(torch.from_numpy(engine.state("latent"))).numpy()
    assert np.allclose(normalized, tokens[:, -1], atol=1e-6)
    assert len(engine.trace["layers"]) == 4  # the prefill and three steps: the last token's is not run
    assert [len(v) for v in engine.trace["velocity"]] == [5] * 4
    assert [len(x) for x in engine.trace["x"]] == [4] * 4
    engine.reset()
    assert engine.rows == 0
    assert engine.position == 0
    assert not engine.trace


def test_bytes() -> None:
    config = small_config()
    tensors = random_tensors(config)
    numbers = sum(t.numel() for t in tensors.values())
    engine = ReferenceEngine(config, tensors, dtype="bfloat16")
    assert engine.memory() == {"weights": 2 * numbers, "converted": 2 * numbers, "kv_cache": 0, "scratch": 0}
    embeds, noise = random_request(config, 2, 5, sampling())
    engine.prefill(embeds, max_new_tokens=4)
    engine.decode(sampling(), 1, noise=noise[:1])
    assert engine.memory() == engine.plan(2, 5, 3)
    assert ReferenceEngine(config, tensors, dtype="float64").memory()["converted"] == 0


def test_weights_may_be_anything_with_dlpack() -> None:
    class View:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor, self.shape = tensor, tuple(tensor.shape)

        def __dlpack__(self, **kw: Any) -> Any:
            return self.tensor.__dlpack__(**kw)

        def __dlpack_device__(self) -> Any:
            return self.tensor.__dlpack_device__()

    config, params = small_config(), sampling()
    tensors = random_tensors(config)
    arrays = {name: tensor.numpy().copy() for name, tensor in tensors.items()}
    for array in arrays.values():
        array.flags.writeable = False
    embeds, noise = random_request(config, 1, 3, params)
    results = [
        started(config, given, embeds).decode(params, noise=noise)
        for given in (tensors, arrays, {name: View(tensor) for name, tensor in tensors.items()})
    ]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_bad_checkpoints() -> None:
    config = small_config()
    tensors = random_tensors(config)
    missing = {name: tensor for name, tensor in tensors.items() if name != "layers.1.mlp.up_proj.bias"}
    with pytest.raises(CheckpointError, match=r"missing: \['layers.1.mlp.up_proj.bias'\]"):
        ReferenceEngine(config, missing)
    with pytest.raises(CheckpointError, match=r"unknown: \['layers.0.self_attn.q_norm.weight'\]"):
        ReferenceEngine(config, {**tensors, "layers.0.self_attn.q_norm.weight": torch.ones(8)})
    with pytest.raises(CheckpointError, match=r"norm.weight has shape \(3,\), config.json asks for \(24,\)"):
        ReferenceEngine(config, {**tensors, "norm.weight": torch.ones(3)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embeds": np.zeros((1, 3, 5))}, r"\(1, 3, 5\)"),
        ({"embeds": np.zeros((1, 0, 24))}, r"\(1, 0, 24\)"),
        ({"mask": np.ones((2, 2))}, r"\(2, 2\)"),
        ({"mask": [[1, 1, 1], [0, 0, 0]]}, "row 1 of the mask is all padding"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
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


def test_threads_are_put_back() -> None:
    config, params = small_config(), sampling()
    before = torch.get_num_threads()
    embeds, noise = random_request(config, 1, 3, params)
    engine = started(config, random_tensors(config), embeds, threads=1)
    engine.decode(params, noise=noise)
    assert engine.threads == 1
    assert torch.get_num_threads() == before
