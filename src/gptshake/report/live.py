"""A running study: a table that is renewed on a terminal, single lines anywhere else.

Compares study.json's rows with what was printed before, and prints what is new. A closed terminal, or one with another encoding,
raises nothing.
"""

import math
import time
from statistics import fmean
from typing import TextIO

from gptshake.console import Console, aligned
from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.report import study_stats as stats
from gptshake.report.study_stats import Best, Json

RENEW_S = 0.33  # between renewals of a terminal


class Live:
    """Shows a study's progress on a stream, by default the standard output."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(stream)
        self._began = time.time()
        self._states: dict[str, str] | None = None  # row -> its state when it was last printed
        self._renewed = float("-inf")
        self._late: Json | None = None  # not shown yet

    def update(self, study: Json) -> None:
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
        self._console.keep()

    def _print_news(self, study: Json) -> None:
        """A line for every row that began or ended since the last time; one for all that an earlier controller has ended."""
        rows = _rows(study)
        if self._states is None:
            ends = {name: [run["ended"] for run in row["runs"] if run.get("ended")] for name, row in rows.items()}
            ended = [name for name, row in rows.items() if stats.state_of(row) not in ("running", "waiting")]
            self._states = {name: stats.state_of(rows[name]) for name in ended if max(ends[name], default=0) < self._began}
            if before := [name for name in self._states if name in _shown(study)]:
                trials = [trial for trial in study["trials"] if f"trial {trial['number']}" in before]
                winner = stats.best({**study, "trials": trials})
                so_far = f" | best so far {_best_text(study, winner)}" if winner else ""
                self._console.write(f"resuming: {counted(len(before), before[0].split()[0])} ended before{so_far}\n")
        for name, row in rows.items():
            if (state := stats.state_of(row)) not in ("waiting", self._states.get(name)):
                self._states[name] = state
                self._console.write(f"{_news(study, name, row)}\n")

    def _renew(self, study: Json) -> None:
        self._console.renew(screen(study, self._console.size().lines - 1, study["updated"]))
        self._renewed, self._late = time.monotonic(), None


def screen(study: Json, height: int, now: float) -> list[str]:
    """The terminal's table, at most ``height`` lines: what is done and left, the best, and as many trials as fit."""
    winner, rows, called = stats.best(study), _rows(study), stats.axis_names(study)
    head = [headline(study, now)]
    if not stats.over_seeds(study):
        head.append(f"best: {_best_text(study, winner)}" if winner else "best: none yet")

    def rank(name: str) -> int:
        return 0 if stats.state_of(rows[name]) == "running" else 1 if winner and rows[name] is winner.trial else 2

    latest_first = list(rows)[::-1]
    kept = sorted(latest_first, key=rank)[: max(0, min(24, height - len(head) - 1))]  # running, then the best, then the latest
    cells = [["", "", *called.values(), study["objective"], "tokens", "tokens/s", "time"]]
    for name, row in rows.items():
        if name in kept:
            value, tokens = _value(row), max((run["tokens"] for run in row["runs"] if run.get("tokens")), default=0)
            speed = next((run["tokens_per_s"] for run in reversed(row["runs"]) if run.get("tokens_per_s")), 0)
            begun = max((now - run["started"] + (run.get("spent") or 0) for run in row["runs"] if run["state"] == "running"), default=0)
            mark = " *" if winner and row is winner.trial else ""
            figures = [short_count(figure) if figure else "" for figure in (tokens, speed)]
            params = [stats.param_text(row["params"].get(key, "")) for key in called]
            took = duration((stats.seconds_of(row) or 0) + begun)
            reached = stats.objective_text(value) if value is not None else ""
            cells.append([f"{name}{mark}", stats.state_of(row), *params, reached, *figures, took])
    return [*head, *aligned(cells, left=(0, 1)).splitlines()] if kept else head[: max(1, height)]


def headline(study: Json, now: float) -> str:
    """``3 of 8 trials | 2 running on 2 slots | left about 45 s | tiny · wiki_char``: what a narrow terminal cuts away comes last."""
    rows, trials = stats.shown_rows(study), f"{study['n_trials']} trials" if study.get("n_trials") else ""
    total = counted(study["repeats"], "seed") if stats.over_seeds(study) else trials
    done = sum(row["state"] in stats.DONE for row in rows)
    running = sum(run["state"] == "running" for row in _rows(study).values() for run in row["runs"])
    failed = sum(row["state"] == "failed" for row in rows)
    parts = [
        f"{done} of {total}" if total else counted(done, "trial"),
        f"{running} running on {counted(study['slots'], 'slot')}" if running else "",
        f"{failed} failed" if failed else "",
        _left_text(study, now),
        str(study.get("label") or study["name"]),
    ]
    return " | ".join(filter(None, parts))


