"""Guidance, solver steps, time features and noise: the native side against the oracle's formulas in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from kit.cases import LEVELS, exact, normal
from kit.compare import ROUNDOFF, assert_close, assert_same_bits, rounding_tolerance

from nextstep_rt import InvalidRequest, SamplingParams, ops
from nextstep_rt import reference as oracle
from nextstep_rt.reference.solver import SOLVERS

SIZES = (1, 31, 32, 33, 63, 65, 100)


def float64(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(exact(array))


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize(("branches", "renorm"), [(1, False), (2, False), (2, True), (3, False), (3, True)])
@pytest.mark.parametrize(("scale", "image_scale"), [(1.0, 1.0), (7.5, 2.0), (0.25, 1.0), (-3.0, 0.5), (1e4, 1e3)])
def test_guidance(isa: str, branches: int, renorm: bool, scale: float, image_scale: float) -> None:
    for d in SIZES:
        for images in (1, 3, 5):
            v = normal(branches * images, d, seed=branches)
            options: dict[str, Any] = {"scale": scale, "image_scale": image_scale, "renorm": renorm}
            got = ops.guidance(v, branches=branches, isa=isa, **options)
            want = oracle.combine_guidance(float64(v), branches, scale, image_scale, renorm).numpy()
            # Three branches with rounded weights, cancelling; renorm shortens result and error alike.
            parts = np.abs(exact(v)).reshape(branches, images, d)
            factors = {1: [1], 2: [scale, 1 - scale], 3: [scale, image_scale - scale, 1 - image_scale]}[branches]
            size = sum(abs(f) * p for f, p in zip(factors, parts, strict=True))
            if renorm:
                raw = oracle.combine_guidance(float64(v), branches, scale, image_scale).numpy()
                shrink = np.linalg.norm(want, axis=1) / np.linalg.norm(raw, axis=1)
                # The error of the length moves every element.
                size = size * shrink[:, None] + np.abs(want) * (
                    np.linalg.norm(size, axis=1) / np.linalg.norm(raw, axis=1)
                ).reshape(-1, 1)
            assert_close(got, want, rounding_tolerance(8), scale=size, what=f"{images} x {d}, branches {branches}")


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_renorm_of_tiny_and_zero_velocities(isa: str, branches: int) -> None:
    """One branch has nothing to be capped by: it stays as it is."""
    for size in (0.0, 1e-7, 1e-3, 1.0):
        v = normal(branches * 2, 33) * np.float32(size)
        got = ops.guidance(v, branches=branches, scale=3.0, image_scale=2.0, renorm=True, isa=isa)
        want = oracle.combine_guidance(float64(v), branches, 3.0, 2.0, True)
        assert_close(got, want, rounding_tolerance(40), what=f"velocities of size {size}")


@pytest.mark.parametrize("isa", LEVELS)
@pytest.mark.parametrize("n", SIZES)
def test_solver_update(isa: str, n: int) -> None:
    x, v, noise = normal(3, n), normal(3, n, seed=1), normal(3, n, seed=2)
    before = x.copy()
    cx, cv, ce = 0.75, -1.3, 0.4
    got = ops.solver_update(x, v, noise, cx=cx, cv=cv, ce=ce, isa=isa)
    cx, cv, ce = (float(np.float32(c)) for c in (cx, cv, ce))
    size = np.abs(cx * exact(x)) + np.abs(cv * exact(v)) + np.abs(ce * exact(noise))
    assert_close(got, cx * exact(x) + cv * exact(v) + ce * exact(noise), rounding_tolerance(3), scale=size)
    assert_same_bits(x, before, what="the input is not written to")
    got = ops.solver_update(x, v, cx=cx, cv=cv, isa=isa)
    assert_close(got, cx * exact(x) + cv * exact(v), rounding_tolerance(3), scale=size)


def run_plan(params: SamplingParams, x: np.ndarray, noise: np.ndarray, velocity: Any) -> np.ndarray:
    """The plan in float64: what the coefficients mean, without the kernels' rounding."""
    kept_x = kept_v = x
    for step in ops.solver_plan(params):
        v = velocity(x, step["time"])
        if step["kind"] == "update":
            x = step["cx"] * x + step["cv"] * v
            if step["draw"] >= 0:
                x = x + step["ce"] * noise[step["draw"]]
            else:
                assert step["ce"] == 0
        elif step["kind"] == "heun_predict":
            kept_x, kept_v = x, v
            x = x + step["cv"] * v
        else:
            x = kept_x + step["cv"] * (kept_v + v)
    return x


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("steps", [2, 3, 20])
@pytest.mark.parametrize("shift", [1.0, 3.2, 0.3])
@pytest.mark.parametrize("level", [0.0, 0.8, 1.0])
def test_solver_plan(solver: str, steps: int, shift: float, level: float) -> None:
    options = {
        "num_inference_steps": steps,
        "timestep_shift": shift,
        "solver": solver,
        "noise_level": level,
        "last_step_size": 0.07,
    }
    params = SamplingParams(num_tokens=1, **options)
    knots = oracle.time_grid(SimpleNamespace(**options))
    assert_close(ops.time_grid(params), knots, rounding_tolerance(2), scale=1.0)
    x, noise = exact(normal(5, 16)), exact(normal(1 + steps, 5, 16, seed=1))

    def velocity(x: Any, t: float) -> Any:
        return np.cos(3 * t) * x * 0.5 + t if isinstance(x, np.ndarray) else math.cos(3 * t) * x * 0.5 + t

    grid = [float(t) for t in ops.time_grid(params)]
    states = oracle.integrate(
        SimpleNamespace(**options),
        grid,
        torch.from_numpy(x),
        torch.from_numpy(noise[1:]),
        lambda x, k: velocity(x, grid[k]),
    )
    got = run_plan(params, x, noise, velocity)
    # Three coefficients a step, rounded to float32; what they multiply may cancel.
    largest = max(float(s.abs().max()) for s in states) + float(np.abs(noise).max())
    assert_close(got, states[-1], rounding_tolerance(3 * steps + 3), scale=3 * largest, what=f"{solver}, shift {shift}")


