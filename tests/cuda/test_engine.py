"""The engine on a GPU, or on the CPU that emulates one: golden cases, every stage against the oracle, repeatability."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
from kit.compare import assert_close, assert_same_bits
from kit.golden import ALL, Golden, load_case
from kit.models import config_of, random_weights, request, sampling, stored_as
from kit.stages import Setup, compare

from nextstep_rt import Checkpoint, Engine, SamplingParams
from nextstep_rt.reference.solver import SOLVERS

TOLERANCE = {"float32": 1e-5, "bfloat16": 4e-2}
# Widths that 16-byte loads can read, and no other rule: no multiple of a tile, a warp or a block.
SIZES = {
    "hidden_size": 72,
    "intermediate_size": 104,
    "head_dim": 40,
    "latent_channels": 6,
    "fm_head_dim": 56,
    "fm_head_mlp_ratio": 10 / 7,
}


@cache
def checkpoint(name: str) -> Checkpoint:
    return Checkpoint(str(load_case(name, "plain").model))


def make(name: str, dtype: str) -> Engine:
    model = checkpoint(name)
    return Engine(model.config, model, dtype=dtype, device="cuda")


def decode(engine: Engine, case: Golden, count: int) -> Any:
    embeds = case.embeds(engine, engine.config.image_placeholder_id)
    engine.prefill(embeds, case["attention_mask"].astype(bool), max_new_tokens=case.num_tokens)
    return engine.decode(SamplingParams(**case.sampling()), count, noise=case["noise"][:count])


def check(dtype: str, config: dict[str, Any] | None = None, images: int = 2, width: int = 7, **options: Any) -> None:
    options = {"num_inference_steps": 3, **options}
    compare(Setup({**SIZES, **(config or {})}, options, images, width, 1, images + width, "cuda"), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "case_name"), ALL)
def test_golden(name: str, case_name: str, dtype: str) -> None:
    case, engine = load_case(name, case_name), make(name, dtype)
    assert engine.backend.startswith("cuda:0/sm_")
    count = case.num_tokens if name == "tiny" else min(3, case.num_tokens)
    assert_close(decode(engine, case, count), case["tokens"][:, :count], TOLERANCE[dtype], what="tokens")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("branches", [1, 2, 3])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_and_branch_count(solver: str, branches: int, dtype: str) -> None:
    check(dtype, solver=solver, branches=branches, image_guidance_scale=1.5, guidance_renorm=branches > 1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("head_dim", [32, 64, 128, 256])
def test_head_dims(head_dim: int, dtype: str) -> None:
    check(dtype, {"head_dim": head_dim, "num_hidden_layers": 1}, width=150, branches=2, images=1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("rows", [1, 3, 4, 5, 8, 9, 16])
def test_numbers_of_rows(rows: int, dtype: str) -> None:
    check(dtype, images=rows, width=9, branches=1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("width", [1, 16, 17, 64, 65, 130])
def test_prompt_lengths(width: int, dtype: str) -> None:
    check(dtype, images=1, width=width, branches=2, normalize_tokens=False)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_biases_and_positions(dtype: str) -> None:
    config = {"o_attention_bias": True, "mlp_bias": True, "use_gen_pos_embed": True, "fm_head_layers": 1}
    check(dtype, config, branches=2)


def test_bfloat16_weights_in_float32() -> None:
    """Matrices stay bfloat16 on the device, or all are widened where one is float32."""
    config, params = config_of(**SIZES), sampling(branches=2)
    weights, given = random_weights(config), request(config, params, 1)
    both = stored_as(weights, "bfloat16") | {"image_in_projector.weight": weights["image_in_projector.weight"].numpy()}
    results = []
    for stored in (stored_as(weights, "float32"), stored_as(weights, "bfloat16"), both):
        engine = Engine(config, stored, dtype="float32", device="cuda")
        engine.prefill(*given[:2], max_new_tokens=3)
        results.append(engine.decode(params, noise=given[2]))
    assert_close(results[1], results[0], 1e-5)
    assert_same_bits(results[2], results[0])


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_a_repeated_run_is_the_same_to_the_bit(dtype: str) -> None:
    case, engine = load_case("tiny", "guided"), make("tiny", dtype)
    first = decode(engine, case, 3)
    assert_same_bits(decode(engine, case, 3), first)
    assert_same_bits(decode(make("tiny", dtype), case, 3), first)
    other = load_case("tiny", "edit")
    decode(engine, other, 2)  # longer rows, three branches: buffers grow and graphs are recorded anew
    assert_same_bits(decode(engine, case, 3), first)


def test_engines_of_two_threads_on_one_device() -> None:
    """They launch the same kernels, the FM head's with as much shared memory as each needs."""
    runs = [(name, load_case(name, "guided")) for name in ("tiny", "gqa5")]
    alone = [decode(make(name, "bfloat16"), case, 2) for name, case in runs]
    engines = [make(name, "bfloat16") for name, _ in runs]
    with ThreadPoolExecutor(len(runs)) as pool:
        for _ in range(2):
            together = pool.map(lambda i: decode(engines[i], runs[i][1], 2), range(len(runs)))
            for got, want in zip(together, alone, strict=True):
                assert_same_bits(got, want)


def test_noise_drawn_ahead_is_the_next_token_s() -> None:
    """It is drawn while a token is made, from the same seeds; the next call may have others, or noise of its own."""
    case, engine = load_case("tiny", "guided"), make("tiny", "float32")
    native = Engine(checkpoint("tiny").config, checkpoint("tiny"), dtype="float32", threads=1)
    params = SamplingParams(**{**case.sampling(), "solver": "sde"})
    results = []
    for each in (engine, native):
        embeds = case.embeds(each, each.config.image_placeholder_id)
        each.prefill(embeds, case["attention_mask"].astype(bool), max_new_tokens=4)
        parts = [each.decode(params, 1, seeds=[seed]) for seed in (3, 3, 4)]
        results.append(np.concatenate([*parts, each.decode(params, 1, noise=case["noise"][3:4])], axis=1))
    assert_close(results[0], results[1], 1e-5)


def test_settings_may_change_between_tokens() -> None:
    case, engine = load_case("tiny", "guided"), make("tiny", "float32")
    weaker = SamplingParams(**{**case.sampling(), "guidance_scale": 1.5, "num_inference_steps": 2, "solver": "euler"})
    native = Engine(checkpoint("tiny").config, checkpoint("tiny"), dtype="float32", threads=1)
    results = []
    for each in (engine, native):
        first = decode(each, case, 2)
        results.append(np.concatenate([first, each.decode(weaker, 2, noise=case["noise"][2:4, :3])], axis=1))
    assert_close(results[0], results[1], 1e-5)


def test_tokens_and_embeddings() -> None:
    engine = make("tiny", "float32")
    native = Engine(checkpoint("tiny").config, checkpoint("tiny"), dtype="float32", threads=1)
    tokens = np.random.default_rng(0).standard_normal((37, native.config.token_dim)).astype(np.float32)
    assert_close(engine.project_tokens(tokens), native.project_tokens(tokens), 1e-5)
    assert_same_bits(engine.embed_tokens(np.array([0, 5, 394])), native.embed_tokens(np.array([0, 5, 394])))
