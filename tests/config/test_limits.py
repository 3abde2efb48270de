"""Which of several limits ends a run: one typed in the shell replaces those of experiment files; among typed ones the smallest wins."""

from pathlib import Path

import pytest

from gptshake.config.compose import compose
from gptshake.config.experiments import LIMITS, expand_experiment_files

RUN = ["model=tiny", "data=wiki_char"]


def limits(overrides: list[str]) -> dict[str, float]:
    trainer = compose(expand_experiment_files(overrides)).trainer
    return {key: value for limit in LIMITS if (value := trainer[key := limit.partition(".")[2]]) is not None}


@pytest.fixture
def by_path(tmp_path: Path) -> str:
    (tmp_path / "best.yaml").write_text("# @package _global_\noptimizer:\n  lr: 0.002\ntrainer:\n  max_tokens: 245760\n  max_epochs: 3\n")
    return f"experiment={tmp_path / 'best.yaml'}"


@pytest.fixture
def by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "short.yaml").write_text("# @package _global_\ntrainer:\n  max_tokens: 245760\n  max_epochs: 3\n")
    monkeypatch.chdir(tmp_path)
    return "experiment=short"


@pytest.mark.parametrize("file", ["by_path", "by_name"])
@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ([], {"max_tokens": 245760, "max_epochs": 3}),
        (["trainer.max_steps=5000"], {"max_steps": 5000}),
        (["trainer.max_epochs=9"], {"max_epochs": 9}),
        (["trainer.hours=2"], {"hours": 2}),
        (["trainer.max_steps=5000", "trainer.max_tokens=1000"], {"max_steps": 5000, "max_tokens": 1000}),
        (["trainer.max_epochs=null"], {"max_tokens": 245760}),
        (["trainer.gradient_clip_val=2"], {"max_tokens": 245760, "max_epochs": 3}),
    ],
)
def test_a_typed_limit_replaces_those_of_an_experiment_file(
    file: str, typed: list[str], expected: dict[str, float], request: pytest.FixtureRequest
) -> None:
    experiment = request.getfixturevalue(file)
    assert limits([*RUN, experiment, *typed]) == expected == limits([*typed, *RUN, experiment])


def test_other_values_of_an_experiment_file_stay_when_a_limit_is_typed(by_path: str) -> None:
    assert compose(expand_experiment_files([*RUN, by_path, "trainer.max_steps=5"])).optimizer.lr == 0.002