def _news(study: Json, name: str, row: Json) -> str:
    """``trial 3 begins: lr 2e-3 (slot 1)``, ``trial 3 ok: lr 2e-3 -> val/bpb 2.3121 | best 2.2801 (trial 1) | 45 s | left about 3 min``."""
    params = f": {text}" if (text := stats.params_text(study, row["params"])) else ""
    if stats.state_of(row) == "running":
        slot = next(run["slot"] for run in row["runs"] if run["state"] == "running")
        return f"{name} begins{params} (slot {slot})"
    value, seconds, winner = _value(row), stats.seconds_of(row), stats.best(study)
    result = f" -> {study['objective']} {stats.objective_text(value)}" if value is not None else ""
    parts = [
        f"{name} {stats.state_of(row)}{params}{result}",
        " ".join((row.get("reason") or "").split()) if row["state"] != "ok" else "",
        f"best {stats.objective_text(winner.value)} (trial {winner.trial['number']})" if winner and not stats.over_seeds(study) else "",
        duration(seconds) if seconds is not None else "",
        _left_text(study, study["updated"]),
    ]
    return " | ".join(filter(None, parts))


def _best_text(study: Json, winner: Best) -> str:
    return f"trial {winner.trial['number']}, {stats.params_text(study, winner.trial['params'])}, {study['objective']} {stats.objective_text(winner.value)}"


def left(study: Json, now: float) -> float | None:
    """Seconds until all runs have ended, those of the confirmation too, if they take what runs took so far; None if that is not known.

    Before a run has ended the study's own estimate counts. Running runs count for what they have left; after the study's
    deadline only those, and the waiting seeds of trials that have begun. A search that ends by itself has as many trials as usual.
    """
    runs = [run for row in _rows(study).values() for run in row["runs"]]
    spans = [seconds for run in runs if run["state"] in stats.DONE and (seconds := stats.run_seconds(run)) is not None]
    typical = fmean(spans) if spans else study.get("seconds")
    confirms, repeats, deadline = bool(study.get("confirm")), study.get("repeats") or 1, study.get("deadline") or math.inf
    if typical is None or not (study.get("n_trials") or study.get("expected") or confirms):
        return None
    running = [max(0.0, typical - (now - run["started"] + (run.get("spent") or 0))) for run in runs if run["state"] == "running"]
    seeds = runs if now < deadline else [run for trial in study["trials"] for run in trial["runs"]]
    count = sum(run["state"] in ("waiting", "stopped") for run in seeds)
    if not confirms and now < deadline:
        count += _trials_to_come(study) * repeats + (study.get("confirm_runs") or 0)
    seconds = (sum(running) + count * typical) / max(1, min(study["slots"], len(running) + count))
    last = deadline - now + typical * repeats  # a trial that begins just before the deadline
    return float(min(seconds, last) if now < deadline else seconds)


def _trials_to_come(study: Json) -> int:
    """Trials that have not begun; a combination of lists that failed is not tried again, a point of a search gives its place to another."""
    trials, is_grid = study["trials"], study.get("search") == "grid"
    begun = len({str(trial["params"]) for trial in trials}) if is_grid else sum(trial["state"] != "failed" for trial in trials)
    return max(0, int(study.get("n_trials") or (study.get("expected") or [0])[0]) - begun)


def _left_text(study: Json, now: float) -> str:
    """``left about 45 s``; of a search that ends by itself ``about 4 more trials, 45 s``."""
    seconds = left(study, now)
    time_text = duration(seconds) if seconds and seconds >= 0.5 else ""
    if study.get("expected") and not study.get("confirm") and (more := _trials_to_come(study)):
        return ", ".join(filter(None, [f"about {counted(more, 'more trial')}", time_text]))
    return f"left about {time_text}" if time_text else ""


def _shown(study: Json) -> dict[str, Json]:
    """Name -> row of all trials, of one configuration of its seeds."""
    kind = "seed" if stats.over_seeds(study) else "trial"
    return {f"{kind} {trial['number']}": trial for trial in stats.shown_rows(study)}


def _rows(study: Json) -> dict[str, Json]:
    """The same, and those of the confirmation."""
    return _shown(study) | {f"trial {row['number']} again": row for row in study.get("confirm") or []}


def _value(row: Json) -> float | None:
    """The row's value, or the mean of the runs that have ended, or the last value of a running one."""
    values = stats.run_values(row) or [run["value"] for run in row["runs"] if run.get("value") is not None]
    if row.get("value") is not None:
        return float(row["value"])
    return fmean(values) if values else None
