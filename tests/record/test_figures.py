import os
import time
from pathlib import Path

import pytest

from gptshake.record.index import Entry
from gptshake.record.metrics import MetricsWriter

ROWS = (
    {"step": 1, "train/tokens": 64, "train/loss": 4.0, "val/loss": 4.5, "val/bpb": 6.0, "time": 1010.0},
    {"step": 2, "train/tokens": 128, "train/loss": 3.0, "perf/tokens_per_s": 500.0, "time": 1020.0},
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    writer = MetricsWriter(tmp_path / "metrics.csv")
    for row in ROWS:
        writer.append(row)
    writer.close()
    return tmp_path


def test_the_summary_counts_and_the_rows_fill_what_it_lacks(run: Path) -> None:
    info = {"started": 1000.0, "finished": 1030.0, "summary": {"val/bpb": 5.0, "test/bpb": 5.5, "train/tokens": 128, "wrong": None}}
    assert Entry(run, "ok", info).figures == {
        **{"val/bpb": 5.0, "test/bpb": 5.5, "train/tokens": 128.0},
        **{"val/loss": 4.5, "train/loss": 3.0, "perf/tokens_per_s": 500.0, "time": 30.0},
    }


def test_of_a_run_at_work_the_rows_count_not_what_an_earlier_sitting_told(run: Path) -> None:
    info = {"started": time.time() - 50, "finished": 1030.0, "summary": {"train/tokens": 64}, "wall_s": 3.0}
    found = Entry(run, "running", info).figures
    assert found["train/tokens"] == 128 and found["time"] == pytest.approx(50, abs=5)


def test_the_time_is_that_of_all_sittings_if_it_is_known_else_up_to_the_last_step(run: Path) -> None:
    assert Entry(run, "ok", {"started": 1000.0, "finished": 9000.0, "wall_s": 42.5}).figures["time"] == 42.5
    assert Entry(run, "killed", {"started": 1000.0}).figures["time"] == 20.0


@pytest.mark.parametrize("status", ["running", "killed"])
def test_the_time_of_a_run_that_has_not_ended_follows_no_clock_that_is_set(run: Path, status: str) -> None:
    sittings = [{"started": 10.0, "ended": 40.0}, {"started": 1000.0}]
    assert Entry(run, status, {"started": 10.0, "wall_s": 30.0, "sittings": sittings}).figures["time"] == 30 + 20
    assert Entry(run, status, {"started": 10.0, "sittings": [{"started": 1.8e9}]}).figures["time"] == 0  # no row of this sitting yet


def test_a_run_that_was_killed_in_its_first_step_took_until_its_last_heartbeat(tmp_path: Path) -> None:
    (tmp_path / "lease.json").touch()
    os.utime(tmp_path / "lease.json", (1025.0, 1025.0))
    assert Entry(tmp_path, "killed", {"started": 1000.0, "sittings": [{"started": 1000.0}]}).figures["time"] == 25


@pytest.mark.parametrize("info", [{}, {"summary": 3, "started": "yesterday"}, {"summary": {"val/bpb": float("nan")}, "wall_s": True}])
def test_a_damaged_record_has_the_figures_of_its_rows(run: Path, info: dict[str, object]) -> None:
    assert Entry(run, "broken", info).figures["val/bpb"] == 6.0
    assert Entry(run / "nowhere", "broken", info).figures == {}
