"""A run becomes a config again: it keeps the version of the cleaning that it began with, which old runs do not name."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake.config.compose_errors import checked_compose
from gptshake.config.experiments import expand_experiment_files
from gptshake.config.overrides import LATER, freeze, refuse_differences, resumed_overrides
from gptshake.config.validate import check
from gptshake.errors import RecordError
from gptshake.redaction import redacted


def began(folder: Path, overrides: list[str], *, cleaning: bool) -> Path:
    """The record of a run; without ``cleaning`` one of a version that had no such key."""
    config: Any = redacted(OmegaConf.to_container(checked_compose(overrides), resolve=True))
    if not cleaning:
        for node in (config["data"], config["data"]["documents"]):
            node.pop("cleaning", None)
    folder.mkdir()
    OmegaConf.save(OmegaConf.create(config), folder / "config.yaml")
    (folder / "run.json").write_text(json.dumps({"id": "t1", "name": folder.name, "overrides": overrides, "resolved": {}, "status": "ok"}))
    return folder


@pytest.mark.parametrize(
    ("overrides", "named", "version"),
    [
        (["model=tiny", "data=wiki_char"], False, 1),
        (["model=tiny", "data=wiki_char"], True, 2),
        (["model=tiny", "data=wiki_char", "data.cleaning=1"], True, 1),
        (["model=tiny", "data=text_char", "data.path=dump.xml"], False, 1),
        (["model=tiny", "data=shakespeare_char"], False, None),
    ],
)
def test_a_resumed_run_keeps_its_cleaning(tmp_path: Path, overrides: list[str], named: bool, version: int | None) -> None:
    run = began(tmp_path / "run", overrides, cleaning=named)
    resumed = checked_compose(resumed_overrides(run))
    assert resumed.data.get("cleaning") == version
    refuse_differences(resumed, run)
    trial = checked_compose(overrides)
    freeze(trial, run)
    refuse_differences(trial, run)
    if version == 1:
        with pytest.raises(RecordError, match=r"data\.cleaning: was 1, would be 2"):
            refuse_differences(checked_compose([*resumed_overrides(run), "data.cleaning=2"]), run)


@pytest.mark.parametrize("data", ["data=wiki_char", "data=text_char", "data=hf_char"])
def test_a_run_from_before_a_key_is_resumed_with_what_its_absence_meant_and_no_other_value(tmp_path: Path, data: str) -> None:
    run = began(tmp_path / "run", ["model=tiny", data], cleaning=False)
    config: Any = OmegaConf.load(run / "config.yaml")
    for key in LATER:
        place, _, name = key.rpartition(".")
        OmegaConf.select(config, place).pop(name, None)
    OmegaConf.save(config, run / "config.yaml")
    resumed = checked_compose(resumed_overrides(run))
    assert resumed.optimizer.embedding_lr_mult == 1 and resumed.data.offset == "none"
    refuse_differences(resumed, run)
    with pytest.raises(RecordError, match=r"data\.offset: was none, would be random"):
        refuse_differences(checked_compose([*resumed_overrides(run), "data.offset=random"]), run)


def test_a_resumed_run_keeps_the_schedule_rate_and_warm_up_that_were_the_defaults_of_its_time(tmp_path: Path) -> None:
    asked = ["model=tiny", "data=shakespeare_char"]
    run = began(
        tmp_path / "run", [*asked, "scheduler=cosine", "scheduler.warmup=0.02", "optimizer.lr=3e-3", "preset.lr=2e-3"], cleaning=True
    )
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"overrides": asked, "choices": {"scheduler": "cosine", "optimizer": "adamw"}}))
    resumed = checked_compose(resumed_overrides(run))
    assert (resumed.scheduler._target_, resumed.scheduler.warmup) == ("gptshake.optim.schedule.cosine", 0.02)
    assert (resumed.optimizer.lr, resumed.preset.lr) == (3e-3, 2e-3)
    refuse_differences(resumed, run)
    with pytest.raises(RecordError, match=r"optimizer\.lr: was 0\.003, would be 0\.01"):
        refuse_differences(checked_compose([*resumed_overrides(run), "optimizer.lr=1e-2"]), run)
    with pytest.raises(
        RecordError, match=r"scheduler\._target_: was gptshake\.optim\.schedule\.cosine, would be gptshake\.optim\.schedule\.wsd"
    ):
        typed = ["scheduler=wsd"]
        refuse_differences(checked_compose([*resumed_overrides(run, typed), *typed]), run)


def test_a_run_that_began_with_a_vocabulary_that_had_no_effect_is_resumed_without_it(tmp_path: Path) -> None:
    run = began(tmp_path / "run", ["model=tiny", "data=shakespeare_char", "model.vocab_size=3"], cleaning=True)
    resumed = checked_compose(resumed_overrides(run))
    check(resumed)
    refuse_differences(resumed, run)


def test_a_run_with_an_added_key_is_resumed_with_it_and_an_experiment_file_may_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "scheduler").mkdir(parents=True)
    (tmp_path / "conf" / "scheduler" / "saw.yaml").write_text("_target_: gptshake.optim.schedule.constant\n_partial_: true\n")
    run = began(tmp_path / "run", ["model=tiny", "data=shakespeare_char", "scheduler=saw", "+scheduler.warmup=0.5"], cleaning=True)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"choices": {"scheduler": "saw", "optimizer": "adamw"}}))
    resumed = checked_compose(resumed_overrides(run))
    assert resumed.scheduler.warmup == 0.5
    refuse_differences(resumed, run)
    (tmp_path / "best.yaml").write_text("defaults: [override /scheduler: saw]\nscheduler: {warmup: 0.25}\noptimizer: {lr: 0.01}\n")
    lines = expand_experiment_files(["model=tiny", "data=shakespeare_char", "experiment=best.yaml"])
    assert checked_compose(lines).scheduler.warmup == 0.25
