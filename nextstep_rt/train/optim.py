"""The optimizers' parts: Muon for matrices, the learning rate's course, and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def orthogonalized(matrices: Tensor, iterations: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrices, roughly, of [n, rows, columns].

    Newton-Schulz with the quintic of Jordan et al., Muon (2024), in bfloat16.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    nearest: Tensor = x.mT if tall else x
    return nearest.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum orthogonalized, for weights of two or more dimensions; a convolution counts as [out, the rest].

    torch's own Muon takes matrices only. The update's RMS is matched to AdamW's usual 0.2 (Moonlight, 2025), so that
    both run on one learning rate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure
        """Updates every weight that has a gradient; those of one shape at once, since each by itself is small."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    alike.setdefault((weight.shape[0], weight[0].numel()), []).append((weight, weight.grad))
            for shape, pairs in alike.items():
                weights, gradients = [weight for weight, _ in pairs], [gradient for _, gradient in pairs]
                averages = [self.state[w].setdefault("average", torch.zeros_like(w)) for w in weights]
                torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
                looked_ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
                updates = orthogonalized(torch.stack([gradient.reshape(shape) for gradient in looked_ahead]))
                torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
                scale = 0.2 * math.sqrt(max(shape))
                moves = [update.view_as(weight) for update, weight in zip(updates, weights, strict=True)]
                torch._foreach_add_(weights, moves, alpha=-group["lr"] * scale)


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
