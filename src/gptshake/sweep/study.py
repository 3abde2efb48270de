"""The study on the disk: an Optuna study in a journal file, and ``study.json``, the plain rows that everything else reads.

Only the controller writes here, under the folder's lease. The journal is the truth about points and values; study.json
adds when and where each run happened, and is replaced whole. Both are written before a run starts and after it ended, so a
study survives whoever dies.
"""

import json
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import ceil, log2
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

from gptshake.errors import RecordError
from gptshake.files import write_atomic
from gptshake.sweep.search import Point, readable
from gptshake.sweep.space import Axis, Params, Value

FREE = ("paths.", "logger", "note", "dirty", "callbacks")  # overrides that are not what a study is about
NUMBER = "value"  # the objective of a task that returns a number without a name
JOURNAL, ROWS = "journal.log", "study.json"
_STATES = {TrialState.COMPLETE: "ok", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed", TrialState.RUNNING: "running"}


@dataclass
class RunRow:
    """One run of a trial."""

    path: str  # relative to the study's folder
    repeat: int
    seed: int | None
    slot: int = 0
    state: str = "waiting"  # waiting, running, ok, pruned, diverged, failed, stopped
    value: float | None = None
    reason: str | None = None
    started: float | None = None  # seconds since 1970
    ended: float | None = None
    tokens_per_s: float | None = None
    tokens: int | None = None


@dataclass
class TrialRow:
    """One point and its runs; the point of a confirmation has the number of the trial that it confirms."""

    number: int
    params: Params
    overrides: list[str]
    runs: list[RunRow]
    state: str = "running"
    value: float | None = None
    reason: str | None = None
    at: int | None = None  # tokens at which it ended early


@dataclass
class Header:
    """What a study is about; a study goes on only under the same ``identity``."""

    name: str
    program: str
    objective: str
    direction: str
    label: str
    fixed: list[str]
    axes: list[dict[str, Any]]
    search: str
    n_trials: int | None
    repeats: int
    tokens: int | None
    slots: int
    device: str
    seconds: float | None
    ablate: dict[str, Any] | None
    seed_key: str
    frozen: list[str]  # what ``auto`` meant when the study began
    code: dict[str, Any]  # version of the code
    started: float = field(default_factory=time.time)

    def identity(self) -> dict[str, Any]:
        """What may not change under a study's name."""
        space = {axis["key"]: {key: axis[key] for key in ("low", "high", "log", "powers", "choices")} for axis in self.axes}
        fixed = {text.split("=", 1)[0]: text for text in self.fixed if not text.lstrip("+~").startswith(FREE)}
        return {
            "range of ": space,
            "": fixed,
            "study's ": {"objective": self.objective, "direction": self.direction, "repeats": self.repeats},
        }


class Study:
    """One study, open for its controller.

    Args:
        folder: of the study; its lease is held by the caller.
        header: what it is about.
        axes: what varies.
        pruner: Optuna's; samplers come with ``ask``.
        storage: an Optuna URL, or None for a journal file in the folder.
        may_differ: whether the study may go on with another version of the code.
    Raises:
        RecordError: the folder holds a study about something else, or of other code; with the differences.
    """

    def __init__(
        self,
        folder: Path,
        header: Header,
        axes: Sequence[Axis],
        *,
        pruner: optuna.pruners.BasePruner | None = None,
        storage: str | None = None,
        may_differ: bool = True,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.folder, self.header, self.axes = folder, header, list(axes)
        self.trials: dict[int, TrialRow] = {}
        self.confirm: list[TrialRow] = []
        self.state = "running"
        self.changed = False  # since study.json was written
        stored = read_study(folder)
        if stored:
            _refuse_differences(folder, stored, header)
            if not may_differ:
                _refuse_other_code(stored, header)
            header.started, header.frozen = stored["started"], stored["frozen"]
        self._storage = _storage(folder, storage)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=header.name,
            direction="maximize" if header.direction == "maximize" else "minimize",
            load_if_exists=True,
            pruner=pruner,
        )
        self._study.set_user_attr("tokens", header.tokens)
        self._study.set_metric_names([header.objective])
        self._load(stored or {})

    def points(self) -> list[Point]:
        """Every trial as the search sees it: lower values are better."""
        sign = -1.0 if self.header.direction == "maximize" else 1.0
        return [
            Point(trial.number, trial.params, None if trial.value is None else sign * trial.value, trial.state)
            for trial in sorted(self.trials.values(), key=lambda trial: trial.number)
        ]

    def ask(self, params: Params, sampler: optuna.samplers.BaseSampler | None = None) -> tuple[int, Params]:
        """Begin a trial; one entry of the journal, so that a kill leaves the trial or nothing.

        Args:
            params: the whole point; empty: the sampler chooses.
            sampler: chooses; takes the place of the study's from here on.
        Returns:
            The trial's number and its point.
        """
        if not params:
            self._study.sampler = sampler or self._study.sampler
            number = self._study.ask({_name(axis): _distribution(axis) for axis in self.axes}).number
            return number, self._rounded(number)
        values = {_name(axis): _encode(axis, params[axis.key]) for axis in self.axes}
        distributions = {_name(axis): _distribution(axis, params[axis.key]) for axis in self.axes}
        self._study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, params=values, distributions=distributions))
        return self._study.get_trials(deepcopy=False)[-1].number, params

    def begin(self, row: TrialRow) -> None:
        """Keep a trial that was asked for, before any of its runs starts."""
        self.trials[row.number] = row
        self._storage.set_trial_user_attr(self._id(row.number), "overrides", row.overrides)
        self.changed = True

    def report(self, number: int, value: float, tokens: int) -> bool:
        """Tell a value that a running trial has reached; returns whether the trial should be pruned."""
        trial_id = self._id(number)
        self._storage.set_trial_intermediate_value(trial_id, tokens, value)
        return self._study.pruner.prune(self._study, self._storage.get_trial(trial_id))

    def tell(self, row: TrialRow) -> None:
        """End a trial as its row says."""
        state = {"ok": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "diverged": TrialState.PRUNED}.get(row.state, TrialState.FAIL)
        if row.value is None and state is TrialState.COMPLETE:
            state = TrialState.FAIL  # a task that returns no number is only run, not ranked; Optuna has no word for that
        for key in ("state", "reason", "at"):
            self._storage.set_trial_user_attr(self._id(row.number), key, getattr(row, key))
        self._study.tell(row.number, row.value if state is TrialState.COMPLETE else None, state)
        self.changed = True

    def task(self, trial: TrialRow, run: RunRow) -> dict[str, Any]:
        """A run as the app's child process is told of it; what compares points and the seed have the last word."""
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
            "overrides": [*swept, *self.header.fixed, *self.header.frozen, *rest, *seed],
        }

    def ranking(self) -> list[TrialRow]:
        """Finished trials, the best first."""
        finished = [trial for trial in self.trials.values() if trial.state == "ok" and trial.value is not None]
        return sorted(finished, key=lambda trial: (trial.value or 0.0) * (-1 if self.header.direction == "maximize" else 1))

    def failures(self) -> str | None:
        """A sentence about the points whose last trial failed, or None."""
        last = {str(trial.params): trial for _, trial in sorted(self.trials.items())}
        failed = [trial for trial in last.values() if trial.state == "failed"]
        if not failed:
            return None
        lines = "\n".join(f"  {self.folder / str(trial.number)}: {trial.reason}" for trial in failed[:10])
        return f"{len(failed)} of {len(last)} trials failed (each folder's file `output` says more):\n{lines}"

    def rows(self) -> dict[str, Any]:
        """Everything as plain values, as in study.json."""
        return asdict(self.header) | {
            "state": self.state,
            "updated": time.time(),
            "trials": [asdict(self.trials[number]) for number in sorted(self.trials)],
            "confirm": [asdict(row) for row in self.confirm],
        }

    def write(self) -> None:
        """Replace study.json."""
        write_atomic(self.folder / ROWS, json.dumps(self.rows(), indent=1) + "\n")
        self.changed = False

    def _rounded(self, number: int) -> Params:
        """What a sampler chose, in as many digits as a person would type; the journal keeps these, too."""
        trial_id = self._id(number)
        chosen = self._storage.get_trial(trial_id).params
        params = {axis.key: readable(axis, _decode(axis, chosen[_name(axis)])) for axis in self.axes}
        for axis in self.axes:
            distribution = _distribution(axis)
            internal = distribution.to_internal_repr(_encode(axis, params[axis.key]))
            self._storage.set_trial_param(trial_id, _name(axis), internal, distribution)
        return params

    def _id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)

    def _load(self, stored: dict[str, Any]) -> None:
        """Take up what an earlier controller left: points and values from the journal, runs from study.json."""
        known = {row["number"]: row for row in stored.get("trials", [])}
        for frozen in self._study.get_trials(deepcopy=False, states=tuple(_STATES)):
            self.trials[frozen.number] = self._row(frozen, known.get(frozen.number, {}))
        self.confirm = [_trial_row(row) for row in stored.get("confirm", [])]
        self.write()

    def _row(self, frozen: FrozenTrial, known: dict[str, Any]) -> TrialRow:
        row = TrialRow(
            frozen.number,
            {axis.key: _decode(axis, frozen.params[_name(axis)]) for axis in self.axes if _name(axis) in frozen.params},
            list(frozen.user_attrs.get("overrides", [])),
            [RunRow(**run) for run in known.get("runs", [])],
            frozen.user_attrs.get("state", _STATES[frozen.state]),
            frozen.value if frozen.state is TrialState.COMPLETE else None,
            frozen.user_attrs.get("reason"),
            frozen.user_attrs.get("at"),
        )
        if frozen.state is TrialState.RUNNING:
            row.state, row.reason, row.at = "running", None, None
        return row


