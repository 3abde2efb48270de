"""The loop of a study: a free slot gets the next run at once, and whatever ends is reported to the study at once. There is no barrier.

The controller alone writes the study. It knows of a run what lies in the run's folder: the outcome at its end, and rows of
metrics.csv before. So it can die at any moment, and the next one resumes.
"""

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import optuna

from gptshake.errors import Stop, TrainingError
from gptshake.processes import Outcome, is_running, read_outcome, remove_task
from gptshake.record.lock import ask_to_stop
from gptshake.record.metrics import Tail
from gptshake.signals import SIGNALS
from gptshake.sweep.executor.protocol import Executor, Running
from gptshake.sweep.rows import AGAIN, NUMBER, RunRow, TrialRow
from gptshake.sweep.search import Search
from gptshake.sweep.space import Params
from gptshake.sweep.study import Study

TICK_S = 0.25  # between looks at the rows of running trials
SHOW_S = 1.0  # between showings, and writings of study.json
WORST_FIRST = ("failed", "diverged", "pruned", "ok")  # what a trial is if its runs end differently
CONFIRMED = 3  # best trials that are run again with fresh seeds


@dataclass(frozen=True)
class Limits:
    """When to stop, and how many runs make a trial."""

    slots: int
    n_trials: int | None = None  # finished trials; None: until the search is over
    timeout: float | None = None  # seconds after which no trial begins
    trial_timeout: float | None = None  # seconds of one run
    max_failures: int = 5
    repeats: int = 1
    confirm: int = 0
    noise: bool = False  # run the best of a line and its better neighbour with a second seed
    keep: int = 3
    deterministic: bool = False


