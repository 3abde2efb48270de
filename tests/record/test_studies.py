import json
from pathlib import Path

import pytest

from gptshake.errors import RecordError
from gptshake.record.studies import find_study, find_sweep, read_rows_of


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
    assert read_rows_of(multirun / "night1")["name"] == "night1"
    with pytest.raises(RecordError, match="did you mean night1"):
        find_study("nigth1", multirun)


def test_a_sweep_may_be_of_the_basic_sweeper(multirun: Path) -> None:
    assert find_sweep("night1", multirun) == multirun / "night1"
    assert find_sweep("20261124-0031", multirun) == multirun / "20261124-0031"


@pytest.mark.parametrize("text", ["", ".", "nothing", "nowhere", "20261124-0031/0", ".."])
def test_what_holds_no_runs_is_no_sweep(multirun: Path, text: str) -> None:
    assert find_sweep(text, multirun) is None
