"""The native engine: every golden case on every instruction set level, and what must not change a bit."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from kit.cases import LEVELS
from kit.compare import assert_close, assert_same_bits
from kit.golden import ALL, CHECKPOINTS, Golden, load_case

from nextstep_rt import Checkpoint, Engine, InvalidRequest, SamplingParams

# By norm over the whole free-running image: what the project promises.
TOLERANCE = {"float32": 1e-5, "bfloat16": 4e-2}


@cache
def checkpoint(name: str) -> Checkpoint:
    return Checkpoint(str(load_case(name, "plain").model))


@pytest.fixture(params=LEVELS)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Forced for engines made during the test."""
    monkeypatch.setenv("NSRT_ISA", request.param)
    return str(request.param)


def make(name: str, dtype: str, threads: int = 2) -> Engine:
    model = checkpoint(name)
    return Engine(model.config, model, dtype=dtype, threads=threads)


def start(engine: Engine, case: Golden) -> np.ndarray:
    """Prefill the case's prompt; returns its embeddings."""
    embeds = case.embeds(engine, engine.config.image_placeholder_id)
    engine.prefill(embeds, case["attention_mask"].astype(bool), max_new_tokens=case.num_tokens)
    return embeds


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(("name", "case_name"), ALL)
def test_golden(name: str, case_name: str, dtype: str, isa: str) -> None:
    case, engine = load_case(name, case_name), make(name, dtype)
    assert engine.backend == f"cpu/{isa}"
    params = SamplingParams(**case.sampling())
    start(engine, case)
    conds, pieces = [], []
    for s in range(case.num_tokens):
        pieces.append(engine.decode(params, 1, noise=case["noise"][s : s + 1]))
        assert engine.position == s + 1
        conds.append(engine.state("cond"))
    tokens = np.concatenate(pieces, axis=1)
    assert_close(tokens, case["tokens"], TOLERANCE[dtype], what="tokens")
    assert_close(np.stack(conds), case["conds"], TOLERANCE[dtype], what="conditions")

    start(engine, case)
    assert_same_bits(engine.decode(params, noise=case["noise"]), tokens, what="all tokens at once")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_threads_do_not_change_a_bit(name: str, dtype: str, isa: str) -> None:
    case, results = load_case(name, "guided"), []
    params = SamplingParams(**case.sampling())
    for threads in (1, 2, 3):
        engine = make(name, dtype, threads)
        assert engine.threads == threads
        for _ in range(2):
            start(engine, case)
            results.append((engine.decode(params, noise=case["noise"]), engine.state("modulation")))
    for tokens, modulation in results[1:]:
        assert_same_bits(tokens, results[0][0], what="tokens")
        assert_same_bits(modulation, results[0][1], what="modulations")


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CHECKPOINTS)
@pytest.mark.parametrize("images", [2, 5, 8])
def test_alone_and_in_a_batch(name: str, dtype: str, isa: str, images: int) -> None:
    """An image's tokens and intermediates beside others of other lengths, in every place of the batch."""
    case, engine = load_case(name, "guided"), make(name, dtype)
    params = SamplingParams(**case.sampling())
    embeds, mask, noise = start(engine, case), case["attention_mask"].astype(bool), case["noise"]
    alone = engine.decode(params, noise=noise)
    states = {name: engine.state(name) for name in ("hidden", "cond", "velocity", "latent")}

    rng = np.random.default_rng(images)
    width = embeds.shape[1] + 70
    for place in (0, images - 1):
        wide = rng.standard_normal((2 * images, width, embeds.shape[2])).astype(np.float32)
        keep = np.arange(width)[None, :] >= rng.integers(0, width, (2 * images, 1))
        many = rng.standard_normal((*noise.shape[:2], images, noise.shape[3])).astype(np.float32)
        for branch in range(2):
            row = branch * images + place
            keep[row] = False
            wide[row, 20 : 20 + embeds.shape[1]] = embeds[branch]
            keep[row, 20 : 20 + embeds.shape[1]] = mask[branch]
        many[:, :, place] = noise[:, :, 0]
        engine.prefill(wide, keep, max_new_tokens=case.num_tokens)
        among = engine.decode(params, noise=many)
        assert_same_bits(among[place], alone[0], what=f"tokens at place {place} of {images}")
        for state, want in states.items():
            rows = [place] if state == "latent" else [place, images + place]
            assert_same_bits(engine.state(state)[rows], want, what=state)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CHECKPOINTS)
def test_seeds_are_the_noise_they_stand_for(name: str, dtype: str) -> None:
    from nextstep_rt import ops

    case, engine = load_case(name, "linear"), make(name, dtype)
    params = SamplingParams(**case.sampling())
    seeds, shape = [7, 2**64 - 1], case["noise"].shape
    noise = np.stack(
        [np.stack([[ops.normal_noise(i, s, k, shape[3]) for i in seeds] for k in range(shape[1])])
         for s in range(shape[0])]
    )  # fmt: skip
    start(engine, case)
    want = engine.decode(params, noise=noise)
    start(engine, case)
    pieces = [engine.decode(params, 1, seeds=seeds), engine.decode(params, 2, seeds=seeds)]
    pieces.append(engine.decode(params, seeds=np.array(seeds, np.uint64)))
    assert_same_bits(np.concatenate(pieces, axis=1), want)


def test_a_new_prefill_forgets_everything() -> None:
    """Long, short, other branches, after reset: an engine's past does not show."""
    engine = make("tiny", "bfloat16")
    fresh = {}
    for case_name in ("edit", "plain", "guided", "linear", "raw"):
        case, other = load_case("tiny", case_name), make("tiny", "bfloat16")
        start(other, case)
        fresh[case_name] = other.decode(SamplingParams(**case.sampling()), noise=case["noise"])
    for case_name in ("plain", "edit", "plain", "guided", "raw", "linear", "plain"):
        case = load_case("tiny", case_name)
        start(engine, case)
        tokens = engine.decode(SamplingParams(**case.sampling()), noise=case["noise"])
        assert_same_bits(tokens, fresh[case_name], what=case_name)
        engine.reset()
        assert engine.rows == 0
        assert engine.position == 0
        with pytest.raises(InvalidRequest, match="prefill"):
            engine.state("hidden")


def test_settings_may_change_between_tokens() -> None:
    """Another plan for the rest of the image: the tokens made stay, the next ones follow the new plan."""
    case, engine = load_case("tiny", "guided"), make("tiny", "float32")
    params = SamplingParams(**case.sampling())
    weaker = SamplingParams(**{**case.sampling(), "guidance_scale": 1.5, "num_inference_steps": 2, "solver": "euler"})
    start(engine, case)
    first = engine.decode(params, 2, noise=case["noise"][:2])
    second = engine.decode(weaker, 2, noise=case["noise"][2:4, :3])
    assert_close(first, case["tokens"][:, :2], 1e-5)
    assert engine.position == 4
    start(engine, case)
    engine.decode(params, 2, noise=case["noise"][:2])
    assert_same_bits(engine.decode(weaker, 2, noise=case["noise"][2:4, :3]), second)


def test_isa_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSRT_ISA", "avx9000")
    with pytest.raises(InvalidRequest, match=r"avx9000.*NSRT_ISA.*portable"):
        make("tiny", "float32")
    monkeypatch.setenv("NSRT_ISA", "")
    assert make("tiny", "float32").backend == f"cpu/{LEVELS[0]}"
