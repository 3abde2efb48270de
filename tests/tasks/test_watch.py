"""What ``task=watch`` shows of runs at work, without waiting for any."""

import math
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from gptshake.console import Console
from gptshake.record.index import Entry, read_entry
from gptshake.record.metrics import MetricsWriter
from gptshake.record.run import Run
from gptshake.report.runs_table import COLUMNS
from gptshake.tasks import watch
from gptshake.tasks.watch import Curve, progress, screen

BUDGET = {"tokens": 10_000, "steps": 100, "tokens_per_step": 100}


def at_work(path: Path, id: str, steps: int, **fields: object) -> Entry:
    run = Run.create(path, id=id, name=f"20261124-0031-tiny-{id}", task="train", config_yaml="seed: 1\n", overrides=[], budget=BUDGET)
    run.begin_session({})
    for step in range(1, steps + 1):
        run.append_row({"step": step, "train/tokens": 100 * step, "train/loss": 4.0 - step / 100, "time": run.info["started"] + step})
    run.flush()
    run.update(**fields)
    return read_entry(path)


def test_progress_is_the_share_of_the_planned_tokens_and_the_rest_at_the_speed_so_far(tmp_path: Path) -> None:
    assert progress(at_work(tmp_path / "a", "aaaaaaaa", 0)) == "starts"
    assert progress(at_work(tmp_path / "b", "bbbbbbbb", 25)) == "25 %, left 1 min 15 s"
    assert progress(at_work(tmp_path / "c", "cccccccc", 25, extended={"trainer.max_steps": 50})) == "50 %, left 25 s"
    assert progress(at_work(tmp_path / "d", "dddddddd", 150, extended={"trainer.max_tokens": 20_000})) == "15k tokens"


@pytest.mark.parametrize("height", [4, 8, 24, 60])
def test_a_screen_has_no_more_lines_than_the_terminal_and_says_what_is_left_out(tmp_path: Path, height: int) -> None:
    entries = [at_work(tmp_path / f"{n:08}", f"{n:08}", 20) for n in range(6)]
    shown = screen(entries, {}, 100, height)
    rows = [line for line in shown if line.startswith("0000")]
    assert len(shown) <= height and (len(rows) == 6 or f"and {6 - len(rows)} more" in shown)
    assert any("train/loss" in line for line in shown) is (height >= 24)


def test_without_a_run_at_work_it_says_so() -> None:
    assert screen([], {}, 80, 24) == ["No run is at work here."]


def test_a_curve_is_read_on_from_where_it_ended_and_anew_where_the_run_went_back(tmp_path: Path) -> None:
    writer, curve = MetricsWriter(tmp_path / "metrics.csv"), Curve(tmp_path)

    def write(*steps: int, loss: float) -> list[list[float]]:
        for step in steps:
            writer.append({"step": step, "train/tokens": 10 * step, "train/loss": loss})
        return [values.tolist() for values in curve.points()]

    assert write(loss=4.0) == [[], []]
    assert write(1, 2, 3, loss=4.0) == [[10, 20, 30], [4, 4, 4]]
    assert write(4, loss=3.0) == [[10, 20, 30, 40], [4, 4, 4, 3]]
    writer.cut(2)
    assert write(3, loss=2.0) == [[10, 20, 30], [4, 4, 2]]
    assert write(4, loss=math.nan) == [[10, 20, 30], [4, 4, 2]]


@pytest.mark.parametrize("columns", [80, 90, 100])
def test_a_table_that_fills_the_terminal_keeps_its_last_figure(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work(
        tmp_path / "runs" / "a", "aaaaaaaa", 20, note="a long note " * 9, summary={"val/bpb": 2.1234}, overrides=["model.n_embd=96"] * 9
    )
    shown: list[str] = []
    console = Console()
    console.terminal = console.renews = True
    monkeypatch.setattr(console, "size", lambda: os.terminal_size((columns, 30)))
    monkeypatch.setattr(console, "write", shown.append)
    monkeypatch.setattr(watch, "Console", lambda: console)
    monkeypatch.setattr(watch, "is_alive", lambda path: True)
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: 1 / 0)
    config = OmegaConf.create({"paths": {"runs": str(tmp_path / "runs"), "multirun": ""}, "task": {"html": None, "seconds": 1}})
    with pytest.raises(ZeroDivisionError):
        watch.run(SimpleNamespace(config=config))  # type: ignore[arg-type]
    assert shown[0].splitlines()[0].split()[-1] in COLUMNS
