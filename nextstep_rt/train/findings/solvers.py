"""How many steps does each solver need, and what does a step cost?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

from ...pipeline import Pipeline
from ..report import Report
from .figures import panels, points, save
from .numbers import Number, score_difference
from .work import Drawing, Part, Values, Work, draw, markdown_table, scores_of, sha256_of, world_model

NAME = "solvers"
RELEASED_SOLVER, RELEASED_STEPS = "sde", 28


@dataclass(frozen=True)
class SolversSettings:
    """Everything that decides this part."""

    solvers: tuple[str, ...] = ("euler", "heun", "sde", "flow-cps")
    steps: tuple[int, ...] = (5, 10, 20, 28, 50)
    drawing: Drawing = field(default_factory=lambda: Drawing(seeds=(0,)))

    def scaled(self, count: int | None, steps: float) -> SolversSettings:
        """The same with another count; there is no training here."""
        return replace(self, drawing=self.drawing.counting(count))


def evaluations(solver: str, steps: int) -> int:
    """Velocity evaluations of a token: one a step, of heun two but for the last."""
    return 2 * steps - 1 if solver == "heun" else steps


def drawn(model: str, drawing: Drawing) -> Values:
    """ShapeEval's report of one setting."""
    return {"report": draw(Pipeline.from_pretrained(model), drawing).to_json()}


def run(work: Work, settings: SolversSettings) -> Values:
    """Draws what is missing; writes and returns the result."""
    weights = sha256_of(*world_model(work.model))
    reports = {}
    for solver in settings.solvers:
        for steps in settings.steps:
            name = f"{solver}-{steps}"
            drawing = replace(settings.drawing, solver=solver, num_inference_steps=steps)
            key = {"drawing": asdict(drawing), "weights": weights}
            point = work.point(NAME, name, key, partial(drawn, work.model, drawing))
            reports[name] = Report.from_json(point["report"])
    return work.result(NAME, settings, reports, numbers_of(settings, reports))


def numbers_of(settings: SolversSettings, reports: dict[str, Report]) -> Values:
    """Scores of every point, what each lacks to its solver's most steps, and each solver to the best one there."""
    most = max(settings.steps)
    rows: Values = {}
    lacks: Values = {}
    for solver in settings.solvers:
        for steps in settings.steps:
            name = f"{solver}-{steps}"
            rows[name] = {"evaluations": evaluations(solver, steps), "scores": scores_of(reports[name])}
            lacks[name] = score_difference(reports[f"{solver}-{most}"], reports[name]).to_json()
    best = max(settings.solvers, key=lambda solver: float(rows[f"{solver}-{most}"]["scores"]["overall"]["value"]))
    behind = {
        solver: score_difference(reports[f"{best}-{most}"], reports[f"{solver}-{most}"]).to_json()
        for solver in settings.solvers
        if solver != best
    }
    return {"points": rows, "gained by the most steps": lacks, "best": best, "behind the best": behind}


def fewest(result: Values, solver: str) -> int:
    """The steps from which on no count scores less than the most steps do."""
    steps = sorted(result["settings"]["steps"], reverse=True)
    enough: int = steps[0]
    for count in steps:
        if Number.from_json(result["gained by the most steps"][f"{solver}-{count}"]).sign > 0:
            break
        enough = count
    return enough


# ---------------------------------------------------------------------------------------------------------- showing


def plot(result: Values, path: Path) -> None:
    """The score against steps, and against velocity evaluations."""
    figure, axes = panels(1, 2, sharey=True)
    steps = result["settings"]["steps"]
    for index, solver in enumerate(result["settings"]["solvers"]):
        scores = [Number.from_json(result["points"][f"{solver}-{n}"]["scores"]["overall"]) for n in steps]
        # A little apart, so that solvers that score alike do not hide each other.
        aside = 0.5 * (index - (len(result["settings"]["solvers"]) - 1) / 2)
        points(axes[0, 0], [n + aside for n in steps], scores, index, solver)
        points(axes[0, 1], [result["points"][f"{solver}-{n}"]["evaluations"] for n in steps], scores, index)
    axes[0, 0].set(xlabel="steps of a token", ylabel="ShapeEval score, 95 % intervals", xticks=steps)
    axes[0, 1].set(xlabel="velocity evaluations of a token")
    axes[0, 0].legend(frameon=False, fontsize=9)
    save(figure, path)


def table(result: Values) -> str:
    """Scores, a row for each solver."""
    steps = result["settings"]["steps"]
    rows = [
        [solver, *(Number.from_json(result["points"][f"{solver}-{n}"]["scores"]["overall"]).text() for n in steps)]
        for solver in result["settings"]["solvers"]
    ]
    return markdown_table(("ShapeEval", *(f"{n} steps" for n in steps)), rows)


def verdict(result: Values) -> str:
    """Whether the released number of steps is enough; what each solver needs; whether one leads at the most steps."""
    solvers, steps = result["settings"]["solvers"], result["settings"]["steps"]
    most = max(steps)
    opening = ""
    if RELEASED_SOLVER in solvers and RELEASED_STEPS in steps and most > RELEASED_STEPS:
        lack = Number.from_json(result["gained by the most steps"][f"{RELEASED_SOLVER}-{RELEASED_STEPS}"])
        said = {1: "too few", 0: "enough", -1: "better than more"}[lack.sign]
        opening = f"**{RELEASED_STEPS} steps of {RELEASED_SOLVER} are {said}:** {most} steps score {lack.text()} more. "
    needs = []
    for solver in solvers:
        count = fewest(result, solver)
        cost = f" ({evaluations(solver, count)} evaluations)" if evaluations(solver, count) != count else ""
        needs.append(f"{solver} {count}{' or more' if count == most else ''}{cost}")
    best = result["best"]
    behind = {name: Number.from_json(number) for name, number in result["behind the best"].items()}
    worse = [f"{name} (by {number.text()})" for name, number in behind.items() if number.sign > 0]
    leads = f"{best} scores more than {' and '.join(worse)}" if worse else "no solver differs from the best one"
    return (
        f"{opening}From so many steps on, the score is no different from that of {most}, or higher: "
        f"{', '.join(needs)}. At {most} steps {leads}."
    )


PART = Part(
    NAME,
    "Solvers and steps",
    f"**The release** takes {RELEASED_STEPS} steps a token of a stochastic solver. Whether fewer do, and whether "
    "the solver matters, is asked here.",
    SolversSettings(),
    run,
    plot,
    table,
    verdict,
)
