"""The llama.cpp peer: its file holds the model's weights, its steps are the loop's, and it computes the same."""

from __future__ import annotations

import ctypes
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.loop import Load
from bench.peers import gguf_file, llama, llama_api
from bench.subject import Subject, load, named
from bench.synthetic import config_of, random_weights
from nextstep_rt import Error, ModelConfig
from nextstep_rt.reference import Sequences, run_backbone

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
KV, WIDE = 64, 192  # of the tiny shape: two heads of keys and values, the MLP


def weights_of(config: ModelConfig, dtype: str) -> dict[str, torch.Tensor]:
    """Random ones, norms too: what is one everywhere could be left out unseen."""
    made = random_weights(config, KINDS[dtype], seed=3)
    generator = torch.Generator().manual_seed(4)
    for name, tensor in made.items():
        if name.endswith("norm.weight"):
            made[name] = (1 + 0.3 * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("bias", [True, False])
def test_the_file_has_the_backbone_s_tensors(tmp_path: Path, dtype: str, bias: bool) -> None:
    gguf = pytest.importorskip("gguf")
    config = config_of("tiny", attention_bias=bias)
    weights = weights_of(config, dtype)
    path = tmp_path / "backbone.gguf"
    gguf_file.write_backbone(path, config, weights, dtype)
    read = gguf.GGUFReader(path)
    found = {tensor.name: tensor for tensor in read.tensors}

    d, vocabulary = config.hidden_size, gguf_file.VOCABULARY
    matrices = {"attn_q": (d, d), "attn_k": (KV, d), "attn_v": (KV, d), "attn_output": (d, d), "ffn_gate": (WIDE, d),
                "ffn_up": (WIDE, d), "ffn_down": (d, WIDE)}  # fmt: skip
    vectors = {"attn_norm.weight": d, "ffn_norm.weight": d}
    vectors |= {"attn_q.bias": d, "attn_k.bias": KV, "attn_v.bias": KV} if bias else {}
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (vocabulary, d), "output_norm.weight": (d,)}
    for i in range(2):
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in matrices.items()}
        shapes |= {f"blk.{i}.{name}": (size,) for name, size in vectors.items()}
    assert {name: tuple(reversed(tensor.shape.tolist())) for name, tensor in found.items()} == shapes
    for name, tensor in found.items():
        matrix = len(shapes[name]) == 2
        assert tensor.tensor_type.name == ("BF16" if matrix and dtype == "bfloat16" else "F32")
    # The matrices lie on the disk as they are: the largest part of the file is known before it is written.
    matrix_bytes = sum(int(found[name].n_bytes) for name, shape in shapes.items() if len(shape) == 2)
    assert gguf_file.file_bytes(config, dtype) == matrix_bytes

    names = dict(gguf_file.tensor_names(config))
    assert set(names) == set(shapes) - {"token_embd.weight"}
    for theirs, ours in names.items():
        data = torch.from_numpy(np.array(found[theirs].data))
        value = data.view(torch.bfloat16) if found[theirs].tensor_type.name == "BF16" else data
        assert torch.equal(value.float(), weights[ours].float()), theirs


def test_the_file_says_what_shape_it_is(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    config = config_of("tiny")
    gguf_file.write_backbone(tmp_path / "b.gguf", config, weights_of(config, "float32"), "float32")
    fields = gguf.GGUFReader(tmp_path / "b.gguf").fields
    told = {name: fields[name].contents() for name in fields}
    assert told["general.architecture"] == "qwen2"
    assert told["tokenizer.ggml.model"] == "no_vocab"
    assert {name.removeprefix("qwen2."): value for name, value in told.items() if name.startswith("qwen2.")} == {
        "block_count": 2, "context_length": 8192, "embedding_length": 128, "feed_forward_length": WIDE,
        "attention.head_count": 4, "attention.head_count_kv": 2, "vocab_size": gguf_file.VOCABULARY,
        "attention.layer_norm_rms_epsilon": pytest.approx(1e-6), "rope.freq_base": 1e6,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"head_dim": 64}, "its 4 heads of 64 are not hidden_size 128"),
        ({"o_attention_bias": True, "mlp_bias": True}, "it sets o_attention_bias and mlp_bias"),
        ({}, None),
    ],
)
def test_shapes_that_its_architecture_does_not_hold_are_refused(keys: dict[str, Any], said: str | None) -> None:
    assert gguf_file.unlike(config_of("tiny", **keys)) == said


