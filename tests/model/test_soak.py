"""Hundreds of images through one engine: memory and threads stay what they were."""

from __future__ import annotations

import json

import pytest
from kit.isolated import run_python

CODE = """
import json, sys
import numpy as np, psutil
from kit.golden import ROOT
from nextstep_rt import Pipeline

images, settled, output = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
pipe = Pipeline.from_pretrained(str(ROOT / "tiny" / "model"), dtype=sys.argv[4], threads=2)
process = psutil.Process()
prompts = ["a red circle", "two", "", "a very long prompt of many words about a board " * 3]
sizes = [(32, 32), (32, 48), (48, 32), (32, 64)]
solvers = ["sde", "euler", "heun", "flow-cps"]
rss, threads, first, made, turn = {}, set(), None, 0, 0

while made < images:
    count = 1 + turn % 3
    height, width = sizes[turn % 4]
    result = pipe(prompts[turn // 4 % 4], height=height, width=width, num_images_per_prompt=count, seed=made,
                  num_inference_steps=2 + turn % 3, guidance_scale=1.0 + turn % 2, solver=solvers[turn % 4],
                  output_type=output, callback=lambda *a: None)
    assert np.isfinite(result.tokens).all()
    if turn == 0:
        first = result.tokens
    made += count
    turn += 1
    del result
    threads.add(process.num_threads()) if made >= settled else None
    rss[made] = process.memory_info().rss

again = pipe(prompts[0], height=32, width=32, seed=0, num_inference_steps=2, guidance_scale=1.0, solver="sde",
             output_type=output)
assert np.array_equal(again.tokens, first), "the first image is no longer the same"
begin = min(n for n in rss if n >= settled)
print(json.dumps({"growth": rss[max(rss)] - rss[begin], "threads": sorted(threads), "images": made}))
"""


@pytest.mark.parametrize(
    ("images", "settled", "output", "dtype", "allowed"),
    [
        # Between the marks nothing may be kept; the allocator may still round up.
        (500, 50, "latent", "bfloat16", 3e6),
        (500, 50, "latent", "float32", 3e6),
        # torch's allocator keeps pages of convolutions for a while.
        (20, 8, "np", "bfloat16", 16e6),
    ],
)
def test_memory_stays_flat(images: int, settled: int, output: str, dtype: str, allowed: float) -> None:
    """Requests of changing sizes, so that every buffer is grown, shrunk and reused."""
    printed = run_python(CODE, str(images), str(settled), output, dtype, timeout=300, OMP_NUM_THREADS="1")
    seen = json.loads(printed.splitlines()[-1])
    assert seen["images"] >= images
    assert seen["growth"] <= allowed, f"{seen['growth'] / 1e6:.2f} MB more than after image {settled}"
    assert len(seen["threads"]) == 1, f"threads came and went: {seen['threads']}"


def test_engines_come_and_go() -> None:
    """Making and dropping engines keeps nothing either."""
    code = """
import psutil
from kit.models import config_of, generate, random_weights, request, sampling, stored_as
from nextstep_rt import Engine

config, params = config_of(), sampling(branches=2)
weights, given = stored_as(random_weights(config), "float32"), request(config, params, 2)
process, marks = psutil.Process(), []
for turn in range(200):
    engine = Engine(config, weights, dtype="bfloat16", threads=2)  # converts the weights: a copy each time
    generate(engine, params, given)
    del engine
    marks.append(process.memory_info().rss)
print(marks[-1] - marks[50])
"""
    assert int(run_python(code, timeout=120).splitlines()[-1]) < 3e6
