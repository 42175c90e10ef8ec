"""What the native module measures itself, where Python's own time would be in the figure."""

from __future__ import annotations

from typing import TypeVar

from nextstep_rt import Engine, ModelConfig, _core

from .floor import Stage

T = TypeVar("T")


# A token's, in the order in which the loop goes through them.
ORDER = (
    "noise", "image_in", "norm_qkv", "rope_append", "attention", "attn_out", "mlp", "condition", "fm_modulation",
    "fm_steps", "finish", "other",
)  # fmt: skip


def ordered(stages: dict[str, T]) -> dict[str, T]:
    """The same stages in the loop's order; what is not known comes last."""
    names = [name for name in ORDER if name in stages]
    return {name: stages[name] for name in dict.fromkeys([*names, *stages])}


def read_seconds(size: int, threads: int) -> float:
    """Seconds in which so many threads read an array of `size` bytes once, having read it before."""
    return float(_core.roofs.read_seconds(size, threads))


def copy_seconds(size: int, threads: int) -> float:
    """Seconds in which they copy `size` bytes to another array, having done so before."""
    return float(_core.roofs.copy_seconds(size, threads))


def has_bf16_products() -> bool:
    """Whether the instruction set in use multiplies bfloat16; elsewhere such weights are widened."""
    return "bf16" in _core.isa()


def peak_flops(dtype: str, threads: int) -> float:
    """Operations per second on registers alone that products of weights in `dtype` can reach; a multiply-add is two."""
    products = dtype if has_bf16_products() else "float32"
    return float(_core.roofs.peak_flops(products, threads))


def barrier_seconds(threads: int) -> float:
    """Seconds of one barrier among the engine's threads."""
    return float(_core.roofs.barrier_seconds(threads))


def wake_seconds(threads: int) -> float:
    """Seconds to wake the engine's threads for a task that does nothing, and to wait for them."""
    return float(_core.roofs.pool_wake_seconds(threads))


def stage_seconds(engine: Engine) -> dict[str, float]:
    """Seconds of each stage since Engine.profile(True), summed over the tokens."""
    return ordered(engine.stage_seconds())


def stages(config: ModelConfig, dtype: str, rows: int, steps: int, positions: int) -> dict[str, Stage]:
    """What each stage of a token must do; what it reads in one step is what is different among its bytes."""
    once = _core.stage_cost(config, dtype, rows, 1, positions)
    costs = _core.stage_cost(config, dtype, rows, steps, positions)
    return {
        name: Stage(cost["bytes"], cost["flops"], cost["barriers"], once[name]["bytes"])
        for name, cost in ordered(costs).items()
    }
