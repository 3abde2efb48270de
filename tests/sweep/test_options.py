"""Options of the sweeper that cannot work are refused before anything begins."""

from typing import Any

import optuna
import pytest

from gptshake.errors import ConfigError
from gptshake.sweep import options
from gptshake.sweep.config import SweeperConfig


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
