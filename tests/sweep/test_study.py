"""A study on the disk: what it knows after its controller died, what it refuses, what Optuna is told."""

import json
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from gptshake.errors import RecordError
from gptshake.record.index import read_study
from gptshake.record.lock import RunLock, read_heartbeat
from gptshake.report.study_stats import run_seconds
from gptshake.sweep.protocols import Host
from gptshake.sweep.rows import Header, RunRow, TrialRow
from gptshake.sweep.session import _held, _show_alive
from gptshake.sweep.space import Axis, Params
from gptshake.sweep.study import Study

AXES = [
    Axis("lr", 1e-5, 1e-2, log=True, declared=1e-3),
    Axis("batch", 8, 256, log=True, integer=True, powers=True),
    Axis("scheduler", choices=("gpt3", "cosine")),
]
POINT: Params = {"lr": 1.2345e-3, "batch": 64, "scheduler": "cosine"}


def header(axes: list[Axis] = AXES, **changes: Any) -> Header:
    facts: dict[str, Any] = {
        **{"name": "mine", "program": "gptshake", "objective": "val/bpb", "direction": "minimize", "label": "", "fixed": ["model=tiny"]},
        **{"axes": [axis.plain() for axis in axes], "search": "sampled", "n_trials": 20, "repeats": 1, "tokens": 1000, "slots": 2},
        **{"device": "", "seconds": 1.0, "ablate": None, "seed_key": "seed", "frozen": ["trainer.threads=1"], "code": {"commit": "a"}},
    }
    return Header(**(facts | changes))


def study(folder: Path, axes: list[Axis] = AXES, may_differ: bool = True, **changes: Any) -> Study:
    host = Host()
    host.dirty = may_differ
    return Study(folder, header(axes, **changes), axes, host=host)


def run_trial(it: Study, params: Params, state: str, value: float | None = None, **sampler: Any) -> TrialRow:
    number, point = it.ask(params, **sampler)
    row = TrialRow(number, point, [axis.override(point[axis.key]) for axis in it.axes], [RunRow(str(number), 0, None, state=state)])
    it.begin(row)
    if state != "running":
        row.state, row.value, row.reason = state, value, None if state == "ok" else "why"
        it.tell(row)
    return row


def test_another_controller_finds_everything_as_it_was(tmp_path: Path) -> None:
    first = study(tmp_path)
    run_trial(first, POINT, "ok", 2.5)
    run_trial(first, POINT | {"lr": 1e-4}, "pruned")
    run_trial(first, POINT | {"lr": 1e-2}, "diverged")
    run_trial(first, POINT | {"batch": 8}, "failed")
    run_trial(first, POINT | {"batch": 16}, "running")
    first.write()
    second = study(tmp_path)
    assert [trial.state for trial in second.trials.values()] == ["ok", "pruned", "diverged", "failed", "running"]
    assert second.trials[0].params == POINT and second.trials[0].value == 2.5
    assert second.trials[0].overrides == ["lr=0.0012345", "batch=64", "scheduler=cosine"]
    assert second.trials[2].reason == "why" and second.trials[4].reason is None
    assert [point.value for point in second.points()] == [2.5, None, None, None, None]
    assert second.trials[0].runs[0].path == "0"


def test_the_journal_knows_what_study_json_has_missed(tmp_path: Path) -> None:
    first = study(tmp_path)
    run_trial(first, POINT, "ok", 2.5)  # never written: the controller was killed
    second = study(tmp_path)
    assert second.trials[0].params == POINT and second.trials[0].value == 2.5 and second.trials[0].runs == []


def test_what_a_killed_controller_leaves_in_the_journal_is_mended(tmp_path: Path) -> None:
    run_trial(study(tmp_path), POINT, "ok", 2.5)
    (tmp_path / "journal.log.lock").touch()
    with (tmp_path / "journal.log").open("a") as file:
        file.write('{"op_code": 4, "wor')
    second = study(tmp_path)
    run_trial(second, POINT | {"batch": 8}, "ok", 2.25)
    assert [trial.value for trial in study(tmp_path).trials.values()] == [2.5, 2.25]


