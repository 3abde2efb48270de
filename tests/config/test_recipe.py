"""A recipe that lies anywhere: written out as the overrides that it means."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

import gptshake
from gptshake.config.compose import compose
from gptshake.config.experiments import expand_experiment_files, experiment_files_as_options
from gptshake.errors import ConfigError, RecordError
from gptshake.report.study_stats import best
from gptshake.report.study_text import best_yaml

FIXED = ["model=tiny", "data=text_char", "data.path='a b, (c).txt'", "trainer.max_steps=null", "trainer.max_tokens=1000", "note='it''s'"]
OVERRIDES = ["scheduler=cosine", "scheduler.warmup=0.05", "optimizer.lr=0.0012", "seed=7"]


def study(overrides: list[str]) -> dict[str, Any]:
    trial = {"number": 3, "state": "ok", "params": {"optimizer.lr": 0.0012}, "overrides": overrides, "value": 2.0, "runs": []}
    facts = {"name": "mine", "program": "gptshake", "objective": "val/bpb", "direction": "minimize", "label": "x", "ablate": None}
    return facts | {"fixed": FIXED[:-1], "axes": [], "repeats": 1, "tokens": 1000, "state": "done", "trials": [trial], "confirm": []}


def test_the_best_of_a_study_composes_to_what_its_trial_was(tmp_path: Path) -> None:
    rows = study(OVERRIDES)
    winner = best(rows)
    assert winner is not None
    (tmp_path / "best.yaml").write_text(best_yaml(rows, winner))
    there = expand_experiment_files([f"experiment={tmp_path / 'best.yaml'}", "data.batch_size=8"])
    assert there[-1] == "data.batch_size=8"
    found = compose(there)
    expected = compose([*FIXED[:-1], *OVERRIDES, "data.batch_size=8"])
    assert OmegaConf.to_container(found, resolve=True) == OmegaConf.to_container(expected, resolve=True)


def test_the_best_of_a_study_keeps_the_schedule_of_its_run_unless_another_one_is_typed(tmp_path: Path) -> None:
    rows = study(["optimizer.lr=0.0012"])
    winner = best(rows)
    assert winner is not None
    file = f"experiment={tmp_path / 'best.yaml'}"
    (tmp_path / "best.yaml").write_text(best_yaml(rows, winner, "cosine"))  # not today's default
    for typed in ([], ["scheduler=one_cycle"]):
        expected = compose([*FIXED[:-1], "optimizer.lr=0.0012", *(typed or ["scheduler=cosine"])])
        assert compose(expand_experiment_files([file, *typed])) == expected


def test_the_best_of_a_study_names_the_text_that_it_was_found_on_from_any_folder() -> None:
    rows = study(OVERRIDES) | {"frozen": ["data.path='/far/a b, (c).txt'", "trainer.threads=2"]}
    winner = best(rows)
    assert winner is not None
    read = yaml.safe_load(best_yaml(rows, winner))
    assert read["data"]["path"] == "/far/a b, (c).txt" and "threads" not in read["trainer"]


def test_an_experiment_by_name_and_everything_else_stay_as_they_are() -> None:
    assert expand_experiment_files(["model=tiny", "experiment=demo", "data.path='x.yaml'"]) == [
        "model=tiny",
        "experiment=demo",
        "data.path='x.yaml'",
    ]


@pytest.mark.parametrize("value", ["it's #1, (really)!", "a,b", "null", "1e-3", "${x}", "", "ü"])
def test_texts_survive(value: str, tmp_path: Path) -> None:
    OmegaConf.save(
        OmegaConf.create({"defaults": [{"override /model": "tiny"}, {"override /data": "wiki_char"}, "_self_"]}), tmp_path / "x.yaml"
    )
    with (tmp_path / "x.yaml").open("a") as file:
        file.write(f"note: '{value.replace(chr(39), chr(39) * 2)}'\n")
    cfg = compose(expand_experiment_files([f"experiment={tmp_path / 'x.yaml'}"]))
    assert OmegaConf.to_container(cfg, resolve=False)["note"] == value


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (None, "there is no such file"),
        ("a: [", "is not a config"),
        ("[1, 2]", "it has no keys"),
        ("defaults:\n  - model: tiny\n", "defaults are written `override /group: option`"),
        ("defaults: [{}]", "defaults are written `override /group: option`"),
        ("defaults: 5", "defaults are written `override /group: option`"),
    ],
)
def test_what_is_no_recipe_is_one_sentence(content: str | None, part: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(ConfigError) as error:
        expand_experiment_files([f"experiment={tmp_path / 'x.yaml'}"])
    assert part in str(error.value)


def test_an_empty_list_of_defaults_is_none(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("defaults:\nseed: 3\n")
    assert expand_experiment_files([f"experiment={tmp_path / 'x.yaml'}"]) == ["seed=3"]


def test_files_in_a_list_become_options_under_their_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    for name in ("x.yaml", "sub/y.yaml"):
        (tmp_path / name).write_text("optimizer: {lr: 0.5}\n")
    folder = tmp_path / "options"
    assert experiment_files_as_options(["seed=1", "experiment=x.yaml,demo,sub/y.yaml"], folder) == [
        "seed=1",
        "experiment=choice('x.yaml',demo,'sub/y.yaml')",
    ]
    assert (folder / "experiment/sub/y.yaml").read_text().startswith("# @package _global_\n")
    assert experiment_files_as_options(["experiment=x.yaml"], folder) == ["experiment=x.yaml"]  # one file is written out
    outside = experiment_files_as_options([f"experiment=choice(sub/../x.yaml,{tmp_path}/sub/y.yaml)"], folder)
    assert outside == [f"experiment=choice('{tmp_path}/sub/../x.yaml','{tmp_path}/sub/y.yaml')"]
    with pytest.raises(ConfigError, match="there is no such file"):
        experiment_files_as_options(["experiment=x.yaml,nope.yaml"], folder)


def test_a_file_may_build_on_another_but_not_on_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best.yaml").write_text("defaults:\n  - /experiment/x.yaml\n  - override /model: tiny\n")
    (tmp_path / "x.yaml").write_text("optimizer: {lr: 0.5}\n")
    assert expand_experiment_files(["experiment=best.yaml"]) == ["optimizer.lr=0.5", "model=tiny"]
    (tmp_path / "x.yaml").write_text("defaults:\n  - /experiment/best.yaml\n")
    with pytest.raises(ConfigError, match="includes itself"):
        expand_experiment_files(["experiment=best.yaml"])


@pytest.mark.parametrize(
    "text", ["note: ${oc.env:HOME}", "trainer:\n  _target_: os.mkdir", "paths:\n  runs: elsewhere", "hydra:\n  verbose: true"]
)
@pytest.mark.parametrize("record", ["study.json", "run.json"])
def test_a_file_beside_a_record_gives_values_only_until_it_is_copied_elsewhere(text: str, record: str, tmp_path: Path) -> None:
    (tmp_path / record).write_text("{}")
    (tmp_path / "best.yaml").write_text(f"seed: 3\n{text}\n")
    with pytest.raises(RecordError, match=r"best\.yaml has .*From a record come values only.* copy the file elsewhere\."):
        expand_experiment_files([f"experiment={tmp_path / 'best.yaml'}"])
    (tmp_path / record).unlink()
    assert expand_experiment_files([f"experiment={tmp_path / 'best.yaml'}"])[0] == "seed=3"


def test_what_a_file_says_of_a_sweep_means_nothing_to_a_single_run(tmp_path: Path) -> None:
    parts = "study: night\ndefaults:\n- override /sampler: tpe\n- override /executor: slurm\nhydra: {sweeper: {n_trials: 3}}\nseed: 3\n"
    (tmp_path / "x.yaml").write_text(parts)
    words = ["model=tiny", "data=wiki_char", f"experiment={tmp_path / 'x.yaml'}"]
    assert gptshake.compose(words).seed == 3
    with pytest.raises(ConfigError, match=r"^sampler= is for a sweep"):
        gptshake.compose([*words, "sampler=tpe"])
    assert {"sampler=tpe", "hydra.sweeper.n_trials=3"} <= {*expand_experiment_files(words)}
