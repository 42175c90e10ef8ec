"""How peers are measured, what a table says of them, and torch.compile. No figure here means anything."""

from __future__ import annotations

import json
import os
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit.commands import fails, run

from bench.app import app
from bench.commands.peers import measure
from bench.loop import Load, begin, stage_times
from bench.measure import Policy, Sample
from bench.peers import REGISTRY, compiled, find
from bench.peers.backbone import AROUND, backbone_seconds
from bench.peers.workers import workers_of
from bench.pinning import TASKS
from bench.results import new_record
from bench.subject import Subject, load, named
from bench.views import tables
from nextstep_rt import InvalidRequest
from nextstep_rt.reference import ReferenceEngine

TINY = ["--synthetic", "tiny", "--steps", "2", "--tokens", "2", "--positions", "4", "--threads", "1"]
QUICK = ["--repeats", "1", "--warmup", "0", "--max-spread", "1e9"]
SETTINGS = {"model": "tiny", "dtype": "float32", "rows": 2, "steps": 3, "threads": 1, "max_spread": 0.25}


class Counting:
    """A peer that takes as long as it is told, of either scope."""

    VERSION = "7"
    how: str | None = "slowly"
    caveat: str | None = None

    def __init__(self, scope: Any, seconds: float) -> None:
        self.NAME, self.WHAT, self.SCOPE = f"counting-{scope}", f"counting, {scope}", scope
        self.seconds, self.threads, self.loads = seconds, 1, list[Load]()

    def missing(self, subject: Subject) -> str | None:
        return None

    def version(self) -> str | None:
        return self.VERSION

    def prepare(self, subject: Subject, threads: int) -> Counting:
        self.threads = threads
        return self

    def token_seconds(self, load: Load) -> float:
        self.loads.append(load)
        return self.seconds


def pair(*ratios: float, **more: Any) -> dict[str, Any]:
    a, b = Sample((1e-3,) * len(ratios)), Sample(tuple(1e-3 * ratio for ratio in ratios))
    return {
        "name": "x", "what": "X", "version": "2", "pinned": True, "a": a.to_json(), "b": b.to_json(),
        "ratio": Sample(ratios).to_json(), **more,
    }  # fmt: skip


def shown(*peers: dict[str, Any]) -> list[tuple[str, list[tuple[str, ...]]]]:
    data = {"backend": "cpu/x", "weights": "own layers", "peers": list(peers)}
    return [(table.title, table.rows) for table in tables(new_record("peers", "python -m bench peers", SETTINGS, data))]


def test_every_peer_can_be_found() -> None:
    assert list(REGISTRY) == ["reference", "compile", "llama.cpp"]
    assert all(name == find(name).NAME and find(name).WHAT for name in REGISTRY)
    assert [find(name).SCOPE for name in REGISTRY] == ["token", "token", "backbone"]
    with pytest.raises(InvalidRequest, match=r"unknown peer 'x': known are reference, compile, llama\.cpp"):
        find("x")


def test_each_peer_stands_beside_the_same_part_of_the_native_loop() -> None:
    token, backbone = Counting("token", 5.0), Counting("backbone", 5.0)
    asked = Load(2, 2, 4, 2)
    data = measure(load(named("tiny"), "float32"), asked, [token, backbone], 1, Policy(2, 1, 1e9), pin=False)
    first, second = data["peers"]
    assert (first["scope"], second["scope"], first["how"], first["caveat"]) == ("token", "backbone", "slowly", None)
    assert first["b"]["samples"] == second["b"]["samples"] == [5.0, 5.0]
    # Two runs to start its threads and to find them, a warm-up, two repeats.
    assert token.loads == backbone.loads == [asked] * 5
    for one in (first, second):
        assert one["ratio"]["samples"] == [b / a for a, b in zip(one["a"]["samples"], one["b"]["samples"], strict=True)]


