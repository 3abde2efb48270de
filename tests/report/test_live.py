import copy
import io
import re
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from gptshake.report import live as module
from gptshake.report.live import Live, headline, left, screen
from gptshake.report.study_text import trial_table
from gptshake.report.tables import study_table

Make = Callable[..., dict[str, Any]]


class Terminal(io.StringIO):
    """A terminal that keeps what is visible on it."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        lines: list[str] = [""]
        for part in re.split(r"(\x1b\[\d*[AJ]|\r|\n)", self.getvalue()):
            if part.endswith("A"):
                row = len(lines) - 1 - int(part[2:-1])
                assert row >= 0, "the cursor went above the first line"
            elif part.endswith("J"):
                lines = lines[: row + 1]
                lines[-1] = ""
            elif part == "\n":
                lines.append("")
            elif part != "\r":
                lines[-1] += part
        return lines[:-1]


@pytest.fixture
def at_work(line: Make, rows: SimpleNamespace) -> Make:
    """A study at work: ``ended`` trials through, the next ``running``."""

    def make(ended: int, running: int = 0, **fields: Any) -> dict[str, Any]:
        study = line(state="running", n_trials=8, **fields)
        for trial in study["trials"][ended:]:
            trial |= {"state": "running", "value": None}
            trial["runs"][0] |= {"state": "running", "value": None, "ended": None, "tokens": 600_000}
        for trial in study["trials"]:
            trial["runs"][0]["ended"] = trial["runs"][0]["ended"] and time.time() + 5
            trial["runs"][0]["started"] = time.time() - 40
        del study["trials"][ended + running :]
        study["updated"] = time.time()
        return study

    return make


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that only goes when it is told to."""
    now = SimpleNamespace(s=0.0)
    monkeypatch.setattr(module.time, "monotonic", lambda: now.s)
    return now


def test_a_log_has_a_line_for_every_begin_and_every_end(at_work: Make) -> None:
    out = io.StringIO()
    live = Live(out)
    for study in (at_work(0, 1), at_work(1, 1), at_work(2)):
        live.update(study)
    live.close()
    first, second, third, fourth = out.getvalue().splitlines()
    assert first == "trial 0 begins: lr 1.25e-4 (slot 0)"
    assert re.fullmatch(
        r"trial 0 ok: lr 1\.25e-4 -> val/bpb 3\.0500 \| best 3\.0500 \(trial 0\) \| 45 s \| left about \d min \d\d s", second
    )
    assert third == "trial 1 begins: lr 2.5e-4 (slot 1)"
    assert fourth.startswith("trial 1 ok: lr 2.5e-4 -> val/bpb 2.7000 | best 2.7000 (trial 1)")


def test_an_interrupted_study_shows_its_open_trials_as_stopped_everywhere(at_work: Make) -> None:
    out, study = io.StringIO(), at_work(1, 2)
    live = Live(out)
    live.update(study)
    for trial in study["trials"][1:]:
        trial["runs"][0] |= {"state": "stopped", "ended": time.time()}
    live.update(study | {"state": "stopped"})
    assert [line.partition(":")[0] for line in out.getvalue().splitlines()][-2:] == ["trial 1 stopped", "trial 2 stopped"]
    shown = "\n".join(screen(study, 24, time.time()))
    assert shown.count(" stopped ") == 2 and "running" not in shown and "waiting" not in shown
    assert [cells[2] for cells in trial_table(study)[1]] == ["ok", "stopped", "stopped"]
    assert [cells[1] for cells in study_table(study)[1]] == ["ok", "stopped", "stopped"]


def test_the_same_rows_again_say_nothing(at_work: Make) -> None:
    out = io.StringIO()
    live = Live(out)
    study = at_work(3, 2)
    live.update(study)
    before = out.getvalue()
    live.update(copy.deepcopy(study))
    study["trials"][4]["runs"][0]["tokens"] += 1000
    live.update(study)
    assert out.getvalue() == before


def test_a_failure_is_told_with_its_reason_in_one_line(at_work: Make) -> None:
    out = io.StringIO()
    study = at_work(2)
    study["trials"][1] |= {"state": "failed", "value": None, "reason": "ValueError: one\n two"}
    study["trials"][1]["runs"][0] |= {"state": "failed", "value": None}
    Live(out).update(study)
    assert "trial 1 failed: lr 2.5e-4 | ValueError: one two | best 3.0500 (trial 0)" in out.getvalue().splitlines()[1]


def test_what_an_earlier_controller_ended_is_one_line(line: Make) -> None:
    out = io.StringIO()
    study = line(state="running", n_trials=12)
    for trial in study["trials"]:
        trial["runs"][0]["ended"] = time.time() - 3600
    live = Live(out)
    live.update(study)
    live.update(study)
    assert out.getvalue() == "resuming: 8 trials ended before | best so far trial 4, lr 2e-3, val/bpb 2.2500\n"


