"""``optimizer.lr=from:<run>`` becomes a number at once, or a sentence."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from gptshake.config.overrides import lr_mismatch_note, resolve_lr_from
from gptshake.errors import RecordError

CONFIG = {"model": {"n_layer": 2}, "data": {"batch_size": 8, "documents": {"path": "a.txt", "cache": "here"}}, "optimizer": {"lr": 1e-3}}


@pytest.fixture
def finder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes records of finders below runs/."""
    monkeypatch.chdir(tmp_path)

    def make(run_id: str, **fields: Any) -> Path:
        path = tmp_path / "runs" / f"name-{run_id}"
        path.mkdir(parents=True)
        (path / "run.json").write_text(json.dumps({"id": run_id, "name": path.name, "status": "ok", **fields}))
        (path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
        return path

    return make


@pytest.mark.parametrize("typed", ["from:x0000001", "from:name-x0000001", "'from:x0000001'", "from:runs/name-x0000001"])
def test_a_found_rate_is_written_out_as_a_number(finder: Any, typed: str) -> None:
    finder("x0000001", find_lr={"lr": 2.1e-3})
    overrides, origin = resolve_lr_from(["model=tiny", f"optimizer.lr={typed}", "seed=1"])
    assert overrides == ["model=tiny", "optimizer.lr=0.0021", "seed=1"]
    assert origin["lr_from"]["run"] == "x0000001"


def test_runs_are_looked_for_where_the_command_keeps_them(finder: Any, tmp_path: Path) -> None:
    finder("x0000001", find_lr={"lr": 0.5})
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    overrides, _ = resolve_lr_from(["paths.runs='elsewhere'", "optimizer.lr=from:x0000001"])
    assert overrides[-1] == "optimizer.lr=0.5"


def study(folder: Path, key: str = "optimizer.lr", **more: Any) -> None:
    """A study of three rates, of which the second is best."""
    trials = [
        {"number": i, "params": {key: lr}, "state": "ok", "value": value, "runs": [run_row(i, value)], "overrides": []}
        for i, (lr, value) in enumerate(((1e-3, 2.2), (4e-3, 2.0), (1.6e-2, 2.1)))
    ]
    rows = {
        "name": folder.name,
        "trials": trials,
        "axes": [{"key": key, "low": 1e-4, "high": 1e-1, "log": True, "powers": False, "choices": [], "declared": None}],
        "objective": "val/bpb",
        "direction": "minimize",
    } | more
    folder.mkdir(parents=True)
    (folder / "study.json").write_text(json.dumps(rows))
    for trial in trials:
        (folder / str(trial["number"])).mkdir()
        (folder / str(trial["number"]) / "run.json").write_text(
            json.dumps({"id": f"t{trial['number']}", "name": "a", "status": "ok", "budget": {"tokens": 256_000, "warmup_tokens": 75_776.0}})
        )


def run_row(number: int, value: float) -> dict[str, Any]:
    return {
        "path": str(number),
        "repeat": 0,
        "seed": 1,
        "state": "ok",
        "value": value,
        "tokens": 256_000,
        "slot": 0,
        "reason": None,
        "started": 1.0,
        "ended": 2.0,
        "tokens_per_s": 1.0,
    }


@pytest.mark.parametrize("rate", ["text", float("nan"), -1e-3, 0, True, [1e-3], {"lr": 1e-3}])
def test_a_rate_that_is_none_is_a_sentence(finder: Any, rate: Any) -> None:
    finder("x0000001", find_lr={"lr": rate})
    with pytest.raises(RecordError, match=r"optimizer\.lr=from:x0000001: its record holds the rate .*, which is not a number above 0"):
        resolve_lr_from(["optimizer.lr=from:x0000001"])


@pytest.mark.parametrize("typed", ["from:mine", "from:multirun/mine"])
def test_a_study_gives_the_rate_of_its_best_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str) -> None:
    monkeypatch.chdir(tmp_path)
    study(tmp_path / "multirun" / "mine")
    overrides, origin = resolve_lr_from([f"optimizer.lr={typed}"])
    assert overrides == ["optimizer.lr=0.004"]
    found = origin["lr_from"]
    assert (found["run"], found["tokens"], found["warmup_tokens"]) == ("t1", 256_000, 75_776.0)
    assert Path(origin["lr_from"]["path"]).resolve() == tmp_path / "multirun" / "mine" / "1"


def test_a_study_without_a_rate_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    study(tmp_path / "multirun" / "other", "model.n_layer")
    study(tmp_path / "multirun" / "begun", trials=[])
    with pytest.raises(RecordError, match=r"other: that study did not vary optimizer\.lr"):
        resolve_lr_from(["optimizer.lr=from:other"])
    with pytest.raises(RecordError, match="begun: no trial of that study has ended yet"):
        resolve_lr_from(["optimizer.lr=from:begun"])


@pytest.mark.parametrize("text", ["optimizer.lr=1e-3", "optimizer.lr=choice(range)", "note='from:x'", "~optimizer.lr"])
def test_everything_else_is_left_alone(text: str) -> None:
    assert resolve_lr_from([text]) == ([text], {})


def test_a_run_that_found_nothing_is_a_sentence(finder: Any) -> None:
    finder("x0000001")
    finder("x0000002", find_lr={"start": 1e-3}, status="failed")
    with pytest.raises(RecordError, match=r"is not a run of task=find_lr\. Find one with: gptshake task=find_lr"):
        resolve_lr_from(["optimizer.lr=from:x0000001"])
    with pytest.raises(RecordError, match=r"has not found a rate \(failed\)"):
        resolve_lr_from(["optimizer.lr=from:x0000002"])
    with pytest.raises(RecordError, match="There is no run 'x0000003'; did you mean"):
        resolve_lr_from(["optimizer.lr=from:x0000003"])


def test_a_rate_that_was_found_for_something_else_is_told(finder: Any) -> None:
    path = finder("x0000001", find_lr={"lr": 2e-3})
    origin = {"lr_from": {"run": "x0000001", "path": str(path)}}
    cfg = OmegaConf.create(CONFIG | {"optimizer": {"lr": 2e-3}})
    assert lr_mismatch_note(origin, cfg) is None and lr_mismatch_note({}, cfg) is None
    cfg.data.documents.cache, cfg.data.batch_size = "there", "auto"
    assert lr_mismatch_note(origin, cfg) is None
    cfg.model.n_layer = 4
    assert lr_mismatch_note(origin, cfg) == "note: optimizer.lr=0.002 was found by x0000001 for other terms: model.n_layer 2, here 4."


def test_a_text_is_the_same_by_its_absolute_path(finder: Any) -> None:
    path = finder("x0000001", find_lr={"lr": 2e-3})
    origin = {"lr_from": {"run": "x0000001", "path": str(path)}}
    cfg = OmegaConf.create(CONFIG | {"optimizer": {"lr": 2e-3}})
    cfg.data.documents.path = str(Path("a.txt").absolute())
    assert lr_mismatch_note(origin, cfg) is None
    cfg.data.documents.path = "b.txt"
    assert "data.documents.path a.txt, here b.txt" in str(lr_mismatch_note(origin, cfg))
