"""MLflow and trackio: what lies in their databases after a run, a resume and a failure."""

import json
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gptshake.record.run import Run
from gptshake.record.trackers import process
from gptshake.record.trackers.mlflow import MlflowTracker
from gptshake.record.trackers.process import ProcessTracker
from gptshake.record.trackers.trackio import TrackioTracker
from gptshake.tasks import sync

pytestmark = [pytest.mark.trackers, pytest.mark.slow]
REASON = "make test-trackers installs it"
Steps = dict[str, list[tuple[int, float]]]  # metric -> steps and values, in the order of the database


@pytest.fixture(autouse=True)
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    beside = Path(pytest.importorskip("mlflow", reason=REASON).__file__).parents[1]
    pytest.importorskip("trackio", reason=REASON)
    monkeypatch.setenv("PYTHONPATH", str(beside))  # for the tracker's own process
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(process, "FINISH_SECONDS", 60.0)  # a busy machine imports slowly
    yield


def in_mlflow(folder: Path, run_id: str) -> Any:
    """The one MLflow run of a run, by MLflow's own client."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (found,) = client.search_runs(["1"], f"tags.`gptshake.id` = '{run_id}'")
    return client, found


def steps_in_mlflow(folder: Path, run_id: str) -> Steps:
    client, found = in_mlflow(folder, run_id)
    return {name: [(one.step, one.value) for one in client.get_metric_history(found.info.run_id, name)] for name in found.data.metrics}


def rows_in_trackio(folder: Path) -> list[tuple[int, dict[str, Any]]]:
    with sqlite3.connect(folder / "trackio" / "gptshake.db") as database:
        return [(step, json.loads(metrics)) for step, metrics in database.execute("SELECT step, metrics FROM metrics ORDER BY id")]


def steps_in_trackio(folder: Path, run_id: str) -> Steps:
    found: Steps = {}
    for step, metrics in rows_in_trackio(folder):
        for name, value in metrics.items():
            if isinstance(value, float | int):
                found.setdefault(name, []).append((step, value))
    return found


BOTH = pytest.mark.parametrize(("kind", "steps_of"), [(MlflowTracker, steps_in_mlflow), (TrackioTracker, steps_in_trackio)])


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "train/tokens": 100 * step, "train/loss": 4 / step, "time": 1.8e9 + step, **more}


def go(run: Run, tracker: ProcessTracker, steps: range) -> None:
    for step in steps:
        run.append_row(row(step))
        tracker.row(row(step))


def said(run: Run) -> str:
    return (run.path / "log").read_text()


@BOTH
def test_every_row_is_there_with_the_figures_of_the_end(run: Run, tmp_path: Path, kind: Any, steps_of: Callable[..., Steps]) -> None:
    tracker = kind(every=2)
    tracker.start(run)
    go(run, tracker, range(1, 5))
    run.append_row(row(5, **{"val/loss": 1.5}))
    run.finish("ok", None, {"best/val/loss": 1.5, "val/loss": 1.5, "train/tokens": 500})
    tracker.finish()
    found = steps_of(tmp_path, run.id)
    assert found["train/loss"] == [(2, 2.0), (4, 1.0), (5, 0.8)]
    assert found["val/loss"] == [(5, 1.5)] and found["best/val/loss"] == [(5, 1.5)]


@BOTH
def test_the_record_of_a_run_that_has_ended_is_written_later_and_once(
    run: Run, tmp_path: Path, kind: Any, steps_of: Callable[..., Steps]
) -> None:
    for step in range(1, 6):
        run.append_row(row(step))
    run.finish("ok", None, {"best/val/loss": 1.5})
    for _ in range(2):
        sync.write_to(run.path, [kind(every=2)])
        found = steps_of(tmp_path, run.id)
        assert found["train/loss"] == [(2, 2.0), (4, 1.0)] and [value for _, value in found["best/val/loss"]] == [1.5]


def test_mlflow_has_parameters_files_status_and_the_times_of_the_steps(run: Run, tmp_path: Path) -> None:
    (run.path / "plots").mkdir()
    (run.path / "plots/loss.png").write_bytes(b"png")
    run.append_row(row(1))
    run.sample(1, 100, "To be")
    tracker = MlflowTracker(every=1)
    tracker.start(run)
    run.finish("interrupted")
    tracker.finish()
    client, found = in_mlflow(tmp_path, run.id)
    assert (found.info.run_name, found.info.status) == (run.name, "KILLED")
    assert found.data.params["optimizer.lr"] == "0.001" and found.data.params["derived.model.parameters"] == "4640"
    assert found.data.tags["mlflow.note.content"] == "why not?" and "model:tiny" in found.data.tags["tags"]
    assert {file.path for file in client.list_artifacts(found.info.run_id)} == {"config.yaml", "overrides", "plots", "samples.md"}
    assert [file.path for file in client.list_artifacts(found.info.run_id, "plots")] == ["plots/loss.png"]
    assert [one.timestamp for one in client.get_metric_history(found.info.run_id, "train/loss")] == [1_800_000_001_000]
    assert run.info["mlflow"]["run_id"] == found.info.run_id


def test_trackio_has_the_config_samples_and_pictures_whatever_their_names(run: Run, tmp_path: Path) -> None:
    from PIL import Image

    (run.path / "plots").mkdir()
    for name in ("loss", "metrics"):  # a metric has the name of one, and trackio keeps the other for itself
        Image.new("RGB", (8, 8)).save(run.path / f"plots/{name}.png")
    run.append_row(row(1) | {"loss": 2.5})
    run.sample(1, 100, "To be")
    tracker = TrackioTracker(every=1)
    tracker.start(run)
    run.finish("ok")
    tracker.finish()
    logged = {name: value for _, metrics in rows_in_trackio(tmp_path) for name, value in metrics.items()}
    assert "To be" in logged["samples"]["_value"] and logged["loss"] == 2.5 and "did not take" not in said(run)
    for name in ("plots/loss", "plots/metrics"):
        assert (tmp_path / "trackio/media" / logged[name]["file_path"]).is_file()
    with sqlite3.connect(tmp_path / "trackio/gptshake.db") as database:
        (config,) = database.execute("SELECT config FROM configs").fetchone()
    assert json.loads(config)["optimizer.lr"] == 0.001


@BOTH
@pytest.mark.parametrize("killed", [False, True])
def test_a_resumed_run_has_every_step_once(run: Run, tmp_path: Path, kind: Any, steps_of: Callable[..., Steps], killed: bool) -> None:
    tracker = kind(every=1)
    tracker.start(run)
    go(run, tracker, range(1, 7))
    run.flush()
    if killed:
        tracker.wait_for_start()
        time.sleep(1.5)
        os.killpg(tracker._child.process.pid, signal.SIGKILL)
    else:
        run.finish("interrupted")
    tracker.finish()
    run = Run.open(run.path)
    run.cut_rows(4)  # as of the last checkpoint
    tracker = kind(every=1)
    tracker.start(run)
    go(run, tracker, range(5, 10))
    run.finish("ok")
    tracker.finish()
    assert steps_of(tmp_path, run.id)["train/loss"] == [(step, 4 / step) for step in range(1, 10)]


def test_a_run_that_went_back_for_another_schedule_is_a_new_run_in_mlflow(run: Run, tmp_path: Path) -> None:
    for redecays, first in ((0, 1), (1, 4)):
        run = Run.open(run.path)
        run.update(redecays=redecays)
        run.cut_rows(first - 1)
        tracker = MlflowTracker(every=1)
        tracker.start(run)
        go(run, tracker, range(first, 7))
        run.finish("ok")
        tracker.finish()
    for identity in (run.id, f"{run.id}/redecay-1"):
        assert [step for step, _ in steps_in_mlflow(tmp_path, identity)["train/loss"]] == list(range(1, 7))


def test_more_metrics_than_one_call_takes_all_arrive(run: Run, tmp_path: Path) -> None:
    for step in range(1, 1201):
        run.append_row(row(step))
    tracker = MlflowTracker(every=1)
    tracker.start(run)
    run.finish("ok")
    tracker.finish()
    assert [step for step, _ in steps_in_mlflow(tmp_path, run.id)["train/loss"]] == list(range(1, 1201))


def test_runs_that_begin_at_once_share_a_new_database(tmp_path: Path) -> None:
    runs = [Run.create(tmp_path / name, id=name, name=name, config_yaml="seed: 1", overrides=[]) for name in ("a", "b", "c")]
    trackers = [MlflowTracker(every=1) for _ in runs]
    for run, tracker in zip(runs, trackers, strict=True):
        tracker.start(run)
    for run, tracker in zip(runs, trackers, strict=True):
        go(run, tracker, range(1, 4))
        run.finish("ok")
        tracker.finish()
        assert [step for step, _ in steps_in_mlflow(tmp_path, run.id)["train/loss"]] == [1, 2, 3]


@pytest.mark.parametrize("trouble", ["server gone", "no such folder", "locked"])
def test_a_store_that_cannot_be_had_costs_a_run_one_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: Any, trouble: str
) -> None:
    uri = {"server gone": "http://127.0.0.1:9", "no such folder": "sqlite:////proc/no/m.db", "locked": f"sqlite:///{tmp_path}/m.db"}[
        trouble
    ]
    database = sqlite3.connect(tmp_path / "m.db")
    database.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(process, "FINISH_SECONDS", 3.0)
    tracker = MlflowTracker(uri=uri)
    assert within(tracker.start, run) < 2
    assert within(go, run, tracker, range(1, 1000)) < 5
    run.finish("ok")
    assert within(tracker.finish) < 6
    assert said(run).count("MLflow failed") + said(run).count("MLflow did not take everything") == 1
    assert len(Run.open(run.path).rows()) == 999
    database.close()


def test_a_folder_that_trackio_cannot_write_to_costs_a_run_one_sentence(run: Run, tmp_path: Path) -> None:
    (tmp_path / "trackio").write_text("in the way")
    tracker = TrackioTracker()
    tracker.start(run)
    go(run, tracker, range(1, 21))
    run.finish("ok")
    tracker.finish()
    assert said(run).count("trackio failed and") + said(run).count("trackio did not take everything") == 1


def test_what_a_callback_of_ones_own_logs_arrives_in_both_after_a_resume_too(light_commands: Any, book: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import pytorch_lightning as pl\n"
        "class Mine(pl.Callback):\n"
        "    def on_train_batch_end(self, trainer, module, *_):\n"
        "        self.log('mine/step', float(trainer.global_step))\n"
    )
    small = ("model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "trainer=cpu", "trainer.threads=1")
    options = ("logger=[mlflow,trackio]", "logger.mlflow.every=1", "logger.trackio.every=1", "+callbacks.mine._target_=mine.Mine")
    options += ("callbacks=none", "scheduler=constant", "trainer.max_steps=6", "data.batch_size=8", "paths.run_dir=one")
    beside = f"import sys; sys.path.append({os.environ['PYTHONPATH']!r})"
    done = light_commands(tmp_path, "model=tiny", "data=text_char", f"data.path={book}", *small, *options, before=beside)
    assert done.code == 0, done.err
    run_id = json.loads((tmp_path / "one/run.json").read_text())["id"]
    done = light_commands(tmp_path, "resume=one", "+callbacks.mine._target_=mine.Mine", "trainer.max_steps=9", before=beside)
    assert done.code == 0, done.err
    for steps_of in (steps_in_mlflow, steps_in_trackio):
        found = steps_of(tmp_path, run_id)
        assert [step for step, _ in found["train/loss"]] == [*range(1, 10)] and [step for step, _ in found["mine/step"]] == [*range(1, 10)]