def test_the_best_so_far_is_one_of_the_trials_that_are_counted(line: Make, rows: SimpleNamespace) -> None:
    out, study = io.StringIO(), line(state="running", n_trials=12)
    for trial in study["trials"]:
        trial["runs"][0]["ended"] = time.time() - 3600
    study["trials"][4]["runs"][0]["ended"] = time.time() + 5  # the best ended while the command began
    study["confirm"] = [rows.trial(0, study["trials"][0]["params"], [2.0], path="confirm/")]
    Live(out).update(study)
    first, second = out.getvalue().splitlines()[:2]
    assert first.startswith("resuming: 7 trials ended before | best so far trial ") and "trial 4," not in first
    assert second.startswith("trial 4 ok: ")


def test_seeds_of_one_configuration_that_ended_before_are_seeds(rows: SimpleNamespace) -> None:
    out, study = io.StringIO(), rows.study([], [rows.trial(0, {}, [2.0, 2.2, 2.1])], repeats=3, state="running")
    for seed, (run, state) in enumerate(zip(study["trials"][0]["runs"], ("ok", "ok", "waiting"), strict=True)):
        run |= {"seed": seed, "state": state, "ended": time.time() - 3600 if state == "ok" else None}
    study["trials"][0]["state"] = "running"
    Live(out).update(study)
    assert out.getvalue() == "resuming: 2 seeds ended before\n"


def test_repeats_are_one_trial(rows: SimpleNamespace) -> None:
    out = io.StringIO()
    live = Live(out)
    study = rows.study([rows.LR], [rows.trial(0, {"optimizer.lr": 1e-3}, [2.0, 2.2, 2.1])], repeats=3, state="running")
    (trial,) = study["trials"]
    states = [("running", "waiting", "waiting"), ("ok", "waiting", "waiting"), ("ok", "running", "running"), ("ok", "ok", "ok")]
    for run in trial["runs"]:
        run["ended"] = time.time() + 5
    for step in states:
        for run, state in zip(trial["runs"], step, strict=True):
            run["state"] = state
        trial["state"] = "ok" if step[2] == "ok" else "running"
        live.update(study)
    assert [text.split(":")[0] for text in out.getvalue().splitlines()] == ["trial 0 begins", "trial 0 ok"]


def test_a_confirmation_has_lines_of_its_own(line: Make, rows: SimpleNamespace) -> None:
    out = io.StringIO()
    again = rows.trial(4, {"optimizer.lr": 2e-3}, [2.3], run_ended=time.time() + 5)
    Live(out).update(line(confirm=[again], state="running"))
    assert "trial 4 again ok: lr 2e-3 -> val/bpb 2.3000" in out.getvalue()


def test_time_left_is_work_left_over_slots(at_work: Make) -> None:
    study, now = at_work(2, 2), time.time()
    for trial in study["trials"]:
        trial["runs"][0]["started"] = now - 10
        trial["runs"][0]["ended"] = now + 20 if trial["state"] == "ok" else None
    assert left(study, now) == pytest.approx((6 * 30 - 2 * 10) / 2)  # six trials of 30 s, 10 s of two of them done, on two slots
    assert left(study, now + 1000) == pytest.approx(4 * 30 / 2)


def test_before_the_first_end_the_estimate_counts_and_without_one_nothing_is_said(at_work: Make) -> None:
    study = at_work(0)
    assert left(study, 0.0) == pytest.approx(8 * 45 / 2)
    assert left(study | {"seconds": None}, 0.0) is None and left(study | {"n_trials": None}, 0.0) is None
    assert "left" not in headline(study | {"seconds": None}, 0.0)


def test_a_search_that_ends_by_itself_says_how_many_trials_it_usually_takes(at_work: Make) -> None:
    study = at_work(2) | {"n_trials": None, "expected": [6, 8], "seconds": 45.0}
    for trial in study["trials"]:
        trial["runs"][0] |= {"started": 0.5, "ended": 30.5}
    assert left(study, 100.0) == pytest.approx(4 * 30 / 2)
    assert headline(study, 100.0).startswith("2 trials | about 4 more trials, 1 min 00 s | ")
    assert "more" not in headline(at_work(7) | {"n_trials": None, "expected": [6, 8]}, time.time())


def test_repeats_multiply_what_is_left(rows: SimpleNamespace) -> None:
    trial = rows.trial(0, {"optimizer.lr": 1e-3}, [2.0, None, None], "running", run_ended=None)
    for run, state, ended in zip(trial["runs"], ("ok", "waiting", "waiting"), (rows.BEGIN + 10, None, None), strict=True):
        run |= {"state": state, "ended": ended}
    study = rows.study([rows.LR], [trial], repeats=3, n_trials=2, slots=1, state="running")
    assert left(study, rows.BEGIN + 10) == pytest.approx((2 * 3 - 1) * 10)


