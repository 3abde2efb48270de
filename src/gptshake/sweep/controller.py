"""The loop of a study: a free slot gets the next run at once, and whatever ends is reported to the study at once. There is no barrier.

The controller alone writes the study. It knows of a run what lies in the run's folder: the outcome at its end, and rows of
metrics.csv before. So it can die at any moment, and the next one resumes.
"""

import contextlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite
from pathlib import Path
from statistics import mean
from typing import Any

import optuna

from gptshake.errors import ConfigError, Stop, TrainingError, nearest
from gptshake.outcome import Outcome, is_running, read_outcome, remove_task
from gptshake.processes import TICK_S
from gptshake.record.lock import ask_to_stop, is_alive, is_asked_to_stop, last_seen
from gptshake.record.metrics import Tail
from gptshake.signals import SIGNALS
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.protocols import Executor, Running
from gptshake.sweep.rows import NOISE_FOLDER, NUMBER, RunRow, TrialRow
from gptshake.sweep.search import Search
from gptshake.sweep.space import Params
from gptshake.sweep.study import Study

SHOW_S = 1.0  # between showings, and writings of study.json
WORST_FIRST = ("failed", "diverged", "pruned", "ok")  # what a trial is if its runs end differently
CONFIRMED = 3  # best trials that are run again with fresh seeds


@dataclass(frozen=True)
class Proposals:
    """Where the points of a study come from, and the seeds of their runs."""

    search: Search
    overrides: Callable[[Params], list[str]]  # of a point's trial
    sampler: Callable[[int], optuna.samplers.BaseSampler]  # for axes that the search leaves to it, from the number of a trial
    first: Sequence[Params] = ()  # to try before the search's own
    sequence: Callable[[int], Params] | None = None  # number of a trial -> its point, in place of the search
    seed: int | None = None  # of the first run of a trial, the next ones count on; None leaves seeds alone