@pytest.mark.parametrize(
    ("changes", "axes", "part"),
    [
        (
            {},
            [Axis("lr", 1e-5, 1e-1, log=True), *AXES[1:]],
            "range of lr: was low 1e-05, high 0.01, log True, would be low 1e-05, high 0.1",
        ),
        ({}, AXES[:2], "range of scheduler: was choices ['gpt3', 'cosine'], would be nothing"),
        ({"fixed": ["model=baby"]}, AXES, "model: was model=tiny, would be model=baby"),
        ({"fixed": ["model=tiny", "seed=3"]}, AXES, "seed: was nothing, would be seed=3"),
        ({"direction": "maximize"}, AXES, "study's direction: was minimize, would be maximize"),
        ({"repeats": 3}, AXES, "study's repeats: was 1, would be 3"),
    ],
)
def test_a_study_about_something_else_is_refused_with_the_difference(changes: Any, axes: list[Axis], part: str, tmp_path: Path) -> None:
    study(tmp_path)
    with pytest.raises(RecordError) as error:
        study(tmp_path, axes, **changes)
    assert part in str(error.value) and "study=<name>" in str(error.value)


def test_a_study_whose_schedule_would_be_another_by_todays_defaults_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    study(tmp_path / "old", AXES)  # it does not say
    study(tmp_path / "old", AXES, schedule="wsd, warm-up 160 steps, 16 % of the run")
    study(tmp_path / "new", AXES, schedule="gpt3, warm-up 10 steps, 1 % of the run")
    with pytest.raises(RecordError, match="study's schedule: was gpt3, warm-up 10 steps, 1 % of the run, would be wsd, warm-up 160 steps"):
        study(tmp_path / "new", AXES, schedule="wsd, warm-up 160 steps, 16 % of the run")


def test_where_it_is_kept_and_shown_and_how_long_it_lasts_may_change(tmp_path: Path) -> None:
    study(tmp_path)
    again = study(
        tmp_path, fixed=["model=tiny", "logger=none", "note='x'", "paths.cache=/tmp/x"], n_trials=50, slots=8, frozen=["trainer.threads=9"]
    )
    assert again.header.n_trials == 50 and again.header.frozen == ["trainer.threads=1"]


def test_what_a_run_took_under_earlier_controllers_stays_counted(tmp_path: Path) -> None:
    first = study(tmp_path)
    stopped, killed, ended = (run_trial(first, POINT | {"batch": batch}, "running").runs[0] for batch in (8, 16, 32))
    now = first.now()
    stopped.state, stopped.started, stopped.ended, stopped.spent = "stopped", now - 100, now - 70, 5.0
    killed.started = now - 60  # its controller has last written now
    ended.state, ended.started, ended.ended = "ok", now - 50, now - 40
    first.write()
    updated, lock = read_study(tmp_path)["updated"], RunLock(tmp_path)  # as the next controller does
    runs = [trial.runs[0] for trial in study(tmp_path).trials.values()]
    assert [round(run.spent) for run in runs] == [35, 60, 0]
    assert [(run.state, run.started) for run in runs] == [("waiting", None), ("waiting", updated), ("ok", now - 50)]
    lock.release()
    assert run_seconds({"started": 0.5, "ended": 10.5, "spent": 35.0}) == 45.0


def test_other_code_is_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    study(tmp_path, may_differ=False)
    study(tmp_path, may_differ=False)
    with pytest.raises(RecordError, match="commit: was a, is b"):
        study(tmp_path, may_differ=False, code={"commit": "b"})
    assert study(tmp_path, may_differ=True, code={"commit": "b"}).trials == {}


def test_a_wished_point_may_lie_outside_of_the_range(tmp_path: Path) -> None:
    row = run_trial(study(tmp_path), POINT | {"lr": 0.5, "batch": 512}, "ok", 3.0)
    assert study(tmp_path).trials[row.number].params == POINT | {"lr": 0.5, "batch": 512}


def test_an_empty_point_is_the_samplers_choice_in_digits_for_people(tmp_path: Path) -> None:
    it = study(tmp_path)
    chosen = [run_trial(it, {}, "ok", float(seed), sampler=optuna.samplers.RandomSampler(seed=seed)).params for seed in range(8)]
    assert len({json.dumps(point) for point in chosen}) == 8
    for point in chosen:
        assert 1e-5 <= point["lr"] <= 1e-2 and point["lr"] == float(f"{point['lr']:.3g}")
        assert point["batch"] in (8, 16, 32, 64, 128, 256) and point["scheduler"] in ("gpt3", "cosine")
    assert [trial.params for trial in study(tmp_path).trials.values()] == chosen


