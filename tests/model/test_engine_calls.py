"""The native engine's calls: callbacks, stopping, threads, and requests that cannot be met."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from kit.compare import assert_same_bits
from kit.models import config_of, generate, random_weights, request, sampling, small_engine, stored_as

from nextstep_rt import Engine, Error, InvalidRequest
from nextstep_rt.errors import Cancelled

PARAMS = sampling(num_tokens=5, branches=2)
REQUEST = request(config_of(), PARAMS, 2, width=150)


def test_callback_sees_every_token() -> None:
    engine, seen, kept = small_engine(), [], []

    def callback(position: int, total: int, made: np.ndarray) -> None:
        seen.append((position, total, made.shape))
        kept.append((made, made.copy()))

    tokens = generate(engine, PARAMS, REQUEST, callback=callback)
    assert seen == [(s, 5, (2, s, 12)) for s in range(1, 6)]
    del tokens
    whole = generate(engine, PARAMS, REQUEST)
    for s, (view, copy) in enumerate(kept, 1):
        assert_same_bits(copy, whole[:, :s], what=f"after token {s}")
        assert_same_bits(view, copy, what="arrays that were kept")


def test_callback_of_a_later_call_sees_that_calls_tokens() -> None:
    engine, seen = small_engine(), []
    embeds, mask, noise = REQUEST
    engine.prefill(embeds, mask, max_new_tokens=5)
    engine.decode(PARAMS, 2, noise=noise[:2])
    engine.decode(PARAMS, noise=noise[2:], callback=lambda *a: seen.append((a[0], a[1], a[2].shape[1])))
    assert seen == [(3, 5, 1), (4, 5, 2), (5, 5, 3)]


@pytest.mark.parametrize("stop", [1, 3, 5])
def test_only_false_stops(stop: int) -> None:
    engine = small_engine()
    whole = generate(engine, PARAMS, REQUEST)
    for answer in (None, True, 0, "", []):
        assert generate(engine, PARAMS, REQUEST, callback=lambda *_, answer=answer: answer).shape[1] == 5
    part = generate(engine, PARAMS, REQUEST, callback=lambda position, *_: position < stop)
    assert_same_bits(part, whole[:, :stop])
    assert engine.position == stop
    if stop < 5:
        assert_same_bits(engine.decode(PARAMS, noise=REQUEST[2][stop:]), whole[:, stop:], what="the rest")


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OwnError("mine"), KeyboardInterrupt(), SystemExit(3), InvalidRequest("odd")])
def test_errors_of_callbacks_come_through(error: BaseException) -> None:
    engine = small_engine()
    whole = generate(engine, PARAMS, REQUEST)

    def callback(position: int, *_: Any) -> None:
        if position == 2:
            raise error

    with pytest.raises(type(error)) as caught:
        generate(engine, PARAMS, REQUEST, callback=callback)
    assert caught.value is error
    assert engine.position == 2
    assert_same_bits(engine.decode(PARAMS, noise=REQUEST[2][2:]), whole[:, 2:], what="the rest")
    with pytest.raises(type(error)) as caught:
        engine.prefill(*REQUEST[:2], max_new_tokens=5, progress=lambda done, total: callback(2))
    assert caught.value is error
    assert engine.rows == 0
    assert_same_bits(generate(engine, PARAMS, REQUEST), whole)


def test_progress_of_prefill() -> None:
    engine, seen = small_engine(), []
    embeds, mask, _ = REQUEST
    engine.prefill(embeds, mask, max_new_tokens=5, progress=lambda *a: seen.append(a))
    total = int(mask.sum())
    assert {t for _, t in seen} == {total}
    assert [d for d, _ in seen] == sorted({d for d, _ in seen})
    assert seen[-1] == (total, total)
    assert len(seen) > 2
    with pytest.raises(Cancelled):
        engine.prefill(embeds, mask, max_new_tokens=5, progress=lambda *_: False)
    assert engine.rows == 0
    with pytest.raises(InvalidRequest):
        engine.decode(PARAMS, 1, seeds=[1, 2])


def test_a_wrong_callback_is_an_error_of_python() -> None:
    engine = small_engine()
    for callback in (3, "abc", lambda: None):
        with pytest.raises(TypeError):
            generate(engine, PARAMS, REQUEST, callback=callback)
    assert np.isfinite(generate(engine, PARAMS, REQUEST)).all()


def test_the_engine_is_busy_during_its_callbacks() -> None:
    engine, refused = small_engine(), []

    def callback(*_: Any) -> None:
        for call in (engine.reset, lambda: engine.state("cond"), lambda: engine.decode(PARAMS, 1, seeds=[1, 2])):
            with pytest.raises(Error, match="busy"):
                call()
            refused.append(call)
        assert engine.rows == 4
        assert engine.embed_tokens(np.array([1])).shape == (1, 44)

    assert np.isfinite(generate(engine, PARAMS, REQUEST, callback=callback)).all()
    assert len(refused) == 15


def slow_engine() -> tuple[Engine, Any, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """An engine whose single token takes some tenths of a second."""
    changes = {"fm_head_dim": 256, "fm_head_layers": 4}
    config = config_of(**changes)
    engine = Engine(config, stored_as(random_weights(config), "float32"), dtype="float32", threads=1)
    params = sampling(num_tokens=4, num_inference_steps=1000, branches=1)
    return engine, params, request(config, params, 4, width=2)


def test_other_python_threads_run_during_a_token() -> None:
    engine, params, (embeds, mask, noise) = slow_engine()
    engine.prefill(embeds, mask, max_new_tokens=4)
    ticks, done = [], threading.Event()

    def tick() -> None:
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    begin = time.perf_counter()
    engine.decode(params, 1, noise=noise[:1])
    end = time.perf_counter()
    done.set()
    thread.join()
    during = sum(begin < t < end for t in ticks)
    assert end - begin > 0.05
    # A thread that must wait for the token would tick once or twice.
    assert during > 10, f"{during} ticks in {end - begin:.3f} s"


def test_two_engines_run_at_once() -> None:
    whole = generate(small_engine("bfloat16"), PARAMS, REQUEST)
    results: list[np.ndarray] = []

    def run() -> None:
        engine = small_engine("bfloat16")
        results.extend(generate(engine, PARAMS, REQUEST) for _ in range(5))

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 15
    for tokens in results:
        assert_same_bits(tokens, whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeds": np.zeros((4, 3, 45), np.float32)}, r"embeds.*\[4, 3, 45\]"),
        ({"embeds": np.zeros((4, 3), np.float32)}, "embeds"),
        ({"embeds": np.zeros((4, 3, 44))}, "embeds.*float64"),
        ({"embeds": [[1.0]]}, "embeds.*list"),
        ({"embeds": None}, "embeds"),
        ({"embeds": np.zeros((17, 3, 44), np.float32)}, "17 rows"),
        ({"embeds": np.zeros((0, 3, 44), np.float32)}, "0 rows"),
        ({"embeds": np.zeros((4, 0, 44), np.float32)}, "0 columns"),
        ({"mask": np.ones((4, 4), bool)}, "mask"),
        ({"mask": np.ones((4, 3), np.int64)}, "mask.*int64"),
        ({"mask": np.array([[1, 1, 1], [0, 0, 0], [1, 1, 1], [1, 1, 1]], bool)}, "row 1"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
        ({"max_new_tokens": 2046}, "2048 positions"),
        ({"max_new_tokens": 2**62}, "positions"),
    ],
)
def test_impossible_prefills(change: dict[str, Any], message: str) -> None:
    engine = small_engine()
    arguments = {"embeds": np.zeros((4, 3, 44), np.float32), "mask": None, "max_new_tokens": 2, **change}
    with pytest.raises(InvalidRequest, match=message):
        engine.prefill(**arguments)


NOISE = np.zeros((5, 4, 2, 12), np.float32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": NOISE[:4]}, r"noise.*\[4, 4, 2, 12\]"),
        ({"noise": NOISE[..., :-1]}, "noise"),
        ({"noise": NOISE[:, :3]}, "noise"),
        ({"noise": NOISE.astype(np.float64)}, "noise.*float64"),
        ({"noise": NOISE[:, :, :, :, None]}, "noise"),
        ({"noise": NOISE.tolist()}, "noise"),
        ({"noise": None}, "noise or seeds"),
        ({"seeds": [1, 2]}, "noise or seeds"),
        ({"noise": None, "seeds": [1]}, "1 seeds"),
        ({"noise": None, "seeds": [1, 2, 3]}, "3 seeds"),
        ({"noise": None, "seeds": [1, -1]}, "seed -1"),
        ({"noise": None, "seeds": [1, 2**64]}, "seed 18446744073709551616"),
        ({"noise": None, "seeds": [1, "x"]}, "seed 'x'"),
        ({"noise": None, "seeds": [1, 1.5]}, "seed 1.5"),
        ({"count": 6}, "6 tokens"),
        ({"count": -1}, "-1 tokens"),
        ({"count": 0, "noise": NOISE[:0]}, "0 tokens"),
        ({"params": sampling(num_tokens=6, branches=2), "noise": np.zeros((6, 4, 2, 12), np.float32)}, "room for 5"),
    ],
)
def test_impossible_decodes(change: dict[str, Any], message: str) -> None:
    engine = small_engine()
    engine.prefill(*REQUEST[:2], max_new_tokens=5)
    with pytest.raises(InvalidRequest, match=message):
        engine.decode(**{"params": PARAMS, "noise": NOISE, **change})
    assert engine.position == 0
    assert engine.decode(PARAMS, noise=NOISE).shape == (2, 5, 12)


def test_decode_without_prefill_says_so() -> None:
    for options in ({"noise": NOISE}, {"seeds": [1, 2]}):
        with pytest.raises(InvalidRequest, match="prefill"):
            small_engine().decode(PARAMS, **options)


def test_rows_that_are_no_multiple_of_the_branches_say_so() -> None:
    engine = small_engine()
    engine.prefill(*REQUEST[:2], max_new_tokens=5)
    for options in ({"noise": NOISE}, {"seeds": [1, 2]}):
        with pytest.raises(InvalidRequest, match=r"4 .*3 .*branches"):
            engine.decode(sampling(num_tokens=5, branches=3), **options)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_stops_being_finite_names_its_token(value: float) -> None:
    engine, noise = small_engine(), REQUEST[2].copy()
    noise[3, 0, 1, 5] = value
    engine.prefill(*REQUEST[:2], max_new_tokens=5)
    with pytest.raises(Error, match="image token 3 of image 1"):
        engine.decode(PARAMS, noise=noise)
    assert np.isfinite(generate(engine, PARAMS, REQUEST)).all()
    weights = stored_as(random_weights(config_of()), "float32")
    weights["layers.1.mlp.up_proj.weight"] = weights["layers.1.mlp.up_proj.weight"].copy()
    weights["layers.1.mlp.up_proj.weight"][7, 7] = value
    broken = Engine(config_of(), weights, dtype="float32", threads=2)
    with pytest.raises(Error, match="image token 0 of image 0"):
        generate(broken, PARAMS, REQUEST)


def test_states_and_their_shapes() -> None:
    engine = small_engine()
    generate(engine, PARAMS, REQUEST)
    shapes = {name: engine.state(name).shape for name in ("hidden", "cond", "modulation", "velocity", "latent")}
    width = (3 * 2 + 2) * 36
    assert shapes == {
        "hidden": (4, 44), "cond": (4, 44), "modulation": (12, width), "velocity": (4, 12), "latent": (2, 12)
    }  # fmt: skip
    with pytest.raises(InvalidRequest, match=r"logits.*hidden, cond"):
        engine.state("logits")


def test_ids_and_tokens_that_cannot_be_embedded() -> None:
    engine = small_engine()
    for ids in ([0, 50], [-1], [2**40]):
        with pytest.raises(InvalidRequest, match="vocabulary of 50"):
            engine.embed_tokens(np.array(ids))
    for bad in ([1, 2], np.array([1.0]), np.array([[1]]), np.array([1], np.int32), "a"):
        with pytest.raises(InvalidRequest, match="ids"):
            engine.embed_tokens(bad)
    with pytest.raises(InvalidRequest, match="tokens"):
        engine.project_tokens(np.zeros((2, 11), np.float32))
    assert engine.embed_tokens(np.zeros(0, np.int64)).shape == (0, 44)
    assert engine.project_tokens(np.zeros((0, 12), np.float32)).shape == (0, 44)
    table = random_weights(config_of())["embed_tokens.weight"].numpy()
    ids = np.array([0, 49, 7, 7])
    assert_same_bits(engine.embed_tokens(ids), table[ids])
    assert engine.project_tokens(np.ones((200, 12), np.float32)).shape == (200, 44)
