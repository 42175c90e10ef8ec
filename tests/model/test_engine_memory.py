"""Memory that runs out within the engine is an Error, and the next request works."""

from __future__ import annotations

from kit.isolated import run_python

SETUP = """
import resource
import numpy as np
from kit.models import config_of, random_weights, sampling, stored_as
from nextstep_rt import Engine, Error

config = config_of(fm_head_dim=192, fm_head_layers=4, max_position_embeddings=100000)
embeds = np.random.default_rng(0).standard_normal((2, 3, config.hidden_size)).astype(np.float32)
few, many = (sampling(num_tokens=2, num_inference_steps=n, branches=1) for n in (3, 1000))
engine = Engine(config, stored_as(random_weights(config), "float32"), dtype="float32", threads=2)

def small():
    engine.prefill(embeds, max_new_tokens=2)
    return engine.decode(few, seeds=[1, 2])

def limited(extra, call):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, resource.RLIM_INFINITY))
    try:
        call()
        return "done"
    except (Error, MemoryError) as error:
        return str(error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

want = small()
"""


def test_a_plan_that_did_not_fit_leaves_none_behind() -> None:
    code = (
        SETUP
        + """
engine.prefill(embeds, max_new_tokens=2)
first = engine.decode(few, 1, seeds=[1, 2])
said = limited(1 << 20, lambda: engine.decode(many, 1, seeds=[1, 2]))
assert "out of memory" in said, said
second = engine.decode(few, 1, seeds=[1, 2])
assert np.array_equal(np.concatenate([first, second], axis=1), want)
"""
    )
    run_python(code)


def test_rows_that_did_not_fit_leave_the_engine_usable() -> None:
    code = (
        SETUP
        + """
# Wherever within reserve() it fails: caches, partial sums or tables of angles.
answers = set()
for megabytes in (0, 8, 32, 64, 96, 128, 160, 200, 260, 340):
    answers.add(limited(megabytes << 20, lambda: engine.prefill(embeds, max_new_tokens=60000))[:13])
    assert np.array_equal(small(), want), megabytes
assert "out of memory" in answers, answers
"""
    )
    run_python(code)
