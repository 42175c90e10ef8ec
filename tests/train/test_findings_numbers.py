"""The findings' arithmetic: intervals, differences of scores, and drift along a sequence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from kit.found import curves, report

from nextstep_rt import InvalidRequest
from nextstep_rt.train.findings import statistics
from nextstep_rt.train.findings.numbers import Number, mean_difference, mean_of, score_difference
from nextstep_rt.train.report import Outcome, Report

# ---- numbers


def test_a_mean_has_the_interval_of_its_spread() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    number = mean_of(values)
    assert number.value == pytest.approx(values.mean())
    assert number.low == pytest.approx(values.mean() - 1.96 * 0.1, abs=0.03)
    assert number.high == pytest.approx(values.mean() + 1.96 * 0.1, abs=0.03)
    with pytest.raises(InvalidRequest, match="two values or more, and there is 1"):
        mean_of([1.0])


def test_a_sign_needs_the_whole_interval() -> None:
    assert [Number(v, v - 1, v + 1).sign for v in (2, 0.5, -0.5, -2)] == [1, 0, 0, -1]
    assert Number(0.1, -0.3, 0.5).reach == 0.5
    assert Number(0.12345, 0.1, 0.2).text(2) == "0.12 [0.10, 0.20]"
    assert Number.from_json(Number(0.5, 0.25, 0.75).to_json()) == Number(0.5, 0.25, 0.75)


def test_what_is_measured_twice_is_compared_one_by_one() -> None:
    base = np.random.default_rng(2).normal(0, 10, 200)
    number = mean_difference(base + 0.1, base)
    assert number.value == pytest.approx(0.1)
    assert number.sign == 1
    assert mean_of(base + 0.1).high - mean_of(base).low > 2


def test_scores_differ_prompt_by_prompt() -> None:
    number = score_difference(report(0.8), report(0.7))
    first, second = report(0.8).overall, report(0.7).overall
    assert first is not None
    assert second is not None
    assert number.value == pytest.approx(first.score - second.score)
    assert number.sign == 1
    assert first.low < second.high  # the scores' own intervals overlap: prompts are what makes them wide
    assert score_difference(report(0.7), report(0.8)).sign == -1
    assert score_difference(report(0.5, seed=1), report(0.5, seed=2)).sign == 0


def test_paraphrases_of_one_scene_are_one_trial() -> None:
    """Ten prompts of each scene that agree leave the interval that the scenes alone have."""
    alone = score_difference(report(0.8, prompts=20), report(0.6, prompts=20))
    spoken = [repeated(report(share, prompts=20), 10) for share in (0.8, 0.6)]
    often = score_difference(*spoken)
    assert often.value == pytest.approx(alone.value)
    assert (often.low, often.high) == pytest.approx((alone.low, alone.high), abs=0.01)
    assert alone.high - alone.low > 0.1


def repeated(made: Report, times: int) -> Report:
    """Every prompt said in `times` ways, all drawn alike."""
    outcomes = [
        replace(outcome, number=outcome.number * times + k, scene=f"{outcome.category} {outcome.number}")
        for outcome in made.outcomes
        for k in range(times)
    ]
    return Report({}, None, tuple(outcomes))


def test_differences_that_do_not_vary_are_not_certain() -> None:
    same = score_difference(report(0.6), report(0.6))
    assert (same.value, same.sign) == (0.0, 0)
    assert 0 < same.high < 0.05
    assert score_difference(report(1.1), report(0.0)).sign == 1
    assert score_difference(report(1.1, prompts=1), report(0.0, prompts=1)) == Number(
        1.0, pytest.approx(0.22, abs=0.01), 1
    )


def test_other_prompts_are_not_compared() -> None:
    with pytest.raises(InvalidRequest, match="different prompts"):
        score_difference(report(0.5), report(0.5, prompts=2))


# ---- drift


def test_drift_is_the_way_from_the_first_to_the_last_tokens() -> None:
    for slope in (0.01, -0.01):
        number = statistics.drift(curves(slope), 16)
        assert (number.value, number.low, number.high) == pytest.approx((0.48,) * 3)
    noisy = statistics.drift(curves(0.01, spread=0.2), 16)
    assert noisy.low < noisy.value < noisy.high
    assert noisy.value == pytest.approx(0.48, abs=0.03)
    assert noisy.low > 0.4


def test_a_drift_of_unsure_sign_may_be_none() -> None:
    number = statistics.drift(curves(0.0, spread=1.0), 16)
    assert number.low == 0.0
    assert number.value <= number.high < 0.3


def test_drifts_are_compared_by_size() -> None:
    assert statistics.drift_difference(curves(-0.02, 0.1), curves(0.01, 0.1), 16).sign == 1
    assert statistics.drift_difference(curves(0.01, 0.1), curves(-0.02, 0.1), 16).sign == -1
    assert statistics.drift_difference(curves(0.01, 0.1), curves(0.01, 0.1), 16).sign == 0
    with pytest.raises(InvalidRequest, match="ends is 33, but 64 tokens"):
        statistics.drift(curves(0.01), 33)


def test_statistics_are_averaged_over_a_prompts_pictures() -> None:
    made = [Outcome(number, "colours", "", "", seed, True, "") for number in (4, 7) for seed in (0, 1)]
    rows = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 9.0]])
    averaged = statistics.by_prompt(rows, Report({}, None, tuple(made)))
    assert averaged.tolist() == [[2.0, 3.0], [6.0, 7.5]]
