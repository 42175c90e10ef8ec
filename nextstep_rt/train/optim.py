"""The optimizers' parts: Muon for matrices, the learning rate's course, and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalized(matrix: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly: Newton-Schulz with the quintic of Jordan et al., Muon (2024)."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    nearest: Tensor = x.T if tall else x
    return nearest.to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalized, for weights of two or more dimensions; a convolution counts as [out, the rest].

    torch's own Muon takes matrices only. The update's RMS is matched to AdamW's usual 0.2 (Moonlight, 2025), so that
    both run on one learning rate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        """Updates every weight that has a gradient."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalized(weight.grad.lerp(average, group["momentum"]).flatten(1))
                update = update.view_as(weight) * (0.2 * math.sqrt(max(update.shape)))
                weight.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"])


def make_optimizers(weights: dict[str, Tensor], lr: float, not_matrices: Iterable[str]) -> list[torch.optim.Optimizer]:
    """Muon for what maps features to features; AdamW for vectors and for the named tables, inputs and outputs."""
    apart = tuple(not_matrices)
    matrices = {name for name, weight in weights.items() if weight.ndim > 1 and not name.startswith(apart)}
    others = [weight for name, weight in weights.items() if name not in matrices]
    return [
        Muon([weights[name] for name in sorted(matrices)], lr),
        torch.optim.AdamW(others, lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate(progress: float, *, warmup: float = 0.03, hold: float = 0.3, floor: float = 0.02) -> float:
    """The factor at `progress` in 0..1: up in a line, level until `hold`, down along a cosine to `floor`."""
    if progress < warmup:
        return max(progress, 1e-3) / warmup
    if progress < hold:
        return 1.0
    return max(floor, 0.5 * (1 + math.cos(math.pi * (progress - hold) / (1 - hold))))


class Average:
    """Exponential moving average of a module's parameters, young at first so that the beginning is soon forgotten."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.weights = {name: weight.detach().clone() for name, weight in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Moves towards the module's weights after step number `step`, counted from 1."""
        decay = min(self.decay, step / (step + 9))
        for name, weight in module.named_parameters():
            self.weights[name].lerp_(weight, 1 - decay)
