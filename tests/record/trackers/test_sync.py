"""``task=sync`` through the real command line, against a server of our own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.lock import RunLock
from gptshake.record.run import Run
from gptshake.record.trackers import process as tracker_module
from gptshake.record.trackers.wandb import WandbTracker

pytestmark = pytest.mark.slow


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def recorded(folder: Path, number: int, *, mirrored: bool = True) -> Run:
    """The record of an offline run of four steps that has ended."""
    name = f"20261124-1310-tiny-text_char-book-t000000{number}"
    config = "logger:\n  project: mine\n  every: 2\n  artifacts: none\n"
    run = Run.create(folder / name, id=f"t000000{number}", name=name, task="train", config_yaml=config, overrides=[])
    for step in range(1, 5):
        run.append_row({"step": step, "train/tokens": 100 * step, "train/loss": 4 / step})
    run.sample(4, 400, "a text")
    run.finish("ok", None, {"val/bpb": 2.0})
    if mirrored:
        tracker = WandbTracker(project="mine", mode="offline", every=2)
        tracker.start(run)
        tracker.finish()
    return run


def steps(server: Any, run_id: str) -> list[int]:
    return [json.loads(line)["_step"] for _, line in sorted(server.runs[run_id]["history"].items())]


def told(run: Run) -> dict[str, Any]:
    return dict(json.loads((run.path / "run.json").read_text())["wandb"])


def test_a_run_at_work_waits_for_its_end_and_a_broken_record_costs_the_others_nothing(runs: Path, server: Any, light_commands: Any) -> None:
    run = recorded(runs, 1)
    run.update(status="running")
    lock = RunLock(run.path)
    assert "t0000001  tiny · text_char · book  still running; upload it when it has ended" in light_commands(runs.parent, "task=sync").out
    lock.release()
    (run.path / "run.json").write_text("{")
    done = light_commands(runs.parent, "task=sync", f"task.run={run.path}")
    assert done.code == 0 and "broken: " in done.out and server.runs == {}, done.out + done.err


def test_offline_runs_are_uploaded_later_under_their_ids_and_only_once(runs: Path, server: Any, light_commands: Any) -> None:
    first, second = recorded(runs, 1), recorded(runs.parent / "multirun/study", 2)
    done = light_commands(runs.parent, "task=sync")
    assert done.code == 0, done.err
    assert set(server.runs) == {"t0000001", "t0000002"}
    assert steps(server, "t0000001") == [2, 4] and server.runs["t0000001"]["upserts"][0]["project"] == "mine"
    assert f"t0000002  tiny · text_char · book  uploaded {server.url}/me/mine/runs/t0000002" in done.out
    assert [told(run)["uploaded"] for run in (first, second)] == [True, True]
    assert told(first)["url"] == f"{server.url}/me/mine/runs/t0000001"
    server.runs.clear()
    again = light_commands(runs.parent, "task=sync")
    assert again.code == 0 and again.out.strip() == "W&B has every run." and server.runs == {}
    assert not (runs.parent / "wandb").exists()  # wandb's own logs do not lie about


def test_one_run_is_uploaded_by_name_even_if_it_had_no_mirror(runs: Path, server: Any, light_commands: Any) -> None:
    recorded(runs, 1, mirrored=False)
    recorded(runs, 2)
    unknown = light_commands(runs.parent, "task=sync", "task.run=t0000011")
    assert unknown.code == 2 and "did you mean t0000001" in unknown.error
    done = light_commands(runs.parent, "task=sync", "task.run=t0000001")
    assert done.code == 0, done.err
    assert set(server.runs) == {"t0000001"} and steps(server, "t0000001") == [2, 4]
    named_again = light_commands(runs.parent, "task=sync", "task.run=t0000001")
    assert named_again.code == 0 and "there already" in named_again.out


def test_what_is_not_whole_is_written_anew_and_what_cannot_be_holds_up_no_other(runs: Path, server: Any, light_commands: Any) -> None:
    killed, moved, busy, broken, bad = (recorded(runs, number) for number in (1, 2, 3, 4, 5))
    killed.update(status="running", wandb={"whole": False})
    next(killed.path.glob("wandb/*/*.wandb")).write_bytes(b"torn")
    shutil.move(moved.path, runs / "elsewhere")
    busy.update(status="running")
    (broken.path / "run.json").write_text("{")
    bad.update(wandb={"whole": False})
    (bad.path / "metrics.csv").write_text("step\nnonsense\n1\n")
    lease = RunLock(busy.path)
    done = light_commands(runs.parent, "task=sync")
    lease.release()
    assert done.code == 1 and "did not accept 1 run;" in done.error and "metrics.csv, line 2" in done.out and "still running" in done.out
    assert set(server.runs) == {"t0000001", "t0000002"}
    assert steps(server, "t0000001") == steps(server, "t0000002") == [2, 4]
    last = [json.loads(line) for _, line in sorted(server.runs["t0000001"]["history"].items())][-1]
    assert last["samples"]["nrows"] == 1
    assert len(list(killed.path.glob("wandb/superseded-1-*"))) == 1
    assert told(killed)["uploaded"] and not told(busy)["uploaded"] and not told(bad)["uploaded"]


@pytest.mark.parametrize(("trouble", "why"), [("no key", "no key"), ("unreachable", "refused")])
def test_without_key_or_network_it_says_so_and_loses_nothing(
    runs: Path, server: Any, light_commands: Any, monkeypatch: pytest.MonkeyPatch, within: Any, trouble: str, why: str
) -> None:
    run = recorded(runs, 1)
    before = sorted(run.path.rglob("*"))
    if trouble == "no key":
        monkeypatch.delenv("WANDB_API_KEY")
    else:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    done = light_commands(runs.parent, "task=sync")
    assert done.code == 1 and why in done.error and "1 run to upload, and nothing is lost" in done.error
    assert sorted(run.path.rglob("*")) == before and not told(run)["uploaded"]


def test_a_run_that_the_server_did_not_take_in_time_is_completed(
    runs: Path, server: Any, light_commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "FINISH_SECONDS", 0.5)
    identity: dict[str, Any] = {"id": "t0000003", "name": "a-name-t0000003"}
    run = Run.create(runs / "a", task="train", config_yaml="logger:\n  every: 1\n", overrides=[], **identity)
    tracker = WandbTracker(every=1)
    tracker.start(run)
    server.mode = "fail"
    for step in (1, 2):
        run.append_row({"step": step, "train/tokens": step})
        tracker.row({"step": step, "train/tokens": step})
    run.finish("ok")
    tracker.finish()
    server.mode = "ok"
    assert light_commands(runs.parent, "task=sync").code == 0
    assert steps(server, "t0000003") == [1, 2] and told(run)["uploaded"]


def test_another_tracker_gets_the_record_of_a_run_that_has_ended(runs: Path, commands: Any) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is an extra")
    run = recorded(runs, 1, mirrored=False)
    words = ("task=sync", "logger=tensorboard", "logger.every=2")
    done = commands(runs.parent, *words)
    assert done.code == 2 and "name one with task.run=" in done.error and not (run.path / "tensorboard").exists()
    for _ in range(2):
        done = commands(runs.parent, *words, "task.run=t0000001")
        assert done.code == 0, done.err
        found = events.EventAccumulator(str(run.path / "tensorboard"))
        found.Reload()
        assert [(event.step, event.value) for event in found.Scalars("train/loss")] == [(2, 2.0), (4, 1.0)]
    assert "wandb" not in json.loads((run.path / "run.json").read_text())


def test_a_tracker_that_takes_nothing_is_an_error_and_a_run_at_work_is_refused(runs: Path, commands: Any) -> None:
    run = recorded(runs, 1, mirrored=False)
    words = (
        "task=sync",
        "logger=none",
        "+logger._target_=pytorch_lightning.loggers.CSVLogger",
        "+logger.save_dir=/dev/null/no",
        "task.run=latest",
    )
    done = commands(runs.parent, *words)
    assert done.code == 1 and "is not written there: " in done.error and "the same command tries again" in done.error
    lock = RunLock(run.path)
    assert commands(runs.parent, *words).code == 2
    lock.release()
