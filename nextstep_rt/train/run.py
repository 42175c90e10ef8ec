"""A training run in a folder: steps, checkpoints to go on from, a log of every step and a plot of it."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.nn import functional

from ..errors import Error, InvalidRequest
from .files import git_commit, replacing
from .optim import Average, learning_rate

CallableT = TypeVar("CallableT", bound=Callable[..., Any])
Metrics = dict[str, float]
CHECKPOINT, LOG, PLOT = "checkpoint.pt", "log.jsonl", "loss.png"
SAVE_EVERY_S = 120.0
LOG_EVERY = 10  # steps
SAME_DIRECTION = 0.9  # the cosine between two gradients in bfloat16


def scaled(steps: int, factor: float) -> int:
    """Steps times the factor, one at least."""
    return max(1, round(steps * factor))


class Task(Protocol):
    """What is trained. `loss` draws its batch from the step's number alone, so that a run stopped goes on the same."""

    optimizers: list[torch.optim.Optimizer]
    is_compiled: bool  # whether its loss goes through torch.compile

    @property
    def model(self) -> nn.Module:
        """What the optimizers update."""

    def loss(self, step: int) -> tuple[Tensor, Metrics]:
        """The loss of one step's batch, and what of it belongs into the log."""


def pick_device() -> torch.device:
    """A GPU where torch sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def can_compile() -> bool:
    """Whether torch.compile has what it needs: a GPU, or a C++ compiler."""
    return bool(torch.cuda.is_available() or shutil.which("c++") or shutil.which("g++"))


def compiled(function: CallableT) -> CallableT:
    """The function compiled, one graph for each shape of its arguments; as it is where that cannot be.

    On CPUs a compiled step takes half the time: its many small elementwise passes become few.
    """
    return cast(CallableT, torch.compile(function, dynamic=False)) if can_compile() else function


def compile_modules(model: nn.Module, kind: type[nn.Module]) -> bool:
    """Compiles the model's modules of one kind, each by itself. False where that cannot be, and nothing is done."""
    if not can_compile():
        return False
    # They share one forward, and each shape is a graph of it: past the limit torch would silently stop compiling.
    torch._dynamo.config.recompile_limit = 256
    for module in model.modules():
        if isinstance(module, kind):
            module.compile(dynamic=False)
    return True


def check_gradients(task: Task, step: int) -> None:
    """Holds the compiled step's gradients against those of the same step not compiled.

    A compiler's fault in a backward pass is silent: the loss falls all the same, only slower and not as far. Raises
    Error where a weight's gradient is another one; rounding alone leaves the angle small.
    """
    found = _gradients(task, step)
    with torch.compiler.set_stance("force_eager"):
        wanted = _gradients(task, step)
    floor = 1e-4 * max(gradient.norm().item() for gradient in wanted.values())
    for name, gradient in wanted.items():
        if gradient.norm() < floor:  # what is left of sums that cancel
            continue
        other = found.get(name, torch.zeros_like(gradient))
        angle = functional.cosine_similarity(other.flatten(), gradient.flatten(), dim=0).item()
        if not angle > SAME_DIRECTION:
            raise Error(
                f"torch.compile computes another gradient of {name} than torch itself (cosine {angle:.3f}): "
                "set TORCH_COMPILE_DISABLE=1, or use another version of torch"
            )


def _gradients(task: Task, step: int) -> dict[str, Tensor]:
    task.model.zero_grad(set_to_none=True)
    task.loss(step)[0].backward()  # type: ignore[no-untyped-call]
    made = {name: weight.grad for name, weight in task.model.named_parameters() if weight.grad is not None}
    task.model.zero_grad(set_to_none=True)
    return made


