"""The patient pruner on studies made by hand: at once for what diverged, late and slowly for what is only behind."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import optuna
import pytest
from optuna.study import StudyDirection
from optuna.trial import TrialState

from gptshake.sweep.pruning import Patient

TOKENS = 1000
Curve = Mapping[int, float]
FLAT = {100: 3.0, 300: 2.5, 500: 2.2, 600: 2.1, 700: 2.0, 800: 1.95, 900: 1.9}
WORSE = {tokens: value + 0.1 for tokens, value in FLAT.items()}


def pruned(
    curve: Curve, others: Sequence[Curve] = (), *, direction: str = "minimize", tokens: int | None = TOKENS, pruner: Patient | None = None
) -> bool:
    """Whether a running trial with this curve would be given up among finished ones."""
    study = optuna.create_study(direction=StudyDirection[direction.upper()])
    if tokens is not None:
        study.set_user_attr("tokens", tokens)
    for other in others:
        last = other[max(other)]
        study.add_trial(optuna.trial.create_trial(state=TrialState.COMPLETE, value=last, intermediate_values=dict(other)))
    study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, intermediate_values=dict(curve)))
    return (pruner or Patient()).prune(study, study.trials[-1])


@pytest.mark.parametrize("last", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_is_pruned_at_once(last: float) -> None:
    assert pruned({100: 3.0, 200: last})
    assert pruned({100: last})


def test_a_runaway_is_pruned_at_once_and_without_other_trials() -> None:
    assert pruned({100: 2.0, 200: 3.0}, tokens=None)
    assert not pruned({100: 2.0, 200: 2.9}, tokens=None)


def test_a_trial_that_reported_nothing_goes_on() -> None:
    assert not pruned({}, [FLAT] * 5)


def test_a_trial_behind_the_median_for_three_late_reports_is_pruned() -> None:
    upto = {tokens: value for tokens, value in WORSE.items() if tokens <= 700}
    assert pruned(upto, [FLAT] * 4)


def test_early_reports_never_count_by_rank() -> None:
    upto = {tokens: value for tokens, value in WORSE.items() if tokens <= 600}
    assert not pruned(upto, [FLAT] * 4)
    assert pruned(upto, [FLAT] * 4, pruner=Patient(after=0.0))


def test_one_good_report_starts_the_patience_anew() -> None:
    assert not pruned(WORSE | {800: 1.9}, [FLAT] * 4)


def test_a_falling_loss_is_no_excuse() -> None:
    assert all(right < left for left, right in pairwise(WORSE.values()))
    assert pruned(WORSE, [FLAT] * 4)


def test_the_median_itself_is_not_behind() -> None:
    assert not pruned(FLAT, [FLAT] * 4)


@pytest.mark.parametrize(("finished", "expected"), [(3, False), (4, True)])
def test_rank_needs_enough_finished_trials(finished: int, expected: bool) -> None:
    assert pruned(WORSE, [FLAT] * finished) is expected


def test_without_the_length_of_a_run_there_is_no_pruning_by_rank() -> None:
    assert not pruned(WORSE, [FLAT] * 4, tokens=None)


def test_other_batch_sizes_are_compared_at_the_nearest_earlier_report() -> None:
    coarse = {250: 2.6, 450: 2.3, 650: 2.05, 850: 1.92}
    assert not pruned({500: 2.25, 600: 2.25, 700: 2.0}, [coarse] * 4)
    assert pruned({500: 2.35, 600: 2.35, 700: 2.1}, [coarse] * 4)


def test_a_finished_trial_that_had_not_reported_yet_does_not_count() -> None:
    assert not pruned(WORSE, [FLAT, FLAT, FLAT, {950: 1.0}])


def test_a_report_that_is_no_number_does_not_spoil_the_median() -> None:
    assert not pruned(FLAT, [FLAT | {700: math.nan}] * 4)
    assert pruned(WORSE, [FLAT] * 4 + [dict.fromkeys(FLAT, math.nan) | {1000: 1.9}])


def test_a_study_that_maximizes_prunes_what_is_lower() -> None:
    up = {tokens: -value for tokens, value in FLAT.items()}
    down = {tokens: -value for tokens, value in WORSE.items()}
    assert pruned(down, [up] * 4, direction="maximize")
    assert not pruned(up, [down] * 4, direction="maximize")