class Controller:
    """Runs a study to its end.

    Args:
        study: opened; its folder's lock is held.
        options: the sweeper's; without ``n_trials`` the search says when it is over.
        show: is given the rows now and then.
    """

    def __init__(
        self, study: Study, proposals: Proposals, executor: Executor, options: SweeperConfig, show: Callable[[dict[str, Any]], None]
    ) -> None:
        self.study, self.proposals, self.executor, self.options, self._show = study, proposals, executor, options, show
        self._pending: list[tuple[TrialRow, RunRow]] = []
        self._running: list[tuple[TrialRow, RunRow, Running, Tail]] = []
        self._left: list[tuple[TrialRow, RunRow]] = []  # still at work for an earlier controller
        self._old_failures = {number for number, trial in study.trials.items() if trial.state == "failed"}
        self._ends = inf if options.timeout is None else time.monotonic() + options.timeout
        self._shown = 0.0
        self._round = 0

    def run(self) -> None:
        """Run until the search is over, a limit is reached or a signal comes; whatever ends it, study.json says that it has ended."""
        if self.options.timeout is not None:
            self.study.deadline = self.study.now() + self.options.timeout
        try:
            with SIGNALS.deferred():
                self._recover()
                while SIGNALS.received is None and (self._fill() or self._running or self._left):
                    self._take_ends()
                    self._take_over()
                    for entry in self._running:
                        self._watch(*entry)
                    if time.monotonic() - self._shown >= SHOW_S:
                        self._publish(write=self.study.changed)
                if SIGNALS.received is not None:  # let the running trials checkpoint and end; they stay open in the study
                    for _, _, running, _ in self._running:
                        running.stop()
                    while self._running:
                        self._take_ends()
                    self.study.state = "stopped"
                    self._publish()
                    raise Stop(SIGNALS.received)
            cut_off = time.monotonic() >= self._ends and (self._pending or self._propose() is not None or self._to_confirm())
            self.study.state = "stopped" if cut_off else "done"
            self._publish()
        except Exception:
            self.study.state = "stopped"
            for run in (run for trial in (*self.study.trials.values(), *self.study.confirm) for run in trial.runs):
                run.state = "stopped" if run.state == "running" else run.state  # the executor ends them when it is closed
            with contextlib.suppress(OSError):  # a full disk may be why it ends
                self.study.write()
            raise

    def _publish(self, *, write: bool = True) -> None:
        self._shown = time.monotonic()
        if write:
            self.study.write()
        self._show(self.study.rows())

    # What starts

    def _fill(self) -> bool:
        """Give every free slot something to do; returns whether anything was started."""
        started = False
        while len(self._running) < self.study.header.slots and (work := self._next()):
            trial, run = work
            running = self.executor.start(self.study.task(trial, run), self.study.folder / run.path)
            if running is None:
                raise RuntimeError("a slot was thought to be free")
            self._follow(trial, run, running)
            started = True
        return started

    def _follow(self, trial: TrialRow, run: RunRow, running: Running) -> None:
        run.state, run.slot, run.ended = "waiting", running.slot, None
        self._running.append((trial, run, running, Tail(running.folder / "metrics.csv")))
        self._place(run, running)
        self.study.changed = True

    def _place(self, run: RunRow, running: Running) -> None:
        """Note whether a run has begun, and where, or what it waits for."""
        begun = running.started < inf
        if not begun and run.state == "running":  # it was lost, and waits for a machine again
            self._leave(run, last_seen(running.folder))
        state, run.started = "running" if begun else "waiting", run.started or (self.study.now() if begun else None)
        if (state, running.place) != (run.state, run.place):
            run.state, run.place = state, running.place
            self.study.changed = True

    def _leave(self, run: RunRow, seen: float | None) -> None:
        """Count the time of a run until it was last seen at work; what follows is no time of its own."""
        if run.started:
            run.spent += max(0.0, min(seen or run.started, self.study.now()) - run.started)
        run.started = None

    def _next(self) -> tuple[TrialRow, RunRow] | None:
        """The run to start next, of a new trial or of the confirmation; None if there is nothing to do now."""
        late = time.monotonic() >= self._ends
        if not self._pending and not late:
            params = self._propose()
            if params is not None:
                sampler = None if params else self.proposals.sampler(len(self.study.trials))
                number, params = self.study.ask(params, sampler)
                row = TrialRow(number, params, self.proposals.overrides(params), self._runs(number))
                self.study.begin(row)
                self._pending += [(row, run) for run in row.runs]
            elif not self._running and not self._left:
                self._confirm()
        work = next((entry for entry in self._pending if not (late and entry[0] in self.study.confirm)), None)
        if work:
            self._pending.remove(work)
        return work

    def _propose(self) -> Params | None:
        """The point of the next trial: empty if the sampler shall choose, None if no trial may begin now."""
        new = [trial for number, trial in self.study.trials.items() if number not in self._old_failures]
        failures = sum(trial.state == "failed" for trial in new)
        enough = self.options.n_trials is not None and len(new) - failures >= self.options.n_trials
        if enough or failures >= self.options.max_failures:
            return None
        known = [trial.params for trial in self.study.trials.values()]
        if first := [params for params in self.proposals.first if params not in known]:
            return first[0]
        if self.proposals.sequence:
            return self.proposals.sequence(len(known))
        params = self.proposals.search.propose([point for point in self.study.points() if point.number not in self._old_failures])
        if params == {} and self.study.axes and self.options.deterministic:  # after as many proposals as slots the sampler waits for all
            self._round = self._round - 1 if self._running else self.study.header.slots - 1
            return params if self._round >= 0 else None
        return params

    def _runs(self, number: int) -> list[RunRow]:
        repeats, seed = self.options.repeats, self.proposals.seed
        return [
            RunRow(str(number) if repeats == 1 else f"{number}/{repeat}", repeat, None if seed is None else seed + repeat)
            for repeat in range(repeats)
        ]

    def _confirm(self) -> None:
        """Queue fresh seeds."""
        again, folder = (self.options.confirm, "confirm/") if self.options.confirm else (1, NOISE_FOLDER)
        repeats, seed = range(self.options.repeats, self.options.repeats + again), self.proposals.seed or 0
        for trial in self._to_confirm():
            runs = [RunRow(f"{folder}{trial.number}.{repeat}", repeat, seed + repeat) for repeat in repeats]
            row = TrialRow(trial.number, trial.params, trial.overrides, runs)
            self.study.confirm.append(row)
            self._pending += [(row, run) for run in runs]

    def _to_confirm(self) -> list[TrialRow]:
        """Trials that need fresh seeds: the best to confirm them, or two of a line to measure the noise between seeds."""
        if self.proposals.seed is None:
            return []
        if not self.options.confirm:
            return self.study.second_seeds() if self.study.header.noise else []
        confirmed = {row.number for row in self.study.confirm if not row.measures_noise}
        return [trial for trial in self.study.ranking()[:CONFIRMED] if trial.number not in confirmed]

    # What happens meanwhile

    def _watch(self, trial: TrialRow, run: RunRow, running: Running, tail: Tail) -> None:
        self._place(run, running)
        if running.outcome is None and _ends_early(trial):
            self._end_early(trial, running)
        limit = self.options.trial_timeout
        if limit is not None and run.spent + time.monotonic() - running.started > limit and running.outcome is None:
            running.kill(f"no end after {limit:g} s (hydra.sweeper.trial_timeout)")
        self._read(trial, run, tail)

    def _read(self, trial: TrialRow, run: RunRow, tail: Tail) -> None:
        """Report new validations of a trial's first run to the study; ask the trial to end if it should be pruned."""
        objective, total = self.study.header.objective, self.study.header.tokens
        for row in tail.new():
            run.tokens, run.tokens_per_s = int(row["train/tokens"]), tail.rate
            self.study.changed = True
            if (value := row.get(objective)) is None:
                continue
            run.value = float(value)
            if trial.at is not None or (total is not None and run.tokens >= total):  # it ends already
                continue
            first = not run.repeat and self.study.trials.get(trial.number) is trial  # of every run counts whether its value is finite
            pruned = first and self.study.report(trial.number, run.value, run.tokens, warming=tail.warming(run.tokens))
            if pruned or not isfinite(run.value):
                why = f"{run.value:.5g}: pruned by {type(self.study.pruner).__name__}" if isfinite(run.value) else "is not finite"
                trial.at, trial.reason = run.tokens, f"{objective} {why} at {run.tokens:,} tokens"
                self._cancel(trial)

    def _cancel(self, trial: TrialRow) -> None:
        """A trial that will not finish: its waiting runs never start, its running ones are asked to end."""
        for other, run in [entry for entry in self._pending if entry[0] is trial]:
            run.state = "pruned"
            self._pending.remove((other, run))
        for other, _, running, _ in self._running:
            if other is trial:
                self._end_early(trial, running)

    def _end_early(self, trial: TrialRow, running: Running) -> None:
        """Ask a run to end as pruned; again if it has begun anew since then, as that forgets the request."""
        if running.started == inf:
            running.stop()
        elif not is_asked_to_stop(running.folder):
            ask_to_stop(running.folder, trial.reason or "")

    # What ends

    def _take_ends(self) -> None:
        for ended in self.executor.wait(TICK_S):
            entry = next(entry for entry in self._running if entry[2].folder == ended.folder)
            trial, run, _, tail = entry
            self._running.remove(entry)
            self._read(trial, run, tail)
            outcome = ended.outcome or Outcome("failed", reason="its end is unknown")
            if outcome.status == "stopped" and _ends_early(trial):
                outcome = replace(outcome, status="pruned")
            self._apply(run, outcome, self.study.now() if outcome.ended is None else outcome.ended)
            if run.state in ("failed", "diverged", "pruned"):
                trial.reason = trial.reason if run.state == "pruned" else run.reason
                trial.at = trial.at or (run.tokens if run.state != "failed" else None)
                self._cancel(trial)
            self._finish(trial)

    def _apply(self, run: RunRow, outcome: Outcome, ended: float) -> None:
        run.ended = max(run.started or 0.0, min(ended, self.study.now()))
        run.reason = outcome.reason or None
        if outcome.status == "stopped" and SIGNALS.received is not None:
            run.state = "stopped"
        elif outcome.status == "ok":
            objective, value = self.study.header.objective, outcome.value
            value = value.get(objective) if isinstance(value, dict) else value
            run.value = None
            if isinstance(value, (int, float)):
                run.value = float(value) if not abs(value) > sys.float_info.max else inf  # a whole number may be too large for a float
            run.state = "diverged" if run.value is not None and not isfinite(run.value) else "ok"
            if run.value is None and objective != NUMBER:
                returned = outcome.value if isinstance(outcome.value, dict) else {}
                names = sorted(key for key, value in returned.items() if isinstance(value, int | float))
                listed = f" It returned {', '.join(names)}." if names else ""
                run.state = "failed"
                run.reason = f"returned no number {objective} (hydra.sweeper.objective){nearest(objective, names)}{listed}"
                if all(other.value is None for row in self.study.trials.values() for other in row.runs):  # nor would any run that follows
                    raise ConfigError(f"The study ends with run {run.path}, which {run.reason}")
        elif outcome.status == "pruned":
            run.state = "pruned" if run.value is None or isfinite(run.value) else "diverged"
        else:
            run.state = "diverged" if outcome.error == TrainingError.__name__ else "failed"
        self.study.changed = True

    def _finish(self, trial: TrialRow) -> None:
        """Report a trial whose last run has ended to the study, and remove weights that are not among the best."""
        states = {run.state for run in trial.runs}
        if states & {"running", "waiting", "stopped"}:
            return
        trial.state = next(state for state in WORST_FIRST if state in states)
        values = [run.value for run in trial.runs if run.value is not None]  # of every seed, or the lucky ones would decide
        trial.value = mean(values) if trial.state == "ok" and len(values) == len(trial.runs) else None
        useless = [trial]
        if trial not in self.study.confirm:
            self.study.tell(trial)
            best = self.study.ranking()[: self.options.keep]
            useless = [other for other in self.study.trials.values() if other not in best and other.state not in ("running", "failed")]
        for folder in (self.study.folder / run.path for other in useless for run in other.runs):
            if self.study.header.program == "gptshake" and (folder / "run.json").exists():  # so the folder of checkpoints is ours, too
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    # What an earlier controller left

    def _recover(self) -> None:
        """Resume trials that are still open: count what ended without us, adopt or wait for what still runs, and queue the rest."""
        for trial in [*self.study.trials.values(), *self.study.confirm]:
            if trial.state != "running":  # killed after the journal had its end, and before study.json had those of its runs
                for run in (run for run in trial.runs if run.state in ("running", "waiting")):
                    self._count_or_queue(trial, run, self.study.folder / run.path)
                continue
            trial.overrides = trial.overrides or self.proposals.overrides(trial.params)
            trial.runs = trial.runs or self._runs(trial.number)
            for run in trial.runs:
                folder = self.study.folder / run.path
                if running := self.executor.adopt(folder):
                    self._follow(trial, run, running)
                elif _is_at_work(folder):
                    ending = "is still at work for an earlier command, and is saving its last step; it goes on here when that has ended."
                    print(f"Run {run.path} {ending}")
                    run.state = "waiting"
                    self._left.append((trial, run))
                else:
                    self._count_or_queue(trial, run, folder)
            self._finish(trial)

    def _take_over(self) -> None:
        """Count or queue the runs of an earlier controller that have ended meanwhile."""
        for trial, run in [entry for entry in self._left if not _is_at_work(self.study.folder / entry[1].path)]:
            self._left.remove((trial, run))
            self._count_or_queue(trial, run, self.study.folder / run.path)
            self._finish(trial)

    def _count_or_queue(self, trial: TrialRow, run: RunRow, folder: Path) -> None:
        remove_task(folder)  # a controller that was killed has left it, and it may hold secrets
        outcome = read_outcome(folder)
        if outcome is None or outcome.status in ("stopped", "killed"):
            run.state = "pruned" if _ends_early(trial) or trial.state != "running" else "waiting"
            if run.state == "waiting":
                self._leave(run, last_seen(folder))
                self._pending.append((trial, run))
        elif run.state in ("waiting", "running", "stopped"):
            for row in (tail := Tail(folder / "metrics.csv")).new():
                run.tokens, run.tokens_per_s = int(row["train/tokens"]), tail.rate
            self._apply(run, outcome, last_seen(folder) or 0.0)  # not when this controller began


def _ends_early(trial: TrialRow) -> bool:
    """Whether a trial will not finish, as one of its runs did not."""
    return trial.at is not None or any(run.state in ("failed", "diverged", "pruned") for run in trial.runs)


def _is_at_work(folder: Path) -> bool:
    return is_running(folder) or is_alive(folder)
