"""Options of the sweeper that cannot work are refused before anything begins."""

from typing import Any

import optuna
import pytest

from gptshake.errors import ConfigError
from gptshake.sweep import options
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.protocols import Prepared
from gptshake.sweep.space import Axis


@pytest.mark.parametrize(("kind", "package"), [("CmaEsSampler", "cmaes"), ("GPSampler", "scipy"), ("QMCSampler", "scipy")])
def test_a_sampler_without_its_package_is_refused_at_once(kind: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wish = SweeperConfig(sampler=getattr(optuna.samplers, kind))
    monkeypatch.setattr(options, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(ConfigError, match=rf"{kind} needs the package {package}, .*pip install 'gptshake\[samplers\]'"):
        options.check(wish)
    monkeypatch.setattr(options, "find_spec", lambda name: name)
    options.check(wish)


def test_samplers_that_need_nothing_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "find_spec", lambda name: None)
    for sampler in (None, optuna.samplers.RandomSampler, optuna.samplers.TPESampler, optuna.samplers.RandomSampler(seed=1)):
        options.check(SweeperConfig(sampler=sampler))


@pytest.mark.parametrize("sampler", [lambda seed: None, lambda: None])
def test_what_builds_no_sampler_is_refused_with_a_sentence(sampler: Any) -> None:
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.sampler"):
        options.check(SweeperConfig(sampler=sampler))


def test_options_that_were_typed_are_overrides_again() -> None:
    assert options.typed_options(SweeperConfig()) == []
    wish = SweeperConfig(n_trials=9, noise=False, timeout=60.0, study="mine")
    assert options.typed_options(wish) == ["hydra.sweeper.n_trials=9", "hydra.sweeper.timeout=60.0", "hydra.sweeper.noise=false"]


@pytest.mark.parametrize(
    ("wish", "why"),
    [
        (SweeperConfig(direction="up"), r"hydra\.sweeper\.direction=up is not known"),
        (SweeperConfig(repeats=0), "repeats=0 cannot work: it must be a whole number from 1 up"),
        (SweeperConfig(trial_timeout=0.0), r"hydra\.sweeper\.trial_timeout=0\.0 cannot work: it must be a number above 0"),
    ],
)
def test_what_cannot_work_is_refused(wish: SweeperConfig, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        options.check(wish)


def test_hours_become_as_many_trials_as_fit_with_their_seeds_and_confirmations() -> None:
    def trials(**wish: Any) -> int | None:
        return options.number_of_trials(SweeperConfig(hours=1.0, **wish), Prepared(seconds=60.0), slots=2)

    assert trials() == 120
    assert trials(repeats=3) == 40
    assert trials(confirm=2) == 114  # 120 runs but for two of the best three
    assert trials(confirm=200) == 1  # too many to confirm one
    with pytest.raises(ConfigError, match="give it or n_trials, not both"):
        trials(n_trials=3)
    with pytest.raises(ConfigError, match="needs to know how long a run takes, which this app does not report: give n_trials instead"):
        options.number_of_trials(SweeperConfig(hours=1.0), Prepared(), slots=2)


LR = Axis("optimizer.lr", low=1e-4, high=1e-1, log=True, declared=1e-3)
BATCH = Axis("data.batch_size", low=8, high=64, log=True, integer=True, powers=True, declared=32)


def test_points_that_the_user_wants_first_are_completed_and_must_be_in_their_ranges() -> None:
    def first(*wanted: dict[str, Any], axes: list[Axis] | None = None) -> list[Any]:
        return options.first_points(SweeperConfig(enqueue=list(wanted)), axes or [LR, BATCH])

    assert first({"optimizer.lr": 0.5}, {"data.batch_size": 16}) == [
        {"optimizer.lr": 0.5, "data.batch_size": 32},  # outside of the range: it is the user's own
        {"optimizer.lr": 1e-3, "data.batch_size": 16},
    ]
    with pytest.raises(ConfigError, match=r"enqueue names seed, which is not swept here; swept are optimizer\.lr, data\.batch_size"):
        first({"seed": 1})
    with pytest.raises(ConfigError, match=r"enqueue: data\.batch_size=24 is not in its range"):
        first({"data.batch_size": 24})
    with pytest.raises(ConfigError, match="enqueue: model=gpt2 is not in its range"):
        first({"model": "gpt2"}, axes=[Axis("model", choices=("tiny", "baby"))])
    with pytest.raises(ConfigError, match="enqueue: model=None is not in its range"):
        first({"optimizer.lr": 0.01}, axes=[LR, Axis("model", choices=("tiny", "baby"))])