class Fake:
    """llama.cpp's functions, as far as the peer calls them; keeps what each step was given."""

    LLAMA_LOAD_MODE_NONE, LLAMA_POOLING_TYPE_NONE = 0, 0
    LLAMA_FLASH_ATTN_TYPE_AUTO, LLAMA_FLASH_ATTN_TYPE_DISABLED = -1, 0
    INFO = b"CPU : SSE3 = 1 | AVX2 = 1 | AVX512 = 1 | AVX512_BF16 = 0 | REPACK = 1 | "

    def __init__(self, width: int) -> None:
        self.width, self.code, self.loads = width, 0, True
        self.steps: list[tuple[list[int], list[int]]] = []
        self.context: Any = None

    def __getattr__(self, name: str) -> Any:
        return lambda *_: SimpleNamespace()

    def llama_model_load_from_file(self, path: bytes, params: Any) -> int:
        return int(self.loads)

    def llama_model_n_embd(self, model: int) -> int:
        return self.width

    def llama_print_system_info(self) -> bytes:
        return self.INFO

    def llama_init_from_model(self, model: int, params: Any) -> int:
        self.context = params
        return 2

    def llama_batch_init(self, count: int, width: int, most: int) -> Any:
        floats = (ctypes.c_float * (count * width))()
        numbers = ([0] * count for _ in range(3))
        pos, n_seq_id, logits = numbers
        return SimpleNamespace(
            embd=ctypes.cast(floats, ctypes.POINTER(ctypes.c_float)), pos=pos, n_seq_id=n_seq_id, logits=logits,
            seq_id=[[0] for _ in range(count)], n_tokens=0, keep=floats,
        )  # fmt: skip

    def llama_decode(self, context: int, batch: Any) -> int:
        count = batch.n_tokens
        assert all(batch.logits[:count])
        assert all(batch.n_seq_id[i] == 1 for i in range(count))
        self.steps.append(([batch.seq_id[i][0] for i in range(count)], list(batch.pos[:count])))
        return self.code


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(128)
    kept = llama_api.Library(made)
    monkeypatch.setattr(llama_api, "library", lambda: kept)
    monkeypatch.setattr(gguf_file, "write_backbone", lambda *_: None)
    monkeypatch.setattr(llama, "find_spec", lambda name: object())
    return made


def subject_of(dtype: str = "bfloat16") -> Subject:
    return load(named("tiny"), dtype)


def test_all_rows_take_each_step_together(fake: Fake) -> None:
    runner = llama.prepare(subject_of(), 2)
    assert runner.token_seconds(Load(rows=3, positions=300, tokens=2)) > 0
    prompts = [([row] * len(part), part) for row in range(3) for part in (list(range(256)), list(range(256, 300)))]
    # A warm-up step and two that count, where the loop's third and fourth token take theirs.
    assert fake.steps == prompts + [([0, 1, 2], [position] * 3) for position in (300, 301, 302)]
    made = fake.context
    assert (made.n_seq_max, made.n_threads, made.n_threads_batch, made.embeddings) == (3, 2, 2, True)
    assert made.n_ctx == 3 * 512  # 304 positions a row, rounded up
    assert (made.type_k, made.type_v, made.flash_attn_type) == (30, 30, -1)
    runner.token_seconds(Load(rows=3, positions=300, tokens=2))
    assert fake.context is made
    runner.token_seconds(Load(rows=1, positions=4, tokens=2))
    assert fake.context is not made


