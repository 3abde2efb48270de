import json
from pathlib import Path

import pytest

from gptshake.errors import RecordError
from gptshake.record.index import find_study, find_sweep, read_study
from gptshake.record.lock import RunLock
from gptshake.report.study_stats import state_of


@pytest.fixture
def multirun(tmp_path: Path) -> Path:
    (tmp_path / "multirun/night1").mkdir(parents=True)
    (tmp_path / "multirun/night1/study.json").write_text(json.dumps({"name": "night1", "trials": [], "axes": [], "objective": "val/bpb"}))
    (tmp_path / "multirun/20261124-0031/0").mkdir(parents=True)
    (tmp_path / "multirun/20261124-0031/0/run.json").write_text("{}")
    (tmp_path / "multirun/nothing").mkdir()
    return tmp_path / "multirun"


def test_a_study_is_found_by_its_name_and_its_path(multirun: Path) -> None:
    assert find_study("night1", multirun) == find_study(str(multirun / "night1/"), multirun) == multirun / "night1"
    assert read_study(multirun / "night1")["name"] == "night1"
    with pytest.raises(RecordError, match="did you mean night1"):
        find_study("nigth1", multirun)


def test_the_latest_study_is_the_one_begun_last_whatever_its_name_and_damaged_ones(multirun: Path) -> None:
    for name, started in (("a", 3.0), ("b", 2.0)):
        (multirun / name).mkdir()
        study = read_study(multirun / "night1") | {"name": name, "started": started}
        (multirun / name / "study.json").write_text(json.dumps(study))
    (multirun / "nothing/study.json").write_text("{")
    assert find_study("latest", multirun) == multirun / "a"
    with pytest.raises(RecordError, match="There is no study 'latest'"):
        find_study("latest", multirun / "a")


def test_a_study_of_a_newer_layout_is_refused(multirun: Path) -> None:
    study = read_study(multirun / "night1") | {"schema": 2}
    (multirun / "night1/study.json").write_text(json.dumps(study))
    with pytest.raises(RecordError, match=r"written by a newer gptshake \(schema 2"):
        read_study(multirun / "night1")


def test_a_sweep_may_be_of_the_basic_sweeper(multirun: Path) -> None:
    assert find_sweep("night1", multirun) == multirun / "night1"
    assert find_sweep("20261124-0031", multirun) == multirun / "20261124-0031"


@pytest.mark.parametrize("text", ["", ".", "nothing", "nowhere", "20261124-0031/0", ".."])
def test_what_holds_no_runs_is_no_sweep(multirun: Path, text: str) -> None:
    assert find_sweep(text, multirun) is None


RUN = {"path": "0", "repeat": 0, "state": "ok", "value": 2.0, "tokens_per_s": None}
TRIAL = {"number": 0, "state": "ok", "params": {"lr": 0.1}, "overrides": ["lr=0.1"], "value": 2.0, "runs": [RUN]}
AXIS = {"key": "lr", "low": 0.01, "high": 1.0, "log": True}
STUDY = {"name": "a", "objective": "val/bpb", "state": "done", "fixed": [], "axes": [AXIS], "trials": [TRIAL]}


@pytest.mark.parametrize(
    ("damaged", "why"),
    [
        ([], "is not the record of a study"),
        (STUDY | {"trials": {}}, "trials is not a list"),
        (STUDY | {"trials": [3]}, "trials, entry 0 is not a mapping"),
        (STUDY | {"trials": [TRIAL | {"params": {}}]}, "a trial lacks a value of lr"),
        (STUDY | {"trials": [TRIAL | {"params": {"lr": "x"}}]}, "a trial lacks a value of lr"),
        (STUDY | {"trials": [TRIAL | {"number": True}]}, "number is not a count"),
        (STUDY | {"trials": [TRIAL | {"runs": [RUN | {"path": "../1"}]}]}, "path is not a path inside of the study"),
        (STUDY | {"trials": [TRIAL | {"runs": [{**RUN, "value": "low"}]}]}, "value is not a number"),
        (STUDY | {"axes": [{"key": "lr"}]}, "axes, entry 0 lacks high"),
        (STUDY | {"confirm": [3]}, "confirm is not a list of trials"),
        (STUDY | {"ablate": {"labels": ["base"]}}, "ablate is no axis"),
        (STUDY | {"confirm": [TRIAL | {"runs": []}]}, "a confirmation has no runs"),
        (STUDY | {"trials": [TRIAL | {"params": {"lr": 0.0}}]}, "lr is on a logarithmic scale, but not above 0"),
        (STUDY | {"axes": [AXIS | {"low": -1.0}]}, "lr is on a logarithmic scale, but not above 0"),
        (STUDY | {"started": 1e18}, "started is not a time in seconds since 1970"),
        (STUDY | {"tokens": 10**400}, "a number that is too large"),
    ],
)
def test_a_malformed_study_is_one_sentence_that_names_the_place(damaged: object, why: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps(STUDY))
    assert read_study(tmp_path)["trials"] == [TRIAL]
    (tmp_path / "study.json").write_text(json.dumps(damaged))
    with pytest.raises(RecordError, match=why) as raised:
        read_study(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_study_whose_controller_was_killed_has_stopped_and_a_run_that_goes_on_without_it_has_not(tmp_path: Path) -> None:
    runs = [RUN | {"path": path, "state": state, "value": None} for path, state in (("0", "running"), ("1", "running"), ("2", "waiting"))]
    trials = [TRIAL | {"number": n, "state": "running", "value": None, "runs": [run]} for n, run in enumerate(runs)]
    (tmp_path / "study.json").write_text(json.dumps(STUDY | {"state": "running", "trials": trials}))
    controller, elsewhere = RunLock(tmp_path), RunLock(tmp_path / "1")
    assert read_study(tmp_path)["state"] == "running" and state_of(read_study(tmp_path)["trials"][0]) == "running"
    controller.release()
    study = read_study(tmp_path)
    assert study["state"] == "stopped" and [state_of(row) for row in study["trials"]] == ["stopped", "running", "waiting"]
    elsewhere.release()