def read_study(folder: Path) -> dict[str, Any] | None:
    """What study.json holds; None if there is no study.

    Raises:
        RecordError: it is damaged.
    """
    try:
        text = (folder / ROWS).read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        rows: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise RecordError(f"{folder / ROWS} is damaged: {error}.") from error
    return rows


def _trial_row(row: dict[str, Any]) -> TrialRow:
    return TrialRow(**(row | {"runs": [RunRow(**run) for run in row["runs"]]}))


def _refuse_differences(folder: Path, stored: dict[str, Any], header: Header) -> None:
    old = Header(**{key: stored[key] for key in Header.__dataclass_fields__}).identity()
    lines = []
    for kind, now in header.identity().items():
        for key in sorted({*now, *old[kind]}):
            if now.get(key) != old[kind].get(key):
                lines.append(f"  {kind}{key}: was {_shown(old[kind].get(key))}, would be {_shown(now.get(key))}")
    if lines:
        raise RecordError(
            f"The study {header.name} is about something else:\n"
            + "\n".join(lines)
            + f"\nGive it back what it began with, or another name: "
            f"study=<name>; its results stay in {folder}."
        )


def _refuse_other_code(stored: dict[str, Any], header: Header) -> None:
    differing = [key for key in sorted({*stored["code"], *header.code}) if stored["code"].get(key) != header.code.get(key)]
    if differing:
        lines = "\n".join(f"  {key}: was {_shown(stored['code'].get(key))}, is {_shown(header.code.get(key))}" for key in differing)
        raise RecordError(
            f"The study {header.name} began with other code, so its trials would not compare:\n{lines}\n"
            "Go back to that code, give the study another name (study=<name>), or add --dirty to go on all the same."
        )


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item not in (None, False, []))
    return "nothing" if value is None else str(value)


def _storage(folder: Path, url: str | None) -> BaseStorage:
    if url:
        return optuna.storages.get_storage(url)
    path = folder / JOURNAL
    _mend(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalFileOpenLock(str(path))))


def _mend(journal: Path) -> None:
    """Take away what a killed controller left: a lock that would stall us for 30 s, a torn last line that would spoil the next one."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if journal.exists():
        content = journal.read_bytes()
        os.truncate(journal, content.rfind(b"\n") + 1)


def _name(axis: Axis) -> str:
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
        return IntDistribution(ceil(log2(low)), int(log2(high)))
    if axis.integer:
        return IntDistribution(ceil(low), int(high), log=axis.log)
    return FloatDistribution(low, high, log=axis.log)


def _encode(axis: Axis, value: Value) -> Value:
    return int(value).bit_length() - 1 if axis.powers else value


def _decode(axis: Axis, value: Any) -> Value:
    plain: Value = 2**value if axis.powers else value
    return plain
