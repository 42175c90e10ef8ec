"""The oracle's solvers and guidance against what their formulas imply."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from kit.toy import sampling

from nextstep_rt.errors import InvalidRequest
from nextstep_rt.reference import (
    combine_guidance,
    integrate,
    normalize_token,
    scheduled_guidance,
    time_grid,
)
from nextstep_rt.reference.solver import sde_step

# ---- solvers


def test_time_grid() -> None:
    knots = time_grid(sampling(num_inference_steps=7, timestep_shift=3.2))
    assert knots.dtype == np.float32
    assert len(knots) == 8
    assert knots[0] == 0
    assert knots[-1] == 1
    assert (np.diff(knots) > 0).all()
    assert knots[3] == pytest.approx((3 / 7) / (3.2 - 2.2 * 3 / 7))
    knots = time_grid(sampling(num_inference_steps=7, solver="sde-final-ode"))
    assert len(knots) == 7
    assert knots[-1] == np.float32(0.96)


def final_state(solver: str, steps: int, velocity: Any, samples: int = 1, **changes: Any) -> torch.Tensor:
    params = sampling(solver=solver, num_inference_steps=steps, **changes)
    generator = torch.Generator().manual_seed(5)
    start = torch.randn(samples, 1, generator=generator, dtype=torch.float64)
    noise = torch.randn(steps, samples, 1, generator=generator, dtype=torch.float64)
    knots = [float(t) for t in time_grid(params)]
    return integrate(params, knots, start, noise, lambda x, k: velocity(x, knots[k]))[-1]


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver: str, order: int) -> None:
    def velocity(x: torch.Tensor, t: float) -> torch.Tensor:
        return x * math.cos(3 * t)

    start = final_state("euler", 1, lambda x, _: 0 * x)
    exact = start * math.exp(math.sin(3) / 3)
    errors = [(final_state(solver, steps, velocity) - exact).abs().item() for steps in (40, 80)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


MEAN, DEVIATION = 1.5, 0.4


def gaussian_velocity(x: torch.Tensor, t: float) -> torch.Tensor:
    """The exact velocity where the data are normal."""
    variance = (t * DEVIATION) ** 2 + (1 - t) ** 2
    return MEAN + (t * DEVIATION**2 - (1 - t)) / variance * (x - t * MEAN)


@pytest.mark.parametrize("solver", ["euler", "heun", "sde", "sde-final-ode", "flow-sde"])
def test_solvers_agree_on_a_known_distribution(solver: str) -> None:
    samples = final_state(solver, 200, gaussian_velocity, samples=20000, last_step_size=0.005)
    assert samples.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert samples.std().item() == pytest.approx(DEVIATION, rel=0.05)


@pytest.mark.parametrize("solver", ["flow-sde", "flow-cps"])
def test_without_noise_the_flow_solvers_are_euler(solver: str) -> None:
    euler = final_state("euler", 9, gaussian_velocity, samples=50)
    assert torch.allclose(final_state(solver, 9, gaussian_velocity, samples=50, noise_level=0.0), euler, rtol=1e-12)


def test_sde_step_in_its_simplified_form() -> None:
    x, v, eps = torch.randn(3, 10, dtype=torch.float64)
    t, dt = 0.3, 0.05
    expected = x + ((1 + t) * v - x) * dt + math.sqrt(2 * (1 - t) * dt) * eps
    assert torch.allclose(sde_step(x, v, t, t + dt, eps), expected, rtol=1e-12)


def test_guidance() -> None:
    cond, image, uncond = torch.randn(3, 2, 8, dtype=torch.float64)
    assert torch.equal(combine_guidance(cond, 1, 7.0), cond)
    assert torch.allclose(combine_guidance(torch.cat([cond, uncond]), 2, 1.0), cond)
    three = torch.cat([cond, image, uncond])
    assert torch.allclose(combine_guidance(three, 3, 4.0, 2.0), uncond + 2 * (image - uncond) + 4 * (cond - image))
    renormed = combine_guidance(three, 3, 4.0, 2.0, renorm=True)
    assert torch.allclose(renormed.norm(dim=-1), cond.norm(dim=-1), rtol=1e-5)
    weak = torch.cat([cond, 0.9 * cond])
    assert torch.allclose(combine_guidance(weak, 2, 0.5, renorm=True), 0.95 * cond)  # never scaled up
    with pytest.raises(InvalidRequest, match="4"):
        combine_guidance(three, 4, 1.0)


def test_guidance_schedule() -> None:
    assert scheduled_guidance(5.0, "constant", 3, 4) == 5.0
    assert [scheduled_guidance(5.0, "linear", s, 4) for s in range(4)] == [5.0, 4.0, 3.0, 2.0]
    with pytest.raises(InvalidRequest, match="cosine"):
        scheduled_guidance(5.0, "cosine", 0, 4)


def test_normalized_tokens_have_mean_zero_and_variance_one() -> None:
    token = normalize_token(torch.randn(3, 64, dtype=torch.float64) * 9 + 4)
    assert torch.allclose(token.mean(-1), torch.zeros(3, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(token.var(-1, correction=0), torch.ones(3, dtype=torch.float64), rtol=1e-6)


def test_unknown_solver_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match=r"rk4.*euler, heun"):
        final_state("rk4", 2, gaussian_velocity)
