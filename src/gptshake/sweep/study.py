"""The study on the disk: an Optuna study in a journal file, and ``study.json``, the plain rows that everything else reads.

Only the controller writes here, under the folder's lock. The journal is the truth about points and values; study.json adds when and
where each run happened, and is replaced whole. Both are written before a run starts and after it ended.
"""

import json
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import ceil, floor, inf, log2
from pathlib import Path
from types import MappingProxyType
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import TrialState

from gptshake.errors import RecordError
from gptshake.files import write_atomic
from gptshake.record.index import STUDY_FILE, read_study
from gptshake.record.run import steady_clock
from gptshake.record.shape import SCHEMA
from gptshake.redaction import redacted
from gptshake.sweep.protocols import Host
from gptshake.sweep.pruning import RUNAWAYS, Patient
from gptshake.sweep.rows import Header, RunRow, TrialRow, refuse_differences
from gptshake.sweep.search import second_seeds, start_of
from gptshake.sweep.space import Axis, Params, Point, Value, kept, three_digits

JOURNAL = "journal.log"
BESIDE = 2.1  # log2 of a factor of 4, and of its rounding
_STATES = {TrialState.COMPLETE: "ok", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}


class Study:
    """One study, open for its controller.

    Args:
        folder: of the study; its lock is held by the caller.
        pruner: Optuna's; samplers come with ``ask``.
        host: says what the study may go on with.
        shared: what every run is given besides its own point.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        axes: Sequence[Axis],
        *,
        pruner: optuna.pruners.BasePruner | None = None,
        host: Host | None = None,
        shared: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        host = host or Host()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.folder, self.header, self.axes, self._shared = folder, header, list(axes), dict(shared)
        self.trials: dict[int, TrialRow] = {}
        self.confirm: list[TrialRow] = []
        self.state = "running"
        self.changed = False  # since study.json was written
        self.now = steady_clock()  # for whatever is subtracted: a system clock that is set must not change it
        self.deadline: float | None = None  # seconds since 1970 after which no trial begins
        self.sign = -1.0 if header.direction == "maximize" else 1.0  # times a value: lower is better
        self._start = start_of(axes)
        stored = read_study(folder) if (folder / STUDY_FILE).exists() else None
        if stored:
            refuse_differences(folder, stored, header, code=not host.dirty)
            header.started, header.frozen = stored["started"], stored["frozen"]
        self._storage = _open_storage(folder, started=stored is not None)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=next(iter(optuna.get_all_study_names(self._storage)), header.name),  # one a journal, however its folder is called
            direction="maximize" if self.sign < 0 else "minimize",
            load_if_exists=True,
            pruner=pruner,
        )
        self.pruner = self._study.pruner
        self._study.set_user_attr("tokens", header.tokens)
        self._study.set_metric_names([header.objective])
        self._load(stored or {})
        if begun := next(((trial, run) for trial in self.trials.values() for run in trial.runs), None):
            host.check_begun(folder / begun[1].path, self.task(*begun)["overrides"], header.name)
        self.write()

    def _load(self, stored: dict[str, Any]) -> None:
        """Take up what an earlier controller left: points and values from the journal, runs from study.json."""
        known = {row["number"]: row for row in stored.get("trials", [])}
        for frozen in self._study.get_trials(deepcopy=False, states=tuple(_STATES)):
            attributes = {} if frozen.state is TrialState.RUNNING else frozen.user_attrs
            self.trials[frozen.number] = TrialRow(
                frozen.number,
                {axis.key: decode(axis, frozen.params[_name_of(axis)]) for axis in self.axes if _name_of(axis) in frozen.params},
                list(frozen.user_attrs.get("overrides", [])),
                [_taken_up(run, stored["updated"]) for run in known.get(frozen.number, {}).get("runs", [])],
                attributes.get("state", _STATES[frozen.state]),
                frozen.value if frozen.state is TrialState.COMPLETE else None,
                attributes.get("reason"),
                attributes.get("at"),
            )
        self.confirm = [
            TrialRow(**(row | {"runs": [_taken_up(run, stored["updated"]) for run in row["runs"]]})) for row in stored.get("confirm", [])
        ]

    def points(self) -> list[Point]:
        """Every trial as the search sees it: lower values are better."""
        return [
            Point(trial.number, trial.params, None if trial.value is None else self.sign * trial.value, trial.state)
            for _, trial in sorted(self.trials.items())
        ]

    def ask(self, params: Params, sampler: optuna.samplers.BaseSampler | None = None) -> tuple[int, Params]:
        """Begin a trial; one entry of the journal, so that a kill leaves the trial or nothing.

        Args:
            params: the whole point; empty: the sampler chooses.
            sampler: chooses; takes the place of the study's from here on.
        Returns:
            The trial's number and its point.
        """
        if params:
            values = {_name_of(axis): encode(axis, params[axis.key]) for axis in self.axes}
            distributions = {_name_of(axis): _distribution(axis, params[axis.key]) for axis in self.axes}
            self._study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, params=values, distributions=distributions))
            return self._study.get_trials(deepcopy=False)[-1].number, params
        self._study.sampler = sampler or self._study.sampler
        number = self._study.ask({_name_of(axis): _distribution(axis) for axis in self.axes}).number
        trial_id, point = self._id(number), dict[str, Value]()
        chosen = self._storage.get_trial(trial_id).params
        for axis in self.axes:  # in as many digits as a person would type; the journal keeps these, too
            point[axis.key] = three_digits(axis, decode(axis, chosen[_name_of(axis)]))
            found = _distribution(axis)
            self._storage.set_trial_param(trial_id, _name_of(axis), found.to_internal_repr(encode(axis, point[axis.key])), found)
        return number, point

    def begin(self, row: TrialRow) -> None:
        """Keep a trial that was asked for, before any of its runs starts."""
        self.trials[row.number] = row
        self._storage.set_trial_user_attr(self._id(row.number), "overrides", row.overrides)
        self.changed = True

    def report(self, number: int, value: float, tokens: int, *, warming: bool = False) -> bool:
        """Keep a value that a running trial has reached; returns whether the trial should be pruned.

        The pruner has no say while the learning rate rises, for a spike passes; none over the starting values, which the others are
        compared with; and no rank counts before a trial has come to its end that reported by then, nor beside the best of a line
        or where a surface is fitted.
        """
        trial_id = self._id(number)
        self._storage.set_trial_intermediate_value(trial_id, tokens, value)
        if warming or (self._start and self.trials[number].params == self._start):
            return False
        pruner = self.pruner
        if not isinstance(pruner, optuna.pruners.ThresholdPruner):
            finished = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if not any(step <= tokens for trial in finished for step in trial.intermediate_values):
                return False
            if self._is_beside_the_best(number):
                pruner = RUNAWAYS if isinstance(pruner, Patient) else optuna.pruners.NopPruner()
        return pruner.prune(self._study, self._storage.get_trial(trial_id))

    def _is_beside_the_best(self, number: int) -> bool:
        """Whether a trial's loss is wanted, not its rank: where a surface is fitted, and along a line within a factor of 4 of the best."""
        if self.header.search != "line":
            return self.header.search == "plane"
        axis, ranking = self.axes[0], self.ranking()
        if not axis.log or not ranking:
            return True
        return abs(log2(float(self.trials[number].params[axis.key]) / float(ranking[0].params[axis.key]))) < BESIDE

    def tell(self, row: TrialRow) -> None:
        state = {"ok": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}.get(row.state, TrialState.FAIL)
        if row.value is None and state is TrialState.COMPLETE:
            state = TrialState.FAIL  # a task that returns no number is only run, not ranked; Optuna has no word for that
        for key in ("state", "reason", "at"):
            self._storage.set_trial_user_attr(self._id(row.number), key, getattr(row, key))
        self._study.tell(row.number, row.value if state is TrialState.COMPLETE else None, state)
        self.changed = True

    def task(self, trial: TrialRow, run: RunRow) -> dict[str, Any]:
        """What the app's child process is given for a run; what compares points and the seed have the last word."""
        keys = tuple(f"{axis.key}=" for axis in self.axes)
        swept = [text for text in trial.overrides if text.startswith(keys)]
        rest = [text for text in trial.overrides if text not in swept]
        seed = [] if run.seed is None else [f"{self.header.seed_key}={run.seed}"]
        return {
            "study": self.header.name,
            "folder": str(self.folder),
            "path": run.path,
            "number": trial.number,
            "repeat": run.repeat,
            "params": trial.params,
            "overrides": [*swept, *self.header.fixed, *kept(self.header.frozen, rest), *rest, *seed],
            "shared": self._shared,
        }

    def ranking(self) -> list[TrialRow]:
        finished = [trial for trial in self.trials.values() if trial.state == "ok" and trial.value is not None]
        return sorted(finished, key=lambda trial: self.sign * (trial.value or 0.0))

    def second_seeds(self) -> list[TrialRow]:
        """Trials of a line that a second seed is wanted of."""
        key = self.axes[0].key
        first = {float(trial.params[key]): trial for trial in self.ranking()}
        again = {float(row.params[key]): inf if row.value is None else self.sign * row.value for row in self.confirm if row.measures_noise}
        wanted = second_seeds([(value, self.sign * (trial.value or 0.0)) for value, trial in first.items()], again)
        return [first[value] for value in wanted]

    def failures(self) -> str | None:
        """A sentence about the points whose last trial failed, or that none has come to its end; else None."""
        last = {str(trial.params): trial for _, trial in sorted(self.trials.items())}
        failed = [trial for trial in last.values() if trial.state == "failed"]
        if failed:
            lines = "\n".join(f"  {self.folder / str(trial.number)}: {trial.reason}" for trial in failed[:10])
            return f"{len(failed)} of {len(last)} trials failed (details are in the file `output` of each folder):\n{lines}"
        if not last or any(trial.state not in ("diverged", "pruned") for trial in last.values()):
            return None
        how = " or ".join(sorted({trial.state for trial in last.values()})).replace("pruned", "were pruned")
        return f"{f'All {len(last)} trials' if len(last) > 1 else 'The only trial'} {how}, so there is no answer."

    def rows(self) -> dict[str, Any]:
        return asdict(self.header) | {
            "schema": SCHEMA,
            "state": self.state,
            "deadline": self.deadline,
            "updated": self.now(),
            "trials": [asdict(self.trials[number]) for number in sorted(self.trials)],
            "confirm": [asdict(row) for row in self.confirm],
        }

    def write(self) -> None:
        write_atomic(self.folder / STUDY_FILE, json.dumps(redacted(self.rows()), indent=1) + "\n")
        self.changed = False

    def _id(self, number: int) -> int:
        study_id = self._storage.get_study_id_from_name(self._study.study_name)
        return self._storage.get_trial_id_from_study_id_trial_number(study_id, number)