def test_solver_plan_uses_each_draw_once_and_only_knots() -> None:
    for solver in SOLVERS:
        params = SamplingParams(num_tokens=1, num_inference_steps=6, solver=solver)
        plan, grid = ops.solver_plan(params), ops.time_grid(params)
        draws = [step["draw"] for step in plan if step["draw"] >= 0]
        assert draws == sorted(set(draws))
        assert all(1 <= draw <= 6 for draw in draws)
        assert {step["time"] for step in plan} <= {float(t) for t in grid[:6]}


@pytest.mark.parametrize("steps", [1, 2, 28, 1000])
@pytest.mark.parametrize("shift", [1e-3, 1.0, 1e3])
def test_time_grid_increases_from_zero_to_one(steps: int, shift: float) -> None:
    grid = ops.time_grid(SamplingParams(num_tokens=1, num_inference_steps=steps, timestep_shift=shift))
    assert grid.dtype == np.float32
    assert grid.shape == (steps + 1,)
    assert grid[0] == 0
    assert grid[-1] == 1
    assert (np.diff(grid) > 0).all()


def test_time_sinusoid() -> None:
    times = [0.0, 1.0, 0.5, 1e-6, 0.9999999]
    want = oracle.sinusoid(torch.tensor(times, dtype=torch.float64))
    assert_close(ops.time_sinusoid(times), want, rounding_tolerance(1), scale=np.abs(want.numpy()) + 1e-12)
    assert ops.time_sinusoid([]).shape == (0, 256)
    assert np.array_equal(ops.time_sinusoid(np.array(times)), ops.time_sinusoid(times))
    with pytest.raises((InvalidRequest, TypeError)):
        ops.time_sinusoid("abc")  # type: ignore[arg-type]


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox-4x32-10 as its paper states it, in Python's integers."""
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * counter[0], 1 << 32)
        high1, low1 = divmod(0xCD9E8D57 * counter[2], 1 << 32)
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) % (1 << 32), (key[1] + 0xBB67AE85) % (1 << 32)]
    return counter


def test_philox_of_the_published_vectors() -> None:
    assert philox([0] * 4, [0] * 2) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32, 2**53, 2**64 - 1])
@pytest.mark.parametrize(("token", "draw"), [(0, 0), (3, 1), (2**33 + 5, 1000)])
def test_normal_noise(seed: int, token: int, draw: int) -> None:
    want = []
    for block in range(3):
        bits = philox([block, draw, token % (1 << 32), token >> 32], [seed % (1 << 32), seed >> 32])
        for a, b in (bits[:2], bits[2:]):
            radius, angle = math.sqrt(-2 * math.log((a + 0.5) / 2**32)), 2 * math.pi * (b + 0.5) / 2**32
            want += [radius * math.cos(angle), radius * math.sin(angle)]
    assert_close(ops.normal_noise(seed, token, draw, 12), np.array(want), 2 * ROUNDOFF["float32"], scale=8.0)
    longer = ops.normal_noise(seed, token, draw, 12)
    for n in range(12):
        assert_same_bits(ops.normal_noise(seed, token, draw, n), longer[:n], what=f"the first {n}")


def test_noise_of_impossible_places() -> None:
    for arguments in ((1, -1, 0, 4), (1, 0, -1, 4), (1, 0, 0, -4), (1, 0, 2**33, 4)):
        with pytest.raises(InvalidRequest):
            ops.normal_noise(*arguments)
    for seed in (-1, 2**64, "a", 1.5):
        with pytest.raises((InvalidRequest, TypeError)):
            ops.normal_noise(seed, 0, 0, 4)  # type: ignore[arg-type]
