"""Muon, the learning rate's course and the averaged weights."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from nextstep_rt.train.optim import Average, Muon, learning_rate, make_optimizers, orthogonalized


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (8, 64), (64, 8), (1, 12), (96, 48)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_orthogonalized_has_singular_values_near_one(rows: int, columns: int, scale: float) -> None:
    """The quintic leaves them around 0.7 to 1.2, and bfloat16 adds a little; the singular vectors stay."""
    generator = torch.Generator().manual_seed(rows * columns)
    count = min(rows, columns)
    u = torch.linalg.qr(torch.randn(rows, count, generator=generator, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(columns, count, generator=generator, dtype=torch.float64)).Q
    values = torch.linspace(1, 10, count, dtype=torch.float64) * scale
    other = torch.randn(rows, columns, generator=generator)
    _, result = orthogonalized(torch.stack([other, (u * values @ v.T).float()]))
    assert result.dtype == torch.float32
    assert result.shape == (rows, columns)
    reached = torch.linalg.svdvals(result.double())
    assert 0.6 < reached.min() <= reached.max() < 1.3
    turned = u.T @ result.double() @ v
    assert (turned - turned.diag().diag()).abs().max() < 0.1
    assert turned.diag().min() > 0.6


def test_orthogonalized_of_nothing_is_nothing() -> None:
    assert torch.equal(orthogonalized(torch.zeros(2, 4, 6)), torch.zeros(2, 4, 6))


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 4, 3, 3), (4, 16, 1, 1)])
def test_muon_steps_are_as_long_as_adamw_s(shape: tuple[int, ...]) -> None:
    """An RMS of 0.2 a unit of learning rate, whatever the gradient's scale."""
    generator = torch.Generator().manual_seed(1)
    weight = nn.Parameter(torch.randn(shape, generator=generator))
    before = weight.detach().clone()
    weight.grad = 1e-3 * torch.randn(shape, generator=generator)
    Muon([weight], lr=0.5, weight_decay=0.0).step()
    rms = (weight.detach() - before).square().mean().sqrt().item()
    assert rms == pytest.approx(0.5 * 0.2, rel=0.25)
    assert ((weight.detach() - before) * weight.grad).sum() < 0


def test_muon_takes_convolutions_in_any_layout() -> None:
    """A convolution's weight counts as the matrix [out, the rest], and channels_last changes no bit."""
    generator = torch.Generator().manual_seed(2)
    initial = torch.randn(12, 6, 3, 3, generator=generator)
    gradients = torch.randn(3, 12, 6, 3, 3, generator=generator)
    flat, plain, last = (nn.Parameter(initial.clone()) for _ in range(3))
    flat.data = flat.data.flatten(1)
    last.data = last.data.contiguous(memory_format=torch.channels_last)
    optimizers = [Muon([weight], lr=0.1) for weight in (flat, plain, last)]
    for gradient in gradients:
        flat.grad, plain.grad = gradient.flatten(1), gradient.clone()
        last.grad = gradient.clone(memory_format=torch.channels_last)
        for optimizer in optimizers:
            optimizer.step()
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(plain.flatten(1), flat)
    assert torch.equal(plain, last)


def test_muon_leaves_what_has_no_gradient() -> None:
    weight = nn.Parameter(torch.ones(3, 3))
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight, torch.ones(3, 3))


def test_muon_treats_weights_of_one_shape_each_by_itself() -> None:
    """They are orthogonalized at once; each goes where it would go alone."""
    generator = torch.Generator().manual_seed(5)
    initial, gradients = torch.randn(3, 8, 12, generator=generator), torch.randn(2, 3, 8, 12, generator=generator)
    together, apart = ([nn.Parameter(weight.clone()) for weight in initial] for _ in range(2))
    optimizers = [Muon(together, lr=0.1), *(Muon([weight], lr=0.1) for weight in apart)]
    for gradient in gradients:
        for weights in (together, apart):
            for weight, its in zip(weights, gradient, strict=True):
                weight.grad = its.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(together, apart, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)


def test_muon_follows_its_definition() -> None:
    """Nesterov's momentum, then the matched length; the decay is apart from both."""
    generator = torch.Generator().manual_seed(3)
    weight = nn.Parameter(torch.randn(6, 10, generator=generator))
    expected, momentum = weight.detach().clone(), torch.zeros(6, 10)
    optimizer = Muon([weight], lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(4):
        weight.grad = torch.randn(6, 10, generator=generator)
        optimizer.step()
        momentum = 0.9 * momentum + 0.1 * weight.grad
        (update,) = orthogonalized((0.1 * weight.grad + 0.9 * momentum)[None])
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(10) * update
        torch.testing.assert_close(weight.detach(), expected, rtol=0, atol=2e-3)  # the iteration runs in bfloat16


def test_every_weight_has_one_optimizer() -> None:
    """Matrices and convolutions go to Muon; vectors, and the tables named, to AdamW."""
    model = nn.ModuleDict({"table": nn.Embedding(5, 4), "conv": nn.Conv2d(2, 3, 3), "norm": nn.LayerNorm(4)})
    weights = dict(model.named_parameters())
    muon, adamw = make_optimizers(weights, 0.01, ["table"])
    names = {id(weight): name for name, weight in weights.items()}
    held = [{names[id(weight)] for group in o.param_groups for weight in group["params"]} for o in (muon, adamw)]
    assert held == [{"conv.weight"}, {"table.weight", "conv.bias", "norm.weight", "norm.bias"}]
    assert isinstance(muon, Muon)
    assert {group["lr"] for o in (muon, adamw) for group in o.param_groups} == {0.01}


def test_the_learning_rate_rises_holds_and_falls() -> None:
    course = [learning_rate(i / 1000) for i in range(1001)]
    assert 0 < course[0] < 0.05
    assert all(a < b for a, b in pairwise(course[1:31]))
    assert set(course[30:300]) == {1.0}
    assert all(a >= b for a, b in pairwise(course[300:]))
    assert course[650] == pytest.approx(0.5)
    assert course[-1] == min(course[300:]) == 0.02
    assert max(abs(a - b) for a, b in pairwise(course)) < 0.04  # nowhere a jump


def test_the_average_forgets_its_beginning() -> None:
    """Early it follows closely; late it is the exponential average asked for."""
    model = nn.Linear(2, 2)
    nn.init.constant_(model.weight, 100.0)
    average = Average(model, decay=0.98)
    expected = 100.0
    generator = torch.Generator().manual_seed(4)
    for step in range(1, 601):
        value = 1 + torch.rand((), generator=generator).item()
        nn.init.constant_(model.weight, value)
        average.update(model, step)
        decay = min(0.98, step / (step + 9))
        expected = decay * expected + (1 - decay) * value
        if step == 40:
            assert average.weights["weight"].max() < 2.1  # the 100 is gone
    assert average.weights["weight"][0, 0].item() == pytest.approx(expected, rel=1e-5)
    assert set(average.weights) == {"weight", "bias"}
    assert not any(weight.requires_grad for weight in average.weights.values())
