"""A training run in a folder: stopped and resumed to the bit, refused where it must be, logged and plotted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nextstep_rt.errors import Error, InvalidRequest
from nextstep_rt.train import run
from nextstep_rt.train.optim import Average, make_optimizers

STEPS = 30
SETTINGS: dict[str, object] = {"lr": 0.02, "widths": (1, 2), "name": "line"}


class Line:
    """Fits a line; calls `before` ahead of every step."""

    is_compiled = False

    def __init__(self, before: Callable[[int], float | None] = lambda step: None) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(5, 3)
        self.optimizers = make_optimizers(dict(self.model.named_parameters()), 0.02, ())
        self.before = before

    def loss(self, step: int) -> tuple[Tensor, run.Metrics]:
        factor = self.before(step)
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        loss = (self.model(x) - x[:, :3] * 2 - 1).square().mean() * (1.0 if factor is None else factor)
        return loss, {"mse": loss.item(), "step squared": float(step**2)}


def train(task: Line, folder: Path, **changes: Any) -> Average:
    arguments = {"steps": STEPS, "ema": 0.9, "settings": SETTINGS, "title": "line", **changes}
    return run.train(task, folder, **arguments)


def stop_before(stop: int) -> Callable[[int], None]:
    def before(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    return before


@pytest.fixture(autouse=True)
def unplotted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take longer than all else here; one test draws one."""
    if "plotted" not in request.fixturenames:
        monkeypatch.setattr(run, "plot_log", lambda folder: None)


@pytest.fixture
def plotted() -> None:
    """Asks for the plot."""


@pytest.fixture
def always_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SAVE_EVERY_S", -1.0)


def checkpoint(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / run.CHECKPOINT, weights_only=True)
    return state


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, item in items for name, leaf in leaves(item, f"{path}/{key}").items()}
    return {path: value}


def assert_same_bits(a: Any, b: Any) -> None:
    a, b = leaves(a), leaves(b)
    assert a.keys() == b.keys()
    for name, value in a.items():
        same = torch.equal(value, b[name]) if isinstance(value, Tensor) else value == b[name]
        assert same, name


# ---- going on


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("stops", [[1], [2], [10], [11], [17], [STEPS], [4, 4, 23]], ids=str)
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, stops: list[int]) -> None:
    """Weights, averages, both optimizers' states, and the steps of the log."""
    straight = Line()
    expected = train(straight, tmp_path / "straight")
    for stop in stops:
        with pytest.raises(KeyboardInterrupt):
            train(Line(stop_before(stop)), tmp_path / "stopped")
        assert (tmp_path / "stopped" / run.CHECKPOINT).exists() == (stop > 1)
    task = Line()
    average = train(task, tmp_path / "stopped")
    assert_same_bits(task.model.state_dict(), straight.model.state_dict())
    assert_same_bits(dict(average.weights), dict(expected.weights))
    assert_same_bits(checkpoint(tmp_path / "stopped"), checkpoint(tmp_path / "straight"))
    for folder in ("straight", "stopped"):
        assert [line["step"] for line in run.read_log(tmp_path / folder)] == [10, 20, 30]


def test_what_was_not_saved_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop some time after the last checkpoint: the log's line of a step done twice counts once."""
    straight = Line()
    train(straight, tmp_path / "straight")
    monkeypatch.setattr(run, "SAVE_EVERY_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_before(16)), tmp_path / "stopped")
    monkeypatch.setattr(run, "SAVE_EVERY_S", 1e9)
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_before(24)), tmp_path / "stopped")
    assert checkpoint(tmp_path / "stopped")["step"] == 15
    seen: list[int] = []
    task = Line(seen.append)
    train(task, tmp_path / "stopped")
    assert seen == list(range(16, STEPS + 1))
    assert_same_bits(task.model.state_dict(), straight.model.state_dict())
    assert (tmp_path / "stopped" / run.LOG).read_text().count('"step": 20,') == 2
    assert [line["step"] for line in run.read_log(tmp_path / "stopped")] == [10, 20, 30]