@pytest.mark.parametrize(("direction", "best", "sign"), [("minimize", 1, 1), ("maximize", 2, -1)])
def test_the_best_is_the_lowest_or_the_highest(direction: str, best: int, sign: int, tmp_path: Path) -> None:
    it = study(tmp_path, direction=direction)
    for batch, value in ((8, 2.0), (16, 1.0), (32, 3.0)):
        run_trial(it, POINT | {"batch": batch}, "ok", value)
    run_trial(it, POINT | {"batch": 64}, "pruned")
    assert next(trial.number for trial in it.ranking()) == best and len(it.ranking()) == 3
    assert [point.value for point in it.points()] == [sign * 2.0, sign * 1.0, sign * 3.0, None]


def test_reports_reach_the_pruner_on_the_axis_of_tokens(tmp_path: Path) -> None:
    it = Study(tmp_path, header(), AXES, pruner=optuna.pruners.ThresholdPruner(upper=5.0))
    row = run_trial(it, POINT, "running")
    assert it.report(row.number, 4.0, 100) is False
    assert it.report(row.number, 6.0, 200) is True


def test_a_task_without_a_number_is_run_but_not_ranked(tmp_path: Path) -> None:
    run_trial(study(tmp_path), POINT, "ok", None)
    again = study(tmp_path)
    assert again.trials[0].state == "ok" and again.ranking() == [] and again.failures() is None


def test_a_point_that_came_through_in_the_end_is_no_failure(tmp_path: Path) -> None:
    it = study(tmp_path)
    run_trial(it, POINT, "failed")
    run_trial(it, POINT | {"batch": 8}, "failed")
    run_trial(it, POINT, "ok", 2.0)
    assert "1 of 2 trials failed" in (it.failures() or "") and "why" in (it.failures() or "")


def test_changes_that_compare_points_have_the_last_word_in_a_run(tmp_path: Path) -> None:
    it = study(tmp_path, AXES[:1], fixed=["trainer.max_steps=10", "model=tiny"])
    row = TrialRow(0, {"lr": 1e-3}, ["lr=0.001", "trainer.max_steps=null"], [RunRow("0/1", 1, 8)])
    task = it.task(row, row.runs[0])
    assert task["overrides"] == ["lr=0.001", "trainer.max_steps=10", "model=tiny", "trainer.threads=1", "trainer.max_steps=null", "seed=8"]
    assert (task["path"], task["number"], task["repeat"]) == ("0/1", 0, 1)


def test_a_damaged_study_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{")
    with pytest.raises(RecordError, match=r"study\.json is damaged"):
        study(tmp_path)


def test_a_study_without_its_journal_was_kept_elsewhere_and_is_left_alone(tmp_path: Path) -> None:
    run_trial(it := study(tmp_path), POINT, "ok", 2.5)
    it.write()
    (tmp_path / "journal.log").unlink()
    before = (tmp_path / "study.json").read_bytes()
    with pytest.raises(RecordError, match=r"has no journal\.log: it was kept in another storage .*start a new study with study=<name>"):
        study(tmp_path)
    assert (tmp_path / "study.json").read_bytes() == before and not (tmp_path / "journal.log").exists()


def test_a_study_whose_folder_was_renamed_keeps_its_trials(tmp_path: Path) -> None:
    run_trial(study(tmp_path), POINT, "ok", 2.5)
    assert [trial.value for trial in study(tmp_path, name="other").trials.values()] == [2.5]


def test_a_study_of_before_there_were_confirmation_runs_in_its_header_goes_on(tmp_path: Path) -> None:
    study(tmp_path)
    rows = json.loads((tmp_path / "study.json").read_text())
    del rows["confirm_runs"], rows["deadline"]
    (tmp_path / "study.json").write_text(json.dumps(rows))
    assert study(tmp_path).trials == {}


def test_a_study_shows_that_it_is_alive_to_hosts_that_do_not_see_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[dict[str, Any]] = []
    with _held(tmp_path / "s") as lock:
        first, later = read_heartbeat(tmp_path / "s"), time.monotonic() + 60
        monkeypatch.setattr(time, "monotonic", lambda: later)
        _show_alive(lock, shown.append, {"trials": []})
        last = read_heartbeat(tmp_path / "s")
    assert first and last and last["time"] > first["time"] and shown == [{"trials": []}]