def _taken_up(run: Mapping[str, Any], updated: float) -> RunRow:
    """A run that an earlier controller left; of one that has not ended the time until then stays counted, and one at work may go on."""
    row = RunRow(**run)
    if row.state in ("running", "stopped") and row.started:
        row.spent += max(0.0, (row.ended or updated) - row.started)
        row.state, row.started, row.ended = "waiting", updated if row.state == "running" else None, None
    return row


def _open_storage(folder: Path, *, started: bool) -> BaseStorage:
    """The journal file in the study's folder.

    What a killed controller left is mended first: a lock that would stall us for 30 s, a torn last line that would spoil the next one.
    """
    path = folder / JOURNAL
    if started and not path.exists():
        raise RecordError(
            f"The study {folder.name} has no {JOURNAL}: it was kept in another storage (hydra.sweeper.storage, which was removed), "
            f"or the file was removed. Its results stay in {folder}; start a new study with study=<name>."
        )
    path.with_name(f"{JOURNAL}.lock").unlink(missing_ok=True)
    if path.exists():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def _name_of(axis: Axis) -> str:
    """The axis' name for Optuna: powers of two are searched by their exponent, so that doubling is one step everywhere."""
    return f"{axis.key}:log2" if axis.powers else axis.key


def _distribution(axis: Axis, value: Value | None = None) -> BaseDistribution:
    """What Optuna may choose from; a point of the user's own outside of the range widens it for this trial."""
    if not axis.numeric:
        return CategoricalDistribution(axis.choices)
    low, high = axis.bounds
    if isinstance(value, (int, float)):
        low, high = min(low, value), max(high, value)
    if axis.powers:
        return IntDistribution(ceil(log2(low)), floor(log2(high)))
    if axis.integer:
        return IntDistribution(ceil(low), floor(high), log=axis.log)
    return FloatDistribution(low, high, log=axis.log)


def encode(axis: Axis, value: Value) -> Value:
    return round(log2(float(value))) if axis.powers else value


def decode(axis: Axis, value: Any) -> Any:
    return 2**value if axis.powers else value
