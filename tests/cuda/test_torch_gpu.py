"""The torch operators on tensors of a GPU: its streams, graphs and compiler. Needs a GPU that torch sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.compare import assert_close, assert_same_bits, norm_tolerance
from kit.fused import linear_case
from kit.models import config_of, random_weights, sampling, stored_as

from nextstep_rt import Engine, ops, prefill_attention, torch_ops
from nextstep_rt.prefill_attention import HeadShape

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")


def layer(x: torch.Tensor, weights: list[torch.Tensor], norm: torch.Tensor) -> torch.Tensor:
    """A feed-forward block with its residual."""
    gate, up, down = weights
    inner = torch.ops.nextstep_rt.gated_linear(x, gate, up, None, None, norm)
    out: torch.Tensor = torch.ops.nextstep_rt.linear(inner, down, None, x)
    return out


@pytest.fixture
def block() -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    rng = np.random.default_rng(1)
    case, down = linear_case(rng, 2, 704, 256), linear_case(rng, 2, 256, 704)["weight"]
    matrices = [case["weight"], case["weight"][::-1].copy(), down]
    weights = [torch.tensor(matrix).to("cuda", torch.bfloat16) for matrix in matrices]
    return torch.tensor(case["x"]).cuda(), weights, torch.tensor(case["norm_weight"]).cuda()


def test_results_are_torch_tensors_of_the_current_stream(block) -> None:  # type: ignore[no-untyped-def]
    x, weights, norm = block
    want = layer(x, weights, norm)
    host = [weight.float().cpu().numpy() for weight in weights]
    inner = ops.gated_linear(x.cpu().numpy(), *host[:2], norm_weight=norm.cpu().numpy())
    assert_close(want.cpu(), ops.linear(inner, host[2]) + x.cpu().numpy(), 2e-2)
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(10_000_000)
        late = layer(x + 1 - 1, weights, norm)
    torch.cuda.synchronize()
    assert late.device == x.device
    assert_close(late.cpu(), want.cpu(), 1e-5)


def test_recorded_in_a_graph(block) -> None:  # type: ignore[no-untyped-def]
    x, weights, norm = block
    want = layer(x * 2, weights, norm)
    given = x.clone()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer(given, weights, norm)
    given.copy_(x * 2)
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert_same_bits(out.cpu().numpy(), want.cpu().numpy())


def test_compiled(block) -> None:  # type: ignore[no-untyped-def]
    x, weights, norm = block
    compiled = torch.compile(layer, fullgraph=True)
    assert_same_bits(compiled(x, weights, norm).cpu().numpy(), layer(x, weights, norm).cpu().numpy())
    assert "linear" in torch_ops.__all__


@pytest.mark.parametrize("heads", [HeadShape(8, 8, 64), HeadShape(8, 2, 128), HeadShape(5, 1, 40)], ids=str)
@pytest.mark.parametrize("name", prefill_attention.FUNCTIONS)
def test_prefill_attention_of_libraries(monkeypatch: pytest.MonkeyPatch, name: str, heads: HeadShape) -> None:
    """Prompts of one pass and of two, by the kernel and by a library; the libraries' work is in the engine's order."""
    choice = prefill_attention.measure(0, heads)
    if name in choice.notes:
        pytest.skip(choice.notes[name])
    assert 0 < choice.microseconds[name] < 1e5
    monkeypatch.setenv("NSRT_PREFILL_ROWS", "1")
    config = config_of(hidden_size=256, intermediate_size=512, num_attention_heads=heads.h_q, latent_channels=6,
                       num_key_value_heads=heads.h_kv, head_dim=heads.d_head, fm_head_dim=64)  # fmt: skip
    engine = Engine(config, stored_as(random_weights(config), "bfloat16"), device="cuda")
    if not engine.takes_prefill_attention:
        pytest.skip("built without CUTLASS")
    embeds = np.random.default_rng(0).standard_normal((2, 700, 256)).astype(np.float32)
    mask = np.arange(700)[None] >= np.array([[0], [250]])
    results = []
    for attention in (None, prefill_attention.hook(name), prefill_attention.hook(name)):
        engine.set_prefill_attention(attention)
        engine.prefill(embeds, mask, max_new_tokens=3)
        hidden = engine.state("hidden")
        results.append((hidden, engine.decode(sampling(branches=2), seeds=[1])))
    for got, want, roundings in zip(results[1], results[0], (16, 64), strict=True):
        assert_close(got, want, norm_tolerance(roundings, "bfloat16"))
    for again, first in zip(results[2], results[1], strict=True):
        assert_same_bits(again, first)
