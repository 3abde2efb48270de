"""A running study: a table that is renewed on a terminal, single lines anywhere else.

Takes study.json's rows again and again, compares them with what was printed before, and prints what is new. A terminal that is
gone, or knows fewer letters, stops nothing.
"""

import math
import time
from collections.abc import Iterator
from statistics import fmean
from typing import TextIO

from gptshake.console import Console, cut
from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.report.study_stats import Rows, best, digits, names, params_text, run_values, seconds_of, short
from gptshake.report.tables import aligned

RENEW_S = 0.33  # between renewals of a terminal
MOST_ROWS = 24  # of the table, however high the terminal
DONE = ("ok", "pruned", "diverged")  # what n_trials counts


class Live:
    """Shows a study's progress.

    Args:
        stream: where to; by default the standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(stream)
        self._began = time.time()
        self._states: dict[str, str] | None = None  # row -> its state when it was last printed
        self._height = 0  # lines on the terminal that are ours
        self._renewed = float("-inf")
        self._late: Rows | None = None  # not shown yet

    def update(self, study: Rows) -> None:
        """Show what is new; the same rows again print nothing."""
        if not self._console.renews:
            self._print_news(study)
        elif time.monotonic() - self._renewed >= RENEW_S:
            self._renew(study)
        else:
            self._late = study

    def close(self) -> None:
        """Show what was not shown yet; what comes next is written below the table."""
        if self._late is not None:
            self._renew(self._late)
        self._height = 0

    def _print_news(self, study: Rows) -> None:
        """A line for every row that began or ended since the last time; one for all that an earlier controller has ended."""
        if self._states is None:
            self._states = {name: state_of(row) for name, row in _rows(study) if _ended_before(row, self._began)}
            if self._states:
                so_far = f" | best so far {best_text(study)}" if best(study) else ""
                self._console.write(f"resuming: {counted(len(self._states), 'trial')} ended before{so_far}\n")
        for name, row in _rows(study):
            state = state_of(row)
            if state != "waiting" and self._states.get(name) != state:
                self._states[name] = state
                self._console.write(f"{begin_line(study, name, row) if state == 'running' else end_line(study, name, row)}\n")

    def _renew(self, study: Rows) -> None:
        size = self._console.size()
        lines = [cut(line, size.columns - 1) for line in frame(study, size.lines - 1, study["updated"])]
        upward = f"\x1b[{self._height}A\r\x1b[J" if self._height else ""
        self._console.write(upward + "".join(f"{line}\n" for line in lines))
        self._height, self._renewed, self._late = len(lines), time.monotonic(), None


def frame(study: Rows, height: int, now: float) -> list[str]:
    """The terminal's table: what is done and left, the best, and as many trials as fit.

    Args:
        study: study.json.
        height: lines there are; at most so many are returned.
        now: seconds since 1970.
    """
    head = [headline(study, now), f"best: {best_text(study)}" if best(study) else "best: none yet"]
    shown = _shown(study, min(MOST_ROWS, height - len(head) - 1))
    if not shown:
        return head[: max(1, height)]
    called = names(study)
    columns = ["", "", *(called[axis["key"]] for axis in study["axes"]), study["objective"], "tokens", "tokens/s", "time"]
    return [*head, *aligned([columns, *(_cells(study, name, row, now) for name, row in shown)], left=(0, 1)).splitlines()]


def headline(study: Rows, now: float) -> str:
    """``3 of 8 trials | 2 running on 2 slots | left about 45 s | tiny · wiki_char``: what a narrow terminal cuts away comes last."""
    done = sum(trial["state"] in DONE for trial in study["trials"])
    running = sum(run["state"] == "running" for _, row in _rows(study) for run in row["runs"])
    failed = sum(trial["state"] == "failed" for trial in study["trials"])
    parts = [
        f"{done} of {study['n_trials']} trials" if study.get("n_trials") else counted(done, "trial"),
        f"{running} running on {counted(study['slots'], 'slot')}" if running else "",
        f"{failed} failed" if failed else "",
        _left_text(study, now),
        str(study.get("label") or study["name"]),
    ]
    return " | ".join(part for part in parts if part)


def begin_line(study: Rows, name: str, row: Rows) -> str:
    """``trial 3 begins: lr 2e-3 (slot 1)``."""
    slot = next(run["slot"] for run in row["runs"] if run["state"] == "running")
    return f"{name} begins: {params_text(study, row['params'])} (slot {slot})"


def end_line(study: Rows, name: str, row: Rows) -> str:
    """``trial 3 ok: lr 2e-3 -> val/bpb 2.3121 | best 2.2801 (trial 1) | 45 s | left about 3 min``."""
    value, seconds, winner = _value(row), seconds_of(row), best(study)
    result = f" -> {study['objective']} {digits(value)}" if value is not None else ""
    parts = [
        f"{name} {row['state']}: {params_text(study, row['params'])}{result}",
        " ".join((row.get("reason") or "").split()) if row["state"] != "ok" else "",
        f"best {digits(winner.value)} (trial {winner.trial['number']})" if winner else "",
        duration(seconds) if seconds is not None else "",
        _left_text(study, study["updated"]),
    ]
    return " | ".join(part for part in parts if part)


def best_text(study: Rows) -> str:
    """``trial 3, lr 2e-3, val/bpb 2.2801``; nothing if there is none."""
    winner = best(study)
    if winner is None:
        return ""
    return f"trial {winner.trial['number']}, {params_text(study, winner.trial['params'])}, {study['objective']} {digits(winner.value)}"


def left(study: Rows, now: float) -> float | None:
    """Seconds until all runs have ended, those of the confirmation too, if they take what runs took so far; None if that is not known.

    Before a run has ended the study's own estimate counts. Running runs count for what they have left; after the study's
    deadline only those, and the waiting seeds of trials that have begun. A search that ends by itself has as many trials as usual.
    """
    rows = [row for _, row in _rows(study)]
    runs = [run for row in rows for run in row["runs"]]
    spans = [run["ended"] - run["started"] for run in runs if run["state"] in DONE and run.get("ended") and run.get("started")]
    typical = fmean(spans) if spans else study.get("seconds")
    confirms = bool(study.get("confirm"))
    if typical is None or not (study.get("n_trials") or study.get("expected") or confirms):
        return None
    deadline = study.get("deadline") or math.inf
    running = [max(0.0, typical - (now - run["started"])) for run in runs if run["state"] == "running"]
    begun = [run for row in (rows if now < deadline else study["trials"]) for run in row["runs"] if run["state"] in ("waiting", "stopped")]
    to_come = 0 if confirms or now >= deadline else trials_to_come(study) * (study.get("repeats") or 1) + (study.get("confirm_runs") or 0)
    count = len(running) + len(begun) + to_come
    seconds = (sum(running) + (len(begun) + to_come) * typical) / max(1, min(study["slots"], count))
    last = deadline - now + typical * (study.get("repeats") or 1)  # a trial that begins just before the deadline
    return float(min(seconds, last) if now < deadline else seconds)


def trials_to_come(study: Rows) -> int:
    """Trials that have not begun; a combination of lists that failed is not tried again, a point of a search gives its place to another."""
    total = int(study.get("n_trials") or (study.get("expected") or [0])[0])
    begun = [str(trial["params"]) for trial in study["trials"] if trial["state"] != "failed" or study.get("search") == "grid"]
    return max(0, total - len(set(begun) if study.get("search") == "grid" else begun))


def _left_text(study: Rows, now: float) -> str:
    """``left about 45 s``; of a search that ends by itself ``about 4 more trials, 45 s``."""
    seconds = left(study, now)
    more = trials_to_come(study) if study.get("expected") and not study.get("confirm") else 0
    time_text = duration(seconds) if seconds and seconds >= 0.5 else ""
    if more:
        return ", ".join(filter(None, [f"about {counted(more, 'more trial')}", time_text]))
    return f"left about {time_text}" if time_text else ""


def state_of(row: Rows) -> str:
    """A row's state as it is now: an open trial none of whose runs is running is ``waiting``."""
    if any(run["state"] == "running" for run in row["runs"]):
        return "running"
    return "waiting" if row["state"] == "running" else str(row["state"])


