"""``logger=[wandb,mlflow]``: several trackers at once, each with keys of its own."""

import json
from pathlib import Path

import pytest
from omegaconf import DictConfig

from gptshake.config.compose import choices, compose
from gptshake.config.compose_errors import checked_compose
from gptshake.config.experiments import expand_experiment_files
from gptshake.config.overrides import stored_overrides
from gptshake.config.validate import invalid_value
from gptshake.config.values import unsafe_reason
from gptshake.errors import ConfigError

RUN = ["model=tiny", "data=wiki_char"]


def composed(*overrides: str) -> DictConfig:
    return compose(expand_experiment_files([*RUN, *overrides]), with_hydra=True)


def test_each_has_a_node_with_its_own_keys() -> None:
    cfg = composed("logger=[wandb,tensorboard]", "logger.wandb.project=mine", "logger.tensorboard.every=3")
    assert cfg.logger.wandb == compose([*RUN, "logger=wandb", "logger.project=mine"]).logger
    assert cfg.logger.tensorboard == compose([*RUN, "logger=tensorboard", "logger.every=3"]).logger
    assert choices(cfg.hydra)["logger"] == "tensorboard,wandb"


def test_none_among_them_is_no_tracker() -> None:
    assert list(composed("logger=[wandb,none]").logger) == ["wandb"]


def test_a_file_lists_them_as_the_shell_does(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults:\n- override /logger: [wandb, tensorboard]\n")
    assert composed(f"experiment={tmp_path}/mine.yaml").logger == composed("logger=[wandb,tensorboard]").logger


def test_what_is_typed_takes_the_place_of_a_file_s_list(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("defaults:\n- override /logger: [wandb, tensorboard]\n")
    for typed in ("logger=none", "logger=[wandb,mlflow]"):
        assert composed(f"experiment={tmp_path}/mine.yaml", typed).logger == composed(typed).logger


def test_an_option_of_experiment_that_lists_them_says_how_to_have_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/mine.yaml").write_text("# @package _global_\ndefaults:\n- override /logger: [wandb, tensorboard]\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^experiment=mine: .* takes one option. Name several in the shell: 'logger=\[wandb,mlflow\]'"):
        checked_compose([*RUN, "experiment=mine"])
    assert list(composed("experiment=mine", "logger=[wandb,mlflow]").logger) == ["wandb", "mlflow"]


def test_their_keys_have_the_rules_of_a_single_one() -> None:
    assert invalid_value("logger.wandb.mode", "foo") == "logger.wandb.mode=foo is not known. It is one of auto, online, offline."
    assert invalid_value("logger.mlflow.every", 0) and not invalid_value("logger.mlflow.uri", None)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (("logger=[wandb,mlfow]",), "did you mean mlflow"),
        (("logger=[wandb,mlflow]", "logger.mlflow.urii=x"), "did you mean logger.mlflow.uri"),
    ],
)
def test_a_mistake_is_one_sentence(overrides: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        checked_compose(expand_experiment_files([*RUN, *overrides]))


def test_a_resumed_run_has_them_again_unless_others_are_typed(tmp_path: Path) -> None:
    overrides = expand_experiment_files([*RUN, "logger=[wandb,tensorboard]", "logger.wandb.every=3"])
    (tmp_path / "run.json").write_text(json.dumps({"id": "x", "name": "x", "status": "ok", "overrides": overrides, "resolved": {}}))
    assert stored_overrides(tmp_path) == overrides
    again = compose([*stored_overrides(tmp_path, ["logger=tensorboard"]), "logger=tensorboard"])
    assert again.logger == compose([*RUN, "logger=tensorboard"]).logger


def test_from_a_record_nothing_else_is_moved() -> None:
    assert not unsafe_reason("+logger@logger.wandb=wandb")
    assert unsafe_reason("+callbacks@logger.wandb=default") and unsafe_reason("+logger@callbacks.x=wandb")