def test_runs_of_the_confirmation_are_left_too(rows: SimpleNamespace) -> None:
    ended = [rows.trial(n, {"optimizer.lr": rate}, [2.0], run_started=0.5, run_ended=10.5) for n, rate in enumerate((1e-3, 2e-3))]
    study = rows.study([rows.LR], ended, n_trials=2, slots=1, state="running", confirm_runs=6, deadline=None)
    assert left(study, 20.0) == pytest.approx(60)
    confirm = [rows.trial(n, {"optimizer.lr": 1e-3}, [2.0, None, None], "running") for n in range(2)]
    for row in confirm:
        row["runs"][0] |= {"started": 20.0, "ended": 30.0}
        row["runs"][1] |= {"state": "running", "started": 26.0, "ended": None}
        row["runs"][2] |= {"state": "waiting", "started": None, "ended": None}
    assert left(study | {"confirm": confirm}, 30.0) == pytest.approx(2 * 6 + 2 * 10)
    assert left(study | {"confirm": confirm, "n_trials": None}, 30.0) == pytest.approx(2 * 6 + 2 * 10)


def test_after_the_deadline_only_what_has_begun_is_left(rows: SimpleNamespace) -> None:
    trials = [
        rows.trial(0, {"optimizer.lr": 1e-3}, [2.0], run_started=0.5, run_ended=10.5),
        rows.trial(1, {"optimizer.lr": 2e-3}, [None], "running"),
    ]
    trials[1]["runs"][0] |= {"state": "running", "started": 10.0, "ended": None}
    study = rows.study([rows.LR], trials, n_trials=20, slots=1, state="running", confirm_runs=9, deadline=15.0)
    assert left(study, 12.0) == pytest.approx(3 + 10)  # one more trial may begin just before
    assert left(study, 16.0) == pytest.approx(4)
    trials[1]["runs"][0] |= {"state": "ok", "ended": 20.0}
    trials[1] |= {"state": "ok"}
    assert left(study, 20.0) == 0 and "left" not in headline(study, 20.0)


def test_a_combination_of_lists_that_failed_is_not_left(rows: SimpleNamespace) -> None:
    trials = [rows.trial(0, {"x": 1}, [2.0]), rows.trial(1, {"x": 2}, [None], "failed")]
    study = rows.study([rows.axis("x", choices=[1, 2])], trials, n_trials=2, search="grid", state="running")
    assert left(study, rows.BEGIN + 100) == 0


def test_a_terminal_is_renewed_in_place(at_work: Make, clock: SimpleNamespace) -> None:
    out = Terminal()
    live = Live(out)
    for ended in range(5):
        live.update(at_work(ended, 2))
        clock.s += 1
    screen = out.screen()
    assert screen[0].startswith("4 of 8 trials | 2 running on 2 slots | left about ")
    assert screen[1] == "best: trial 3, lr 1e-3, val/bpb 2.3000"
    assert [text.split()[1] for text in screen[3:]] == [str(n) for n in range(6)] and len(screen) == 9
    live.close()
    print("after", file=out)
    assert out.screen()[-1] == "after" and len(out.screen()) == 10


def test_a_terminal_is_renewed_three_times_a_second_at_most_and_shows_the_last_state(at_work: Make, clock: SimpleNamespace) -> None:
    out = Terminal()
    live = Live(out)
    for n in range(100):
        live.update(at_work(min(n // 10, 8), 1))
        clock.s += 0.01
    assert out.getvalue().count("best:") <= 4
    live.close()
    assert "8 of 8 trials" in out.screen()[0]


@pytest.mark.parametrize("height", [2, 3, 6, 24, 100])
def test_the_table_is_never_higher_than_the_terminal(line: Make, rows: SimpleNamespace, height: int) -> None:
    more = [rows.trial(8 + n, {"optimizer.lr": 1e-3}, [3.0]) for n in range(50)] + [
        rows.trial(58, {"optimizer.lr": 1e-3}, [None], "running")
    ]
    lines = screen(line(more=more, state="running"), height, time.time())
    assert 2 <= len(lines) <= height
    if height > 5:
        assert any("trial 58" in text for text in lines) and any("trial 4 *" in text for text in lines)


def test_lines_are_cut_at_the_terminals_width(at_work: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "10")
    out = Terminal()
    Live(out).update(at_work(3, 2))
    assert max(map(len, out.screen())) == 29 and len(out.screen()) <= 9


def test_a_study_without_trials_is_shown(rows: SimpleNamespace) -> None:
    for out in (io.StringIO(), Terminal()):
        live = Live(out)
        live.update(rows.study([rows.LR], [], state="running", n_trials=None, seconds=None))
        live.close()
    assert "best: none yet" in out.getvalue()


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


def test_a_closed_pipe_stops_nobody(at_work: Make) -> None:
    closed = io.StringIO()
    live = Live(closed)
    closed.close()
    for one in (Live(Gone()), live):
        one.update(at_work(2, 1))
        one.close()


def test_letters_that_a_terminal_does_not_know_stop_nobody(at_work: Make) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii")
    study = at_work(1)
    study["objective"] = "Güte"
    Live(out).update(study)
    assert b"G?te 3.0500" in raw.getvalue()


def test_the_live_table_needs_neither_matplotlib_nor_optuna_nor_torch_nor_numpy() -> None:
    code = "import sys, gptshake.report.live; print(*{'matplotlib', 'optuna', 'torch', 'numpy', 'hydra'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