def train(
    task: Task,
    folder: Path,
    *,
    steps: int,
    ema: float,
    settings: dict[str, object],
    title: str,
    rate: Callable[[int], float] | None = None,
) -> Average:
    """Trains from where the folder stands to the last step; returns the averaged weights.

    The optimizers' learning rates are multiplied by `rate` of the step, by default one course over all steps.
    Raises InvalidRequest where the folder holds a run with other settings, or the loss stops being a number; Error
    where the compiler fails `check_gradients`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    average = Average(task.model, ema)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in task.optimizers]
    start, commits = _resume(task, average, folder, settings)
    commits = list(dict.fromkeys([*commits, git_commit() or "unknown"]))
    if start < steps and task.is_compiled:
        check_gradients(task, start + 1)
    saved = time.monotonic()
    course = rate or (lambda step: learning_rate((step - 1) / steps))
    for step in _progress(start, steps, title, task, average, rates, course, folder):
        if time.monotonic() - saved > SAVE_EVERY_S or step == steps:
            _save(task, average, folder, {"settings": settings, "commits": commits, "step": step})
            plot_log(folder)
            saved = time.monotonic()
    return average


def _progress(
    start: int,
    steps: int,
    title: str,
    task: Task,
    average: Average,
    rates: list[list[float]],
    course: Callable[[int], float],
    folder: Path,
) -> Iterator[int]:
    """Runs the steps after `start`, yielding the number of each one done."""
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with (folder / LOG).open("a") as log, Progress(*columns, speed_estimate_period=120) as bar:
        shown = bar.add_task(title, total=steps, completed=start)
        sums: Metrics = {}
        logged = start
        began = time.monotonic()
        for step in range(start + 1, steps + 1):
            factor = course(step)
            for optimizer, initial in zip(task.optimizers, rates, strict=True):
                for group, rate in zip(optimizer.param_groups, initial, strict=True):
                    group["lr"] = rate * factor
            for name, value in _step(task, step).items():
                sums[name] = sums.get(name, 0.0) + value
            average.update(task.model, step)
            if step % LOG_EVERY == 0 or step == steps:
                count, logged = step - logged, step
                line = {"step": step, **{name: value / count for name, value in sums.items()}}
                line |= {"factor": factor, "s_per_step": (time.monotonic() - began) / count}
                log.write(json.dumps({name: round(value, 6) for name, value in line.items()}) + "\n")
                log.flush()
                sums, began = {}, time.monotonic()
                text = "  ".join(f"{name} {value:.4f}" for name, value in losses_of(line).items())
                bar.update(shown, completed=step, description=f"{title}  {text}")
            yield step


def _step(task: Task, step: int) -> Metrics:
    loss, metrics = task.loss(step)
    if not math.isfinite(loss.item()):
        raise InvalidRequest(f"the loss is {loss.item()} at step {step}: take a lower learning rate")
    for optimizer in task.optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(task.model.parameters(), 1.0)
    if not math.isfinite(norm.item()):  # before it reaches the weights, and with them the next checkpoint
        raise InvalidRequest(f"the gradient's norm is {norm.item()} at step {step}: take a lower learning rate")
    for optimizer in task.optimizers:
        optimizer.step()
    return metrics


def _save(task: Task, average: Average, folder: Path, about: dict[str, object]) -> None:
    state = {
        **about,
        "model": task.model.state_dict(),
        "average": average.weights,
        "optimizers": [optimizer.state_dict() for optimizer in task.optimizers],
    }
    with replacing(folder / CHECKPOINT) as part:
        torch.save(state, part)


def _resume(task: Task, average: Average, folder: Path, settings: dict[str, object]) -> tuple[int, list[str]]:
    """Loads the folder's checkpoint, if any; returns the number of steps done, and the commits that did them."""
    path = folder / CHECKPOINT
    if not path.exists():
        return 0, []
    state = torch.load(path, map_location=next(task.model.parameters()).device, weights_only=True)
    if state["settings"] != settings:
        changed = sorted(k for k in settings.keys() | state["settings"] if settings.get(k) != state["settings"].get(k))
        raise InvalidRequest(
            f"{folder} holds a run with other settings ({', '.join(changed)}): name another folder, or remove this one"
        )
    task.model.load_state_dict(state["model"])
    average.weights = state["average"]
    for optimizer, saved in zip(task.optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return int(state["step"]), list(state.get("commits", []))


def read_log(folder: Path) -> list[Metrics]:
    """The lines of a run's log; of a step done twice, because the run was stopped, the later one."""
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return sorted({line["step"]: line for line in lines}.values(), key=lambda line: line["step"])


def losses_of(line: Metrics) -> Metrics:
    """What the task itself measured, of a line of the log."""
    return {name: value for name, value in line.items() if name not in ("step", "factor", "s_per_step")}


def read_settings(folder: Path) -> dict[str, object]:
    """The settings of the run in a folder, from its checkpoint."""
    settings: dict[str, object] = _read_checkpoint(folder)["settings"]
    return settings


def read_commits(folder: Path) -> list[str]:
    """The commits whose source trees the run was trained from; empty where its checkpoint keeps none."""
    return list(_read_checkpoint(folder).get("commits", []))


def _read_checkpoint(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)
    return state


def plot_log(folder: Path) -> None:
    """Draws every metric of the log against the steps, where there are any."""
    lines = read_log(folder)
    if not lines:
        return
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    names = list(losses_of(lines[-1]))
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3.5), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        axis.plot([line["step"] for line in lines], [line[name] for line in lines], linewidth=0.8)
        axis.set(title=name, xlabel="step", yscale="log")
        axis.grid(alpha=0.3, which="both")
    figure.savefig(folder / PLOT, dpi=120)
    plt.close(figure)