def _rows(study: Rows) -> Iterator[tuple[str, Rows]]:
    for trial in study["trials"]:
        yield f"trial {trial['number']}", trial
    for row in study.get("confirm") or []:
        yield f"trial {row['number']} again", row


def _ended_before(row: Rows, moment: float) -> bool:
    ends = [run["ended"] for run in row["runs"] if run.get("ended")]
    return state_of(row) not in ("running", "waiting") and (not ends or max(ends) < moment)


def _value(row: Rows) -> float | None:
    """The row's value, or the mean of the runs that have ended, or the last value of a running one."""
    values = run_values(row) or [run["value"] for run in row["runs"] if run.get("value") is not None]
    if row.get("value") is not None:
        return float(row["value"])
    return fmean(values) if values else None


def _shown(study: Rows, count: int) -> list[tuple[str, Rows]]:
    """The rows that fit: those running, then the best ended one, then the latest; in order."""
    rows = list(_rows(study))
    winner = best(study)

    def rank(place: int) -> tuple[int, int]:
        row = rows[place][1]
        first = 0 if state_of(row) == "running" else 1 if winner and row is winner.trial else 2
        return first, -place

    kept = sorted(sorted(range(len(rows)), key=rank)[: max(0, count)])
    return [rows[place] for place in kept]


def _cells(study: Rows, name: str, row: Rows, now: float) -> list[str]:
    winner, value = best(study), _value(row)
    tokens = max((run["tokens"] for run in row["runs"] if run.get("tokens")), default=0)
    speed = next((run["tokens_per_s"] for run in reversed(row["runs"]) if run.get("tokens_per_s")), None)
    begun = [now - run["started"] for run in row["runs"] if run["state"] == "running"]
    return [
        f"{name}{' *' if winner and row is winner.trial else ''}",
        state_of(row),
        *(short(row["params"].get(axis["key"], "")) for axis in study["axes"]),
        digits(value) if value is not None else "",
        short_count(tokens) if tokens else "",
        short_count(speed) if speed else "",
        duration((seconds_of(row) or 0) + max(begun, default=0)),
    ]
