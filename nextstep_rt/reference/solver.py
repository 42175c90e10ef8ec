"""Time grids, guidance and the integrators, each straight from its formula.

Time runs from t = 0 (noise) to t = 1 (data): x_t = t * data + (1 - t) * noise, and v predicts data - noise.
Simplified coefficients belong in the fast code: this is what they are checked against.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional

from ..errors import InvalidRequest
from .types import Sampling

SOLVERS = ("euler", "heun", "sde", "sde-final-ode", "flow-sde", "flow-cps")
SCHEDULES = ("constant", "linear")

# (x [n, d], index of the time knot) -> guided velocity [n, d]
Velocity = Callable[[torch.Tensor, int], torch.Tensor]


def time_grid(params: Sampling) -> np.ndarray:
    """Float32 knots [steps + 1], the last exactly 1; [steps] for sde-final-ode, whose last step has a fixed size."""
    steps, shift = params.num_inference_steps, params.timestep_shift
    if params.solver == "sde-final-ode":
        u = np.linspace(0.0, 1.0 - params.last_step_size, steps)
    else:
        u = np.arange(steps + 1) / steps
    return (u / (shift - (shift - 1.0) * u)).astype(np.float32)


def scheduled_guidance(scale: float, schedule: str, token: int, num_tokens: int) -> float:
    """The guidance of one token: constant, or linear from `scale` at the first token towards 1."""
    if schedule == "constant":
        return scale
    if schedule == "linear":
        return 1.0 + (scale - 1.0) * (num_tokens - token) / num_tokens
    raise InvalidRequest(f"guidance_schedule is {schedule!r}; known: {', '.join(SCHEDULES)}")


def combine_guidance(
    v: torch.Tensor, branches: int, guidance: float, image_guidance: float = 1.0, renorm: bool = False
) -> torch.Tensor:
    """Rows of all branches [branches * n, d] (conditional; [image-only;] unconditional) -> guided velocity [n, d]."""
    if branches == 1:
        return v
    if branches == 2:
        conditional, unconditional = v.chunk(2)
        guided = unconditional + guidance * (conditional - unconditional)
    elif branches == 3:
        conditional, image_only, unconditional = v.chunk(3)
        guided = unconditional + image_guidance * (image_only - unconditional) + guidance * (conditional - image_only)
    else:
        raise InvalidRequest(f"branches is {branches}; it must be 1, 2 or 3")
    if renorm:
        ratio = conditional.norm(dim=-1, keepdim=True) / (guided.norm(dim=-1, keepdim=True) + 1e-6)
        guided = guided * ratio.clamp(max=1.0)
    return guided


def normalize_token(x: torch.Tensor) -> torch.Tensor:
    """Token-wise normalization: LayerNorm over the numbers of each token, no affine part."""
    return functional.layer_norm(x, x.shape[-1:], eps=1e-6)


def sde_step(x: torch.Tensor, v: torch.Tensor, t: float, t_next: float, eps: torch.Tensor) -> torch.Tensor:
    """Euler-Maruyama with the score of the probability path."""
    dt = t_next - t
    score = (t * v - x) / ((1 - t) ** 2 + t * (1 - t))
    return x + (v + (1 - t) * score) * dt + math.sqrt(2 * (1 - t)) * math.sqrt(dt) * eps


def flow_sde_step(
    x: torch.Tensor,
    v: torch.Tensor,
    t: float,
    t_next: float,
    eps: torch.Tensor,
    noise_level: float,
    t_before_last: float,
) -> torch.Tensor:
    """The 2026 release's SDE. At t = 0 its standard deviation is infinite: the last knot before 1 stands in for s."""
    dt, s = t_next - t, 1 - t
    deviation = math.sqrt(s / (1 - (t_before_last if s == 1 else s))) * noise_level
    noise, data = x - v * t, x + v * (1 - t)
    drift = deviation**2 * dt / (2 * s)
    return noise * (1 - t_next) + data * t_next - drift * noise + deviation * math.sqrt(dt) * eps


def flow_cps_step(
    x: torch.Tensor, v: torch.Tensor, t: float, t_next: float, eps: torch.Tensor, noise_level: float
) -> torch.Tensor:
    """Coefficient-preserving sampling: the noise of x_t' keeps the norm 1 - t', partly kept and partly fresh."""
    deviation = (1 - t_next) * math.sin(noise_level * math.pi / 2)
    noise, data = x - v * t, x + v * (1 - t)
    return noise * math.sqrt((1 - t_next) ** 2 - deviation**2) + data * t_next + deviation * eps


def integrate(
    params: Sampling, knots: Sequence[float], start: torch.Tensor, noise: torch.Tensor, velocity: Velocity
) -> list[torch.Tensor]:
    """Carries start [n, d] from noise to data; noise [steps, n, d] drives the steps of the stochastic solvers.

    knots as time_grid gives them. Returns every state: the start, then one per step; the last is the sample.
    """
    solver, steps = params.solver, params.num_inference_steps
    if solver not in SOLVERS:
        raise InvalidRequest(f"solver is {solver!r}; known: {', '.join(SOLVERS)}")
    states = [start]
    for k in range(steps):
        x, t = states[-1], float(knots[k])
        v = velocity(x, k)
        if solver == "sde-final-ode" and k == steps - 1:
            states.append(x + v * params.last_step_size)
            break
        t_next = float(knots[k + 1])
        dt = t_next - t
        if solver == "heun" and k < steps - 1:
            states.append(x + (v + velocity(x + v * dt, k + 1)) / 2 * dt)
        elif solver in ("euler", "heun"):
            states.append(x + v * dt)
        elif solver in ("sde", "sde-final-ode"):
            states.append(sde_step(x, v, t, t_next, noise[k]))
        elif solver == "flow-sde":
            states.append(flow_sde_step(x, v, t, t_next, noise[k], params.noise_level, float(knots[steps - 1])))
        else:
            states.append(flow_cps_step(x, v, t, t_next, noise[k], params.noise_level))
    return states
