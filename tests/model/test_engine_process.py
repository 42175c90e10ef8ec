"""The engine in its process: Ctrl-C, fork, exit. Each in a process of its own, with a time limit."""

from __future__ import annotations

import pytest
from kit.isolated import run_python

# One token takes some hundredths of a second, so that "within one token" can be told from "at the end".
SLOW = """
import os, signal, sys, threading, time
import numpy as np
from kit.models import config_of, random_weights, request, sampling, stored_as
from nextstep_rt import Engine, Error

changes = {"fm_head_dim": 192, "fm_head_layers": 4, "max_position_embeddings": 100000}
config = config_of(**changes)
params = sampling(num_tokens=60, num_inference_steps=150, branches=1)
embeds = np.random.default_rng(0).standard_normal((2, 3, config.hidden_size)).astype(np.float32)
weights = stored_as(random_weights(config), "float32")  # made once: torch's own threads do not survive a fork

def make(threads):
    return Engine(config, weights, dtype="float32", threads=threads)

def interrupt_after(seconds, look=lambda: None):
    def run():
        time.sleep(seconds)
        seen.append((look(), time.perf_counter()))
        os.kill(os.getpid(), signal.SIGINT)
    seen = []
    threading.Thread(target=run, daemon=True).start()
    return seen
"""


@pytest.mark.parametrize("callback", ["None", "lambda *a: None"])
def test_ctrl_c_stops_decode_within_one_token(callback: str) -> None:
    code = (
        SLOW
        + f"""
engine = make(2)
engine.prefill(embeds, max_new_tokens=60)
begin = time.perf_counter()
whole = engine.decode(params, 6, seeds=[1, 2])
token = (time.perf_counter() - begin) / 6
engine.prefill(embeds, max_new_tokens=60)
seen = interrupt_after(3.5 * token, lambda: engine.position)
try:
    engine.decode(params, seeds=[1, 2], callback={callback})
except KeyboardInterrupt:
    stopped, end = engine.position, time.perf_counter()
else:
    raise AssertionError("not interrupted")
(made, sent), = seen
# The token under way, and one that may end between looking and sending.
assert made <= stopped <= made + 2, (made, stopped)
assert stopped < 60
rest = engine.decode(params, 1, seeds=[1, 2])
assert engine.position == stopped + 1 and np.isfinite(rest).all()
engine.prefill(embeds, max_new_tokens=60)
assert np.array_equal(engine.decode(params, 6, seeds=[1, 2]), whole)
"""
    )
    run_python(code)


def test_ctrl_c_stops_prefill_between_chunks() -> None:
    code = (
        SLOW
        + """
engine = make(2)
wide = np.random.default_rng(0).standard_normal((4, 6000, config.hidden_size)).astype(np.float32)
done = []
seen = interrupt_after(0.3)
try:
    engine.prefill(wide, max_new_tokens=1, progress=lambda *a: done.append(a))
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("not interrupted")
assert time.perf_counter() - seen[0][1] < 2
assert not done or done[-1][0] < 4 * 6000
assert engine.rows == 0
engine.prefill(embeds, max_new_tokens=3)
assert np.isfinite(engine.decode(params, 1, seeds=[1, 2])).all()
"""
    )
    run_python(code)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_an_engine_says_so_after_fork(threads: int) -> None:
    """The child has no worker threads: calls raise instead of waiting for them; a new engine works in both."""
    code = (
        SLOW
        + """
import gc
params = sampling(num_tokens=4, branches=1)
engine = make(int(sys.argv[1]))
engine.prefill(embeds, max_new_tokens=4)
first = engine.decode(params, 2, seeds=[1, 2])
child = os.fork()
if child == 0:
    status = 1
    try:
        signal.alarm(20)
        for call in (
            lambda: engine.decode(params, 1, seeds=[1, 2]),
            lambda: engine.prefill(embeds, max_new_tokens=4),
            lambda: engine.project_tokens(np.zeros((1, config.token_dim), np.float32)),
        ):
            try:
                call()
            except Error as error:
                assert "fork" in str(error), error
            else:
                raise AssertionError("no error")
        # The new threads may get the dead ones' handles: the old engine, going later, must not touch them.
        fresh = make(2)
        del engine
        gc.collect()
        fresh.prefill(embeds, max_new_tokens=4)
        assert np.array_equal(fresh.decode(params, 2, seeds=[1, 2]), first)
        del fresh
        gc.collect()
        status = 0
    finally:
        sys.stdout.flush()
        os._exit(status)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0, status
second = engine.decode(params, 2, seeds=[1, 2])
again = make(1)
again.prefill(embeds, max_new_tokens=4)
assert np.array_equal(again.decode(params, seeds=[1, 2]), np.concatenate([first, second], axis=1))
"""
    )
    run_python(code, str(threads))


def test_multiprocessing_by_fork_works_with_an_engine_in_each_child() -> None:
    code = (
        SLOW
        + """
import multiprocessing
engine = make(2)
engine.prefill(embeds, max_new_tokens=60)

def work(seed):
    mine = make(2)
    mine.prefill(embeds, max_new_tokens=4)
    return mine.decode(sampling(num_tokens=4, branches=1), seeds=[seed, 5])

with multiprocessing.get_context("fork").Pool(2) as pool:
    results = pool.map_async(work, [3, 3]).get(timeout=40)
assert np.array_equal(*results)
"""
    )
    run_python(code)


@pytest.mark.parametrize("ending", ["sys.exit(0)", "keep = [engine]; keep.append(keep)"])
def test_exit_with_an_engine_alive(ending: str) -> None:
    code = (
        SLOW
        + f"""
engine = make(2)
engine.prefill(embeds, max_new_tokens=60)
engine.decode(params, 1, seeds=[1, 2])
{ending}
"""
    )
    run_python(code, timeout=30)


def test_exit_while_a_daemon_thread_decodes() -> None:
    """As a server may end. Tokens are quick here, so that the interpreter is gone when the next one asks for it."""
    code = """
import threading, time
import numpy as np
from kit.models import config_of, random_weights, sampling, stored_as
from nextstep_rt import Engine

config = config_of(max_position_embeddings=100000)
engine = Engine(config, stored_as(random_weights(config), "float32"), dtype="float32", threads=1)
params = sampling(num_tokens=90000, num_inference_steps=1)
engine.prefill(np.zeros((1, 1, config.hidden_size), np.float32), max_new_tokens=90000)
threading.Thread(target=engine.decode, args=(params,), kwargs={"seeds": [1]}, daemon=True).start()
time.sleep(0.2)
assert 0 < engine.position < 90000
"""
    run_python(code, timeout=30)


def test_threads_end_with_their_engine() -> None:
    code = (
        SLOW
        + """
import gc, psutil
params = sampling(num_tokens=2, branches=1)
def count():
    return psutil.Process().num_threads()
before = count()
for turn in range(20):
    engine = make(3)
    assert count() == before + 2
    engine.prefill(embeds, max_new_tokens=2)
    engine.decode(params, seeds=[1, 2])
    assert count() == before + 2
    del engine
    gc.collect()
    assert count() == before
"""
    )
    run_python(code, OMP_NUM_THREADS="1")