def test_a_build_for_less_than_this_cpu_is_no_fair_peer(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {"amx_bf16": ("AVX512_BF16", "AVX512"), "avx512_bf16": ("AVX512_BF16", "AVX512"),
              "avx512": ("AVX512", "AVX512"), "avx2": ("AVX2", "AVX2"), "portable": (None, None)}  # fmt: skip
    for isa, needed in levels.items():
        assert (llama.wanted("bfloat16", isa), llama.wanted("float32", isa)) == needed
    monkeypatch.setattr("nextstep_rt._core.isa", lambda: "avx512_bf16")
    runner = llama.prepare(subject_of(), 1)
    assert runner.how == "built with AVX2, AVX512; cache in bfloat16"
    assert runner.caveat == "its build lacks AVX512_BF16, which native uses: compile it on this machine"
    assert llama.prepare(subject_of("float32"), 1).caveat is None


def test_failures_end_with_llama_cpp_s_words(fake: Fake) -> None:
    runner = llama.prepare(subject_of(), 1)
    fake.code = -3
    llama_api.library().errors.append("compute failed")
    with pytest.raises(Error, match="failed in a step, with code -3: compute failed"):
        runner.token_seconds(Load(tokens=2))
    fake.loads = False
    with pytest.raises(Error, match="cannot load the backbone: it does not say why"):
        llama.prepare(subject_of(), 1)


def test_what_it_cannot_run_is_told(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subject_of()
    assert llama.missing(subject) is None
    shared = Subject(subject.name, subject.config, subject.dtype, subject.weights, "one layer shared by all")
    assert "cannot share one layer" in (llama.missing(shared) or "")
    wide = Subject("x", config_of("tiny", head_dim=64), subject.dtype, {}, "own layers")
    assert "does not hold this shape: its 4 heads of 64" in (llama.missing(wide) or "")
    monkeypatch.setattr("nextstep_rt._core.available_memory", lambda: 1000)
    assert "another copy of the weights needs" in (llama.missing(subject) or "")
    monkeypatch.delattr(Fake, "LLAMA_LOAD_MODE_NONE")
    monkeypatch.delattr(Fake, "__getattr__")
    assert "is too old: pip install" in (llama.missing(subject) or "")
    monkeypatch.setattr(llama, "find_spec", lambda name: None if name == "gguf" else object())
    assert (llama.missing(subject) or "").startswith("it needs gguf: pip install")


@pytest.mark.skipif(find_spec("llama_cpp") is None, reason="llama-cpp-python is not installed")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 4e-2)])
def test_it_computes_what_the_reference_does(dtype: str, tolerance: float) -> None:
    config = config_of("tiny", rope_theta=1e4)
    weights = weights_of(config, dtype)
    subject = Subject("tiny", config, dtype, weights, "own layers")
    if (reason := llama.missing(subject)) is not None:
        pytest.skip(reason)
    runner = llama.prepare(subject, 1)
    rows, width, d = 3, 9, config.hidden_size
    embeds = np.random.default_rng(5).standard_normal((rows, width + 2, d)).astype(np.float32)
    context = llama_api.Context(runner.model, rows, width + 2, 1, dtype)
    context.prefill(embeds[:, :width])
    for column in range(2):
        context.put(embeds[:, width + column], range(rows), [width + column] * rows)
        context.step()
    wide = {name: tensor.float() for name, tensor in weights.items()}
    sequences = Sequences(torch.ones(rows, width + 2, dtype=torch.bool))
    expected = run_backbone(wide, config, torch.from_numpy(embeds), sequences)[0][:, -1].numpy()
    np.testing.assert_allclose(context.hidden(rows), expected, rtol=0, atol=tolerance * np.abs(expected).max())
    assert 0 < runner.token_seconds(Load(rows=2, positions=4, tokens=2)) < 60
