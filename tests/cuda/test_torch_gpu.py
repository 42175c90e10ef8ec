"""The torch operators on tensors of a GPU: its streams, graphs and compiler. Needs a GPU that torch sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from kit.compare import assert_close, assert_same_bits
from kit.fused import linear_case

from nextstep_rt import ops, torch_ops

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