def test_the_backbone_is_what_the_other_stages_leave() -> None:
    engine = load(named("tiny"), "float32").engine(1)
    stages = stage_times(engine, Load(2, 1, 4, 4))
    assert set(AROUND) < set(stages)
    assert set(stages) - set(AROUND) == {"norm_qkv", "rope_append", "attention", "attn_out", "mlp", "other"}
    seen: list[int] = []

    class Watched:
        config, rows = engine.config, 2

        def __getattr__(self, name: str) -> Any:
            return getattr(engine, name)

        def decode(self, params: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(params.num_inference_steps)
            return engine.decode(params, *args, **kwargs)

    assert backbone_seconds(Watched(), Load(2, 7, 4, 4)) > 0
    assert seen == [1, 1]


@pytest.mark.parametrize(
    ("ratios", "said"),
    [
        ((1.1, 1.2, 1.1), "native is ahead"),
        ((0.9, 0.8, 0.9), "the peer is ahead"),
        ((0.95, 1.0, 1.05), "no difference shown"),
        ((1.0, 4.0, 9.0), "nothing is claimed"),
    ],
)
def test_a_table_says_who_is_ahead(ratios: tuple[float, ...], said: str) -> None:
    [(title, [row])] = shown(pair(*ratios))
    assert title == "tiny, float32, 2 rows, 3 steps, 1 thread: native is cpu/x"
    assert (row[0], row[-1]) == ("X 2", said)
    [(_, [row])] = shown(pair(*ratios, caveat="it was built for another CPU"))
    assert row[-1] == (said if said == "nothing is claimed" else f"{said}, but it was built for another CPU")


def test_backbones_have_a_table_of_their_own_and_reasons_are_told() -> None:
    steps = pair(0.5, 0.5, scope="backbone", how="one cache a row", name="y", what="Y")
    absent = {"name": "z", "what": "Z", "version": None, "scope": "backbone", "missing": "it needs z: pip install z"}
    first, second = shown(steps, pair(2.0, 2.0), absent)
    assert first == ("tiny, float32, 2 rows, 3 steps, 1 thread: native is cpu/x",
                     [("X 2", "2", "1", "2", "native is ahead")])  # fmt: skip
    assert second[0].endswith(": the backbone alone, native is cpu/x")
    assert second[1] == [
        ("Y 2 (one cache a row)", "0.5", "1", "0.5", "the peer is ahead"),
        ("Z", "-", "-", "-", "not run: it needs z: pip install z"),
    ]


def test_what_is_not_installed_is_told_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_module("torch._inductor.config")  # which keeps the compiler that CXX names when it is first imported
    monkeypatch.setattr("bench.peers.llama.find_spec", lambda name: None)
    monkeypatch.setenv("CXX", "/no/such/compiler")
    out = tmp_path / "p.json"
    run("peers", *TINY, *QUICK, "--out", str(out), app=app)
    reference, compile_, llama = json.loads(out.read_text())["data"]["peers"]
    assert reference["ratio"]["median"] > 0
    assert "there is no /no/such/compiler: install g++, or name one with CXX=" in compile_["missing"]
    assert "it needs llama-cpp-python and gguf: pip install" in llama["missing"]
    assert "nextstep-rt[peers]" in llama["missing"]
    said = fails("peers", *TINY, *QUICK, "--against", "llama.cpp", code=1, app=app)
    assert said.startswith("error: nothing to measure: llama.cpp, the backbone alone: it needs llama-cpp-python")


@pytest.mark.skipif(not TASKS.is_dir(), reason="no /proc on this system")
def test_workers_are_those_who_work() -> None:
    go, done, stop = (threading.Barrier(2) for _ in range(3))

    def work() -> None:
        go.wait()
        sum(i * i for i in range(300_000))
        done.wait()
        stop.wait()

    busy, idle = (threading.Thread(target=target, daemon=True) for target in (work, threading.Event().wait))
    busy.start(), idle.start()

    def one_run() -> None:
        go.wait()
        done.wait()

    assert workers_of(one_run) == (busy.native_id,)
    stop.wait()
    busy.join()


def test_torch_compile_needs_a_compiler_and_headers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    subject = load(named("tiny"), "float32")
    monkeypatch.setenv("CXX", os.devnull + "x")
    assert "needs a C++ compiler" in (compiled.missing(subject) or "")
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path))
    assert "needs Python.h" in (compiled.missing(subject) or "")


@pytest.mark.timeout(1200)
def test_compiled_tokens_are_the_reference_s() -> None:
    keys = "num_hidden_layers=1 fm_head_layers=1 hidden_size=64 num_attention_heads=2 num_key_value_heads=1"
    from bench.subject import find as shape

    subject = load(shape([f"tiny {keys}"]), "float32")
    if (reason := compiled.missing(subject)) is not None:
        pytest.skip(reason)
    asked = Load(2, 2, 4, 3)
    reference = ReferenceEngine(subject.config, subject.weights, dtype="float32", threads=1)
    params, seeds = begin(reference, asked)
    expected = reference.decode(params, seeds=seeds)
    runner = compiled.prepare(subject, 1)
    for _ in range(2):  # the second run starts where the first did
        seconds, tokens = runner.run(asked)
        assert len(seconds) == tokens.shape[1] == asked.last - asked.positions
        np.testing.assert_allclose(tokens, expected, rtol=1e-4, atol=1e-4)
    assert 0 < runner.token_seconds(asked) <= max(seconds) * 100