class Controller:
    """Runs a study to its end.

    Args:
        study: opened; its folder's lease is held.
        search: proposes points.
        executor: its slots are allotted.
        limits: when to stop.
        overrides: point -> overrides of its trial.
        seed: of the runs: None leaves seeds alone; else repeat r runs with seed + r.
        sampler: makes the sampler for a proposal from a number, for axes that the search leaves to it.
        first: points to try before the search's own.
        sequence: number of a trial -> its point, where a sequence gives them in place of the search.
        show: is given the rows now and then.
    """

    def __init__(
        self,
        study: Study,
        search: Search,
        executor: Executor,
        limits: Limits,
        *,
        overrides: Callable[[Params], list[str]],
        seed: int | None,
        sampler: Callable[[int], optuna.samplers.BaseSampler],
        first: Sequence[Params],
        sequence: Callable[[int], Params] | None = None,
        show: Callable[[dict[str, Any]], None],
    ) -> None:
        self.study, self.search, self.executor, self.limits = study, search, executor, limits
        self._overrides, self._seed, self._sampler, self._show = overrides, seed, sampler, show
        self._first, self._sequence = list(first), sequence
        self._pending: list[tuple[TrialRow, RunRow]] = []
        self._running: list[tuple[TrialRow, RunRow, Running, Tail]] = []
        self._old_failures = {number for number, trial in study.trials.items() if trial.state == "failed"}
        self._began, self._shown = time.monotonic(), 0.0
        self._round = 0

    def run(self) -> None:
        """Run until the search is over, a limit is reached or a signal comes; whatever ends it, study.json says that it has ended.

        Raises:
            Stop: a signal came; running trials are checkpointed and go on with the same command.
        """
        if self.limits.timeout is not None:
            self.study.deadline = self.study.now() + self.limits.timeout
        try:
            with SIGNALS.deferred():
                self._recover()
                while SIGNALS.received is None and (self._fill() or self._running):
                    self._turn()
                if SIGNALS.received is not None:
                    self._stop_all()
                    raise Stop(SIGNALS.received)
            self.study.state = "done"
            self._publish(force=True)
        except Exception:
            self.study.state = "stopped"
            with contextlib.suppress(OSError):  # a full disk may be why it ends
                self.study.write()
            raise

    def _turn(self) -> None:
        for ended in self.executor.wait(TICK_S):
            self._end(ended)
        for entry in self._running:
            self._watch(*entry)
        self._publish()

    def _publish(self, force: bool = False) -> None:
        """Write and show the rows, now and then."""
        if force or time.monotonic() - self._shown >= SHOW_S:
            self._shown = time.monotonic()
            if self.study.changed or force:
                self.study.write()
            self._show(self.study.rows())

    # What starts

    def _fill(self) -> bool:
        """Give every free slot something to do; returns whether anything was started."""
        started = False
        while len(self._running) < self.limits.slots and (work := self._next()):
            self._start(*work)
            started = True
        return started

    def _next(self) -> tuple[TrialRow, RunRow] | None:
        """The run to start next, of a new trial or of the confirmation; None if there is nothing to do now."""
        late = self.limits.timeout is not None and time.monotonic() - self._began >= self.limits.timeout
        if not self._pending:
            params = None if late else self._propose()
            if params is not None:
                self._add(params)
            elif not self._running and not late:
                self._confirm()
        work = next((entry for entry in self._pending if not (late and self._confirms(entry[0]))), None)
        if work:
            self._pending.remove(work)
        return work

    def _propose(self) -> Params | None:
        """The point of the next trial: empty if the sampler shall choose, None if no trial may begin now."""
        new = [trial for number, trial in self.study.trials.items() if number not in self._old_failures]
        failures = sum(trial.state == "failed" for trial in new)
        enough = self.limits.n_trials is not None and len(new) - failures >= self.limits.n_trials
        if enough or failures >= self.limits.max_failures:
            return None
        known = [trial.params for trial in self.study.trials.values()]
        self._first = [params for params in self._first if params not in known]
        if self._first:
            return self._first.pop(0)
        if self._sequence:
            return self._sequence(len(known))
        params = self.search.propose([point for point in self.study.points() if point.number not in self._old_failures])
        if params == {} and self.study.axes and self.limits.deterministic:  # after as many proposals as slots the sampler waits for all
            self._round = self._round - 1 if self._running else self.limits.slots - 1
            return params if self._round >= 0 else None
        return params

    def _confirms(self, trial: TrialRow) -> bool:
        return any(trial is row for row in self.study.confirm)

    def _add(self, params: Params) -> None:
        number, params = self.study.ask(params, None if params else self._sampler(len(self.study.trials)))
        row = TrialRow(number, params, self._overrides(params), self._runs(str(number)))
        self.study.begin(row)
        self._pending += [(row, run) for run in row.runs]

    def _runs(self, path: str) -> list[RunRow]:
        repeats, seed = self.limits.repeats, self._seed
        return [
            RunRow(path if repeats == 1 else f"{path}/{repeat}", repeat, None if seed is None else seed + repeat)
            for repeat in range(repeats)
        ]

    def _start(self, trial: TrialRow, run: RunRow) -> None:
        running = self.executor.start(self.study.task(trial, run), self.study.folder / run.path)
        if running is None:
            raise RuntimeError("a slot was thought to be free")
        run.state, run.slot, run.started, run.ended = "running", running.slot, self.study.now(), None
        self._running.append((trial, run, running, Tail(running.folder / "metrics.csv")))
        self.study.changed = True

    def _confirm(self) -> None:
        """Queue fresh seeds: for the best trials to confirm them, or for two of a line to measure the noise between seeds."""
        confirmed = any(not row.measures_noise for row in self.study.confirm)
        if self._seed is None or (self.limits.confirm and confirmed):
            return
        if self.limits.confirm:
            again, best, folder = self.limits.confirm, self.study.ranking()[:CONFIRMED], "confirm/"
        else:
            again, best, folder = 1, self.study.second_seeds() if self.limits.noise else [], AGAIN
        for trial in best:
            first = self.limits.repeats
            runs = [RunRow(f"{folder}{trial.number}.{repeat}", repeat, self._seed + repeat) for repeat in range(first, first + again)]
            row = TrialRow(trial.number, trial.params, trial.overrides, runs)
            self.study.confirm.append(row)
            self._pending += [(row, run) for run in runs]

    # What happens meanwhile

    def _watch(self, trial: TrialRow, run: RunRow, running: Running, tail: Tail) -> None:
        limit = self.limits.trial_timeout
        if limit is not None and time.monotonic() - running.started > limit and running.outcome is None:
            running.kill(f"no end after {limit:g} s (hydra.sweeper.trial_timeout)")
        self._read(trial, run, running.folder, tail)

    def _read(self, trial: TrialRow, run: RunRow, folder: Path, tail: Tail) -> None:
        """Report new validations of a trial's first run to the study; ask the trial to end if it should be pruned."""
        for row in tail.new():
            run.tokens, run.tokens_per_s = int(row["train/tokens"]), tail.rate
            self.study.changed = True
            value = row.get(self.study.header.objective)
            if value is None:
                continue
            run.value = float(value)
            at_its_end = self.study.header.tokens is not None and run.tokens >= self.study.header.tokens
            if trial.at is None and not at_its_end and (why := self._why_prune(trial, run, run.value, warming=tail.warming(run.tokens))):
                trial.at, trial.reason = run.tokens, f"{self.study.header.objective} {why} at {run.tokens:,} tokens"
                self._cancel(trial)

    def _why_prune(self, trial: TrialRow, run: RunRow, value: float, *, warming: bool) -> str | None:
        """What is wrong with a value that a run has reached: of every run that it is not finite, of a trial's first one what the pruner says."""
        reported = not run.repeat and self.study.trials.get(trial.number) is trial
        pruned = reported and self.study.report(trial.number, value, run.tokens or 0, warming=warming)
        if not isfinite(value):
            return "is not finite"
        return f"{value:.5g}: pruned by {self.study.pruner_name}" if pruned else None

    def _cancel(self, trial: TrialRow) -> None:
        """A trial that will not finish: its waiting runs never start, its running ones are asked to end."""
        for other, run in [entry for entry in self._pending if entry[0] is trial]:
            run.state = "pruned"
            self._pending.remove((other, run))
        for other, _, running, _ in self._running:
            if other is trial:
                ask_to_stop(running.folder, trial.reason or "")

    # What ends

    def _end(self, ended: Running) -> None:
        entry = next(entry for entry in self._running if entry[2].folder == ended.folder)
        trial, run, running, tail = entry
        self._running.remove(entry)
        self._read(trial, run, running.folder, tail)
        self._apply(run, ended.outcome or Outcome("failed", reason="its end is unknown"))
        if run.state in ("failed", "diverged", "pruned"):
            trial.reason = trial.reason if run.state == "pruned" else run.reason
            trial.at = trial.at or (run.tokens if run.state != "failed" else None)
            self._cancel(trial)
        self._finish(trial)

    def _apply(self, run: RunRow, outcome: Outcome) -> None:
        """Note how a run ended, in the states of a study."""
        run.ended, run.reason = self.study.now(), outcome.reason or None
        if outcome.status == "stopped" and SIGNALS.received is not None:
            run.state = "stopped"
        elif outcome.status == "ok":
            objective, value = self.study.header.objective, outcome.value
            value = value.get(objective) if isinstance(value, dict) else value
            run.value = float(value) if isinstance(value, (int, float)) else None
            run.state = "diverged" if run.value is not None and not isfinite(run.value) else "ok"
            if run.value is None and objective != NUMBER:
                run.state, run.reason = "failed", f"returned no {objective} (hydra.sweeper.objective)"
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
        values = [run.value for run in trial.runs if run.value is not None]
        trial.value = sum(values) / len(values) if trial.state == "ok" and values else None
        if self._confirms(trial):
            self._forget_weights([trial])
        else:
            self.study.tell(trial)
            best = self.study.ranking()[: self.limits.keep]
            self._forget_weights(
                [other for other in self.study.trials.values() if other not in best and other.state not in ("running", "failed")]
            )

    def _forget_weights(self, trials: Sequence[TrialRow]) -> None:
        for run in (run for trial in trials for run in trial.runs):
            folder = self.study.folder / run.path
            if self.study.header.program == "gptshake" and (folder / "run.json").exists():  # so the folder of checkpoints is ours, too
                shutil.rmtree(folder / "checkpoints", ignore_errors=True)

    def _stop_all(self) -> None:
        """Let the running trials checkpoint and end; they stay open in the study."""
        for _, _, running, _ in self._running:
            running.stop()
        while self._running:
            for ended in self.executor.wait(TICK_S):
                self._end(ended)
        self.study.state = "stopped"
        self._publish(force=True)

    # What an earlier controller left

    def _recover(self) -> None:
        """Resume trials that are still open: count what ended without us, wait for what still runs, and queue the rest."""
        for trial in [*self.study.trials.values(), *self.study.confirm]:
            if trial.state != "running":
                continue
            trial.overrides = trial.overrides or self._overrides(trial.params)
            trial.runs = trial.runs or self._runs(str(trial.number))
            for run in trial.runs:
                self._recover_run(trial, run)
            if not any(other is trial for other, _ in self._pending):
                self._finish(trial)

    def _recover_run(self, trial: TrialRow, run: RunRow) -> None:
        folder = self.study.folder / run.path
        while is_running(folder):  # an orphan has heard of its controller's death and is saving its last step
            if SIGNALS.received is not None:
                raise Stop(SIGNALS.received)
            time.sleep(TICK_S)
        remove_task(folder)  # a controller that was killed has left it, and it may hold secrets
        outcome = read_outcome(folder)
        if outcome is None or outcome.status in ("stopped", "killed"):
            run.state = "waiting"
            self._pending.append((trial, run))
        elif run.state in ("waiting", "running", "stopped"):
            for row in (tail := Tail(folder / "metrics.csv")).new():
                run.tokens, run.tokens_per_s = int(row["train/tokens"]), tail.rate
            self._apply(run, outcome)
