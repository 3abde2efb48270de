"""A logger of Lightning's as a tracker."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from gptshake.errors import ConfigError
from gptshake.record.run import Run
from gptshake.record.trackers.protocol import as_tracker
from gptshake.record.trackers.wandb import WandbTracker


def rows(folder: Path) -> list[dict[str, str]]:
    (file,) = folder.rglob("metrics.csv")
    return list(csv.DictReader(file.read_text().splitlines()))


def row(step: int, **more: float) -> dict[str, float]:
    return {"step": step, "train/tokens": 64 * step, "train/loss": 4 / step, "time": 1.8e9} | more


def test_a_lightning_logger_gets_config_history_and_rows(run: Run, tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    run.append_row(row(3, **{"val/loss": 2.5}))
    tracker = as_tracker(CSVLogger(tmp_path / "csv", flush_logs_every_n_steps=1))
    tracker.start(run)
    for step in (10, 11, 20):
        tracker.row(row(step))
    run.finish("ok")
    tracker.finish()
    tracker.finish()
    assert [(one["step"], one["train/loss"]) for one in rows(tmp_path / "csv")] == [("3", str(4 / 3)), ("10", "0.4"), ("20", "0.2")]
    assert rows(tmp_path / "csv")[0]["val/loss"] == "2.5"
    (hyperparameters,) = (tmp_path / "csv").rglob("hparams.yaml")
    assert yaml.safe_load(hyperparameters.read_text())["optimizer"] == {"lr": 0.001}


@pytest.mark.parametrize("broken", ["log_metrics", "save"])
@pytest.mark.parametrize(("error", "words"), [(OSError("disk full"), "disk full"), (AssertionError(), "AssertionError")])
def test_a_lightning_logger_that_fails_is_left_out_with_one_sentence(broken: str, error: Exception, words: str, run: Run) -> None:
    class Broken:
        log_hyperparams = log_metrics = save = finalize = lambda *_: None

    def fail(*_: Any) -> None:
        raise error

    setattr(Broken, broken, fail)
    tracker = as_tracker(Broken())
    tracker.start(run)
    for step in (10, 20):
        tracker.row(row(step))
    tracker.finish()
    assert (run.path / "log").read_text().count("Broken failed and is left out") == 1 and tracker.problem == words


def test_what_is_no_logger_is_refused_and_ours_stays_itself() -> None:
    with pytest.raises(ConfigError, match="gives a dict, which is neither"):
        as_tracker({})
    tracker = WandbTracker()
    assert as_tracker(tracker) is tracker


def test_a_lightning_logger_is_named_on_the_command_line(commands: Any, book: Path, tmp_path: Path) -> None:
    small = ("model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "trainer=cpu", "trainer.threads=1")
    logger = ("logger=none", "+logger._target_=pytorch_lightning.loggers.CSVLogger", "+logger.save_dir=csv")
    steps = ("data.batch_size=8", "trainer.max_steps=10", "callbacks=none")
    done = commands(tmp_path, "model=tiny", "data=text_char", f"data.path={book}", *small, *steps, *logger)
    assert done.code == 0, done.err
    assert [one["step"] for one in rows(tmp_path / "csv")] == ["0", "10"] or [one["step"] for one in rows(tmp_path / "csv")][-1] == "10"


def test_a_class_with_the_methods_of_a_tracker_is_one(run: Run) -> None:
    class Mine:
        start = row = sample = image = finish = lambda *_: None

    mine = Mine()
    assert as_tracker(mine) is mine


def test_a_logger_that_is_refused_leaves_no_directory(commands: Any, book: Path, tmp_path: Path) -> None:
    done = commands(
        tmp_path, "model=tiny", "data=text_char", f"data.path={book}", "logger=none", "+logger._target_=builtins.dict", "paths.run_dir=mine"
    )
    assert done.code == 2 and "gives a dict" in done.error
    assert not (tmp_path / "mine").exists()