def test_a_finished_run_takes_no_step(tmp_path: Path) -> None:
    first = train(Line(), tmp_path)
    content = (tmp_path / run.CHECKPOINT).read_bytes()
    again = train(Line(stop_before(1)), tmp_path)
    assert_same_bits(first.weights, again.weights)
    assert (tmp_path / run.CHECKPOINT).read_bytes() == content


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"lr": 0.03}, "lr"),
        ({"widths": (1, 3), "name": "curve"}, "name, widths"),
        ({"new": 1}, "new"),
        ({"lr": None}, "lr"),
    ],
    ids=str,
)
def test_other_settings_are_refused(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    train(Line(), tmp_path)
    content = (tmp_path / run.CHECKPOINT).read_bytes()
    with pytest.raises(InvalidRequest, match=rf"other settings \({named}\): name another folder, or remove this one"):
        train(Line(), tmp_path, settings={**SETTINGS, **changes})
    assert (tmp_path / run.CHECKPOINT).read_bytes() == content


# ---- failures


@pytest.mark.usefixtures("always_saved")
@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, factor: float) -> None:
    task = Line(lambda step: factor if step == 4 else None)
    with pytest.raises(InvalidRequest, match=rf"the loss is {factor} at step 4: take a lower learning rate"):
        train(task, tmp_path)
    assert checkpoint(tmp_path)["step"] == 3
    assert all(weight.isfinite().all() for weight in task.model.parameters())


def test_a_stop_while_saving_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SAVE_EVERY_S", -1.0)
    with pytest.raises(KeyboardInterrupt):
        train(Line(stop_before(6)), tmp_path)
    content = (tmp_path / run.CHECKPOINT).read_bytes()

    def half(state: object, path: Path) -> None:
        path.write_bytes(content[: len(content) // 2])
        raise OSError("no space left")

    with monkeypatch.context() as broken:
        broken.setattr(torch, "save", half)
        with pytest.raises(OSError, match="no space left"):
            train(Line(), tmp_path)
    assert (tmp_path / run.CHECKPOINT).read_bytes() == content
    train(Line(), tmp_path)
    assert checkpoint(tmp_path)["step"] == STEPS
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.CHECKPOINT, run.LOG]


# ---- the log


def test_the_log_holds_means_over_its_steps(tmp_path: Path) -> None:
    train(Line(), tmp_path, steps=24)
    lines = [json.loads(line) for line in (tmp_path / run.LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 24]
    for line, steps in zip(lines, (range(1, 11), range(11, 21), range(21, 25)), strict=True):
        assert line["step squared"] == pytest.approx(sum(s**2 for s in steps) / len(steps), abs=1e-5)
        assert line["factor"] == pytest.approx(run.learning_rate((line["step"] - 1) / 24), abs=1e-6)
        assert line["s_per_step"] >= 0
    assert lines == run.read_log(tmp_path)
    assert lines[-1]["mse"] < lines[0]["mse"]


@pytest.mark.usefixtures("plotted")
def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    train(Line(), tmp_path)
    assert (tmp_path / run.PLOT).read_bytes().startswith(b"\x89PNG")
    with Image.open(tmp_path / run.PLOT) as image:
        image.load()
        assert image.size == (1200, 420)  # a panel for each metric
        colours = image.convert("RGB").getcolors(1 << 20)
    assert colours is not None
    assert len(colours) > 20


def test_the_rate_of_every_step_is_the_initial_one_times_the_factor(tmp_path: Path) -> None:
    rates: list[float] = []
    task = Line()
    task.before = lambda step: rates.append(task.optimizers[0].param_groups[0]["lr"])
    train(task, tmp_path)
    assert rates == pytest.approx([0.02 * run.learning_rate(step / STEPS) for step in range(STEPS)])


# ---- what the compiler makes of a backward pass


class Turned(torch.autograd.Function):
    """Itself, with a gradient that belongs elsewhere."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


class Compiled(Line):
    """The line through torch.compile, by a compiler that gets the outputs right and makes of them what it likes."""

    is_compiled = True

    def __init__(self, faulty: bool) -> None:
        super().__init__()
        line = self.model

        def compiler(graph: Any, inputs: Any) -> Any:
            return lambda *arguments: tuple(Turned.apply(y) if faulty else y for y in graph(*arguments))

        self._forward = torch.compile(lambda x: line(x), backend=compiler)

    def loss(self, step: int) -> tuple[Tensor, run.Metrics]:
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        loss = (self._forward(x) - x[:, :3] * 2 - 1).square().mean()
        return loss, {"mse": loss.item()}


def test_a_compiler_that_turns_a_gradient_is_found_out(tmp_path: Path) -> None:
    with pytest.raises(Error, match=r"gradient of weight than torch itself \(cosine -1.000\): set TORCH_"):
        train(Compiled(faulty=True), tmp_path)
    assert not (tmp_path / run.CHECKPOINT).exists()


def test_the_check_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    checked = train(Compiled(faulty=False), tmp_path / "checked")
    task = Compiled(faulty=False)
    task.is_compiled = False
    unchecked = train(task, tmp_path / "unchecked")
    assert all(torch.equal(checked.weights[name], unchecked.weights[name]) for name in checked.weights)
