"""What the journal says of each experiment, as plain values: why, what changed, what came out, how that compares.

A plain run is one experiment, and so are all runs of a sweep together. A section speaks only of what was known when its run began:
the best before it, the seeds so far. So an old section never changes because of a new one, and the journal's diff stays small.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from gptshake.errors import RecordError
from gptshake.estimate.formatting import counted, short_count
from gptshake.estimate.lr_fit import ASSUMED_SD, LEAST_SD
from gptshake.estimate.significance import FEWEST, least_difference, welch
from gptshake.record.git import History
from gptshake.record.index import BROKEN, SECONDS, SPEED, STUDY_FILE, TOKENS, Entry, is_number, read_study
from gptshake.record.run import debugs
from gptshake.record.texts import read_notes
from gptshake.report.changes import SETTLED, changed_keys, counting, key_text, value_text
from gptshake.report.study_stats import Rows, best, run_values

UNEXPECTED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)  # of a record that was changed by hand
RESULTS = {"val/bpb": "val/bpb", "val/loss": "val/loss", "test/bpb": "test/bpb"} | {  # name in the journal -> figure
    **{"tokens": TOKENS, "time": SECONDS, "tokens/s": SPEED, "MFU": "perf/mfu"}
}
LOSSES = ("val/bpb", "val/loss", "test/bpb")
_LONGEST = 100  # letters of a heading
Results = Mapping[str, float | None]
Problem = tuple[Path, str]  # what cannot be listed, and why


@dataclass(frozen=True)
class Experiment:
    """A plain run, or all runs of a sweep."""

    id: str  # of its block, its anchor and its pictures
    started: float
    main: Entry  # the only run, or a sweep's best
    runs: tuple[Entry, ...]  # all of them, the oldest first
    folder: Path  # of the run, or of the sweep
    study: Rows | None = None  # study.json, where it is our sweeper's

    @property
    def is_sweep(self) -> bool:
        return self.folder != self.main.path or self.study is not None


class Reference(NamedTuple):
    """An earlier experiment that another is compared with."""

    id: str
    what: str  # parent, original, previous, best before
    results: Results


class Spread(NamedTuple):
    """How far seeds alone move val/bpb."""

    mean: float
    deviation: float
    seeds: int


@dataclass(frozen=True)
class Section:
    """One entry of the journal, all texts as they were written."""

    experiment: Experiment
    date: str
    title: str
    verdict: str
    results: Results
    notes: list[tuple[str, str]]  # date of a later note or nothing, text
    commits: list[str]  # subjects since the section before
    changes: dict[str, tuple[Any, Any]]
    against: Reference | None  # what the changes are changes of
    compared: list[Reference]
    spread: Spread | None


def find_experiments(entries: Sequence[Entry], multirun: Path) -> tuple[list[Experiment], list[Problem], int]:
    """The experiments, the oldest first; records that cannot be listed; and the number of ``debug=`` runs, which are left out.

    Args:
        entries: of the run index, the newest first.
        multirun: folder of sweeps.
    """
    problems = [(entry.path, entry.problem) for entry in entries if entry.status == BROKEN]
    whole = [entry for entry in reversed(entries) if entry.status != BROKEN]
    meant = [entry for entry in whole if not debugs(entry.info)]
    sweeps: dict[Path, list[Entry]] = {file.parent: [] for file in sorted(multirun.glob(f"*/{STUDY_FILE}"))}
    found = []
    for entry in meant:
        parts = entry.path.relative_to(multirun).parts if entry.path.is_relative_to(multirun) else ()
        if len(parts) > 1:
            sweeps.setdefault(multirun / parts[0], []).append(entry)
        else:
            found.append(Experiment(_safe_id(entry.id), entry.started, entry, (entry,), entry.path))
    for folder, runs in sweeps.items():
        study, problem = _study_of(folder)
        problems += [(folder, problem)] if problem else []
        if runs or study:
            began = study.get("started") if study else None
            started = float(began) if began else min((run.started for run in runs), default=0.0)
            found.append(Experiment(_safe_id(folder.name), started, _best_run(folder, runs, study), tuple(runs), folder, study))
    once: dict[str, Experiment] = {}
    for one in sorted(found, key=lambda one: (one.started, str(one.folder))):
        if (first := once.setdefault(one.id, one)) is not one:
            problems.append((one.folder, f"this has the id of {first.folder}: a copy, which is listed once."))
    return list(once.values()), problems, len(whole) - len(meant)


def _safe_id(name: str) -> str:
    """A name as a marker, an anchor and a file can hold it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def _study_of(folder: Path) -> tuple[Rows | None, str]:
    """study.json, or why it cannot be used; neither where there is none."""
    try:
        return (read_study(folder), "") if (folder / STUDY_FILE).exists() else (None, "")
    except RecordError as error:
        return None, str(error)


def _best_run(folder: Path, runs: list[Entry], study: Rows | None) -> Entry:
    """A sweep's best run, or the last one; a study none of whose runs began speaks for itself."""
    winner = best(study) if study else None
    paths = {folder / run["path"] for run in winner.trial["runs"] if run["state"] == "ok"} if winner else set()
    if ours := [run for run in runs if run.path in paths]:
        return ours[0]
    if scored := [run for run in runs if run.status == "ok" and is_number(run.summary.get("val/bpb"))]:
        return min(scored, key=lambda run: run.summary["val/bpb"])
    return runs[-1] if runs else Entry(folder, "failed", {"name": folder.name})


def sections(experiments: Sequence[Experiment]) -> tuple[list[Section], list[Problem]]:
    """A section for each experiment, in their order, and those whose records hold what no run writes."""
    timeline = Timeline(experiments)
    found, problems = [], []
    for experiment in experiments:
        try:
            found.append(timeline.section(experiment))
        except UNEXPECTED as error:
            problems.append(unexpected(experiment, error))
    return found, problems


def unexpected(experiment: Experiment, error: Exception) -> Problem:
    """Why a record that could be read cannot be listed."""
    return experiment.folder, f"its record holds what no run writes ({type(error).__name__}: {error})."


class Timeline:
    """What was known before each experiment, kept so that every comparison is one look-up; sections must come in time order."""

    def __init__(self, experiments: Sequence[Experiment]) -> None:
        self._history = History(commit for one in experiments if (commit := commit_of(one.main)))
        self._runs: dict[str, tuple[Experiment, Entry]] = {}  # by the run's id
        self._last: dict[Any, Section] = {}  # by task
        self._best: dict[tuple[Any, ...], tuple[float, int, Section]] = {}  # by text; val/bpb and place in time
        self._seeds: dict[str, dict[Any, Any]] = {}  # val/bpb by seed of the runs that have all other settings in common
        self._commit: str | None = None

    def section(self, experiment: Experiment) -> Section:
        """The section of the next experiment."""
        main, results, texts = experiment.main, results_of(experiment.main, experiment.study), _texts(experiment.main)
        against, origin = self._against(main)
        changes = _changes(experiment, origin)
        known = [self._best[text] for text in texts if text in self._best]
        rival = min(known, key=lambda one: one[:2])[2] if known else None
        spread = self._spread(experiment)
        compared = [against] if against and against.what != "previous" else []
        if rival and rival.experiment.id not in {one.id for one in compared}:
            compared.append(Reference(rival.experiment.id, "best before", rival.results))
        section = Section(
            experiment,
            _date(experiment),
            _title(experiment, changes),
            _verdict(experiment, results, rival, spread),
            results,
            [*([("", text)] if (text := main.note) else []), *_later_notes(experiment)],
            self._commits(main),
            changes,
            against,
            compared,
            spread,
        )
        self._remember(section, texts)
        return section

    def _remember(self, section: Section, texts: Sequence[tuple[Any, ...]]) -> None:
        experiment, main, bpb = section.experiment, section.experiment.main, section.results["val/bpb"]
        self._last[main.info.get("task")] = section
        self._commit = commit_of(main) or self._commit
        self._runs |= {run.id: (experiment, run) for run in experiment.runs}
        if bpb is not None and (experiment.study["state"] == "done" if experiment.study else main.status == "ok"):
            for text in texts:
                if text not in self._best or bpb < self._best[text][0]:
                    self._best[text] = bpb, len(self._runs), section

    def _against(self, main: Entry) -> tuple[Reference | None, Entry | None]:
        """What a run's changes are changes of: the run that it began from or repeats, else that of the section before of its task."""
        for what, id in (("parent", main.info.get("parent")), ("original", main.info.get("reproduces"))):
            if id in self._runs:
                experiment, run = self._runs[id]
                return Reference(experiment.id, what, results_of(run, None)), run
        last = self._last.get(main.info.get("task"))
        return (Reference(last.experiment.id, "previous", last.results), last.experiment.main) if last else (None, None)

    def _spread(self, experiment: Experiment) -> Spread | None:
        """Over the seeds of a sweep's winner, of a sweep of seeds, or of all runs so far that differ in their seed alone."""
        study, main = experiment.study, experiment.main
        values: list[Any] = []
        if study is not None:
            winner = best(study)
            values = run_values(winner.trial) if winner else []
            if [axis["key"] for axis in study["axes"]] == [study.get("seed_key")]:
                values = [trial["value"] for trial in study["trials"]]
        elif main.config and main.status == "ok":
            settings = {key: value for key, value in counting(main.config).items() if key not in ("seed", *SETTLED)}
            by_seed = self._seeds.setdefault(repr(sorted(settings.items())), {})
            by_seed[main.config.get("seed")] = main.summary.get("val/bpb")
            values = list(by_seed.values())
        values = [value for value in values if is_number(value)]
        return Spread(fmean(values), stdev(values), len(values)) if len(values) > 1 else None

    def _commits(self, main: Entry) -> list[str]:
        """Subjects of the commits between the last section that has one and this."""
        here = commit_of(main)
        return self._history.between(self._commit, here) if here and self._commit and here != self._commit else []


def results_of(run: Entry, study: Rows | None) -> dict[str, float | None]:
    """What came out of a run; with its study, the winner's mean. None is unknown."""
    found = {name: run.figures.get(figure) for name, figure in RESULTS.items()}
    winner = best(study) if study and study["objective"] == "val/bpb" else None
    found |= {"val/bpb": winner.value} if winner else {}
    return found if found["tokens"] else found | {"time": None, "tokens/s": None, "MFU": None}


def commit_of(entry: Entry) -> str | None:
    """The commit of a run's code."""
    return str((entry.info.get("git") or {}).get("commit") or "") or None


def _texts(entry: Entry) -> list[tuple[Any, ...]]:
    """What names the text that a run is validated on, and the rule of its bits per byte: runs that share a name compare.

    One is the hash of the text itself, which earlier versions did not record, the other that of its tokens.
    """
    data = entry.info.get("data") or {}
    split = tuple(str(entry.config.get(f"data.{key}")) for key in ("split", "val_fraction", "test_fraction"))
    hashes = {"tokens": data.get("fingerprint"), "documents": data.get("text")} if data.get("fingerprint") else {}
    return [(kind, str(value), split, entry.old_rule) for kind, value in hashes.items() if value is not None]


def _date(experiment: Experiment) -> str:
    """Day and time on the clock of the machine that ran it, as the run's name has them; else UTC."""
    named = [found for run in experiment.runs if (found := re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)-", run.name))]
    if named:
        return "{}-{}-{} {}:{}".format(*min(found.groups() for found in named))
    return f"{datetime.fromtimestamp(experiment.started, UTC):%Y-%m-%d %H:%M} UTC"


def _title(experiment: Experiment, changes: Mapping[str, tuple[Any, Any]]) -> str:
    """``tiny · wiki_char · excerpt106``, and what was swept, or what is new if that is little."""
    what = experiment.main.source[:_LONGEST] or experiment.id
    if experiment.study is not None:
        return f"{what} · sweep of {', '.join(key_text(str(axis['key']).lstrip('+')) for axis in experiment.study['axes'])}"
    if experiment.is_sweep:
        return f"{what} · {counted(len(experiment.runs), 'run')}"
    new = [f"{key_text(key)} {value_text(value)}" for key, (_, value) in changes.items()]
    return " · ".join([what, *new])[:_LONGEST] if len(new) <= 3 else what


def _later_notes(experiment: Experiment) -> list[tuple[str, str]]:
    """Notes that were added to the sweep or to any of its runs, by time."""
    folders = dict.fromkeys([experiment.folder, *(run.path for run in experiment.runs)])
    notes = sorted(one for folder in folders for one in read_notes(folder))
    return [(f"{datetime.fromtimestamp(one.time, UTC):%Y-%m-%d}", " ".join(one.text.split())) for one in notes]


def _changes(experiment: Experiment, origin: Entry | None) -> dict[str, tuple[Any, Any]]:
    """Keys that differ from another run; of a sweep without those that it varies."""
    if origin is None or not origin.config or not experiment.main.config:
        return {}
    varied = {str(axis["key"]).lstrip("+") for axis in experiment.study["axes"]} if experiment.study else set()
    changes = changed_keys(origin.config, experiment.main.config)
    return {key: pair for key, pair in changes.items() if key not in varied and key not in SETTLED}


def _verdict(experiment: Experiment, results: Results, rival: Section | None, spread: Spread | None) -> str:
    """One sentence that says how it ended and how it compares; a difference that seeds may have made is called none."""
    main, bpb, tokens = experiment.main, results["val/bpb"], results["tokens"]
    if experiment.study is None and main.status != "ok":
        why = main.reason
        place = f" after {short_count(tokens)} tokens" if tokens else " before the first step"
        return f"{main.status}{place}{f': {why}' if why else ''}".rstrip(".") + "."
    if bpb is None:
        return "no run of it came to an end." if experiment.is_sweep else "no validation, so nothing to compare."
    if rival is None or not (best_bpb := rival.results["val/bpb"]):
        return f"the first on this text: {bpb:.4f} bits per byte."
    gap, noise = difference(bpb, best_bpb, spread, rival.spread)
    ratio = tokens / theirs if tokens and (theirs := rival.results["tokens"]) else 1.0
    how = f"{gap:+.4f} bits per byte ({100 * gap / best_bpb:+.1f} %)" + (
        "" if 0.95 < ratio < 1.05 else f", with {ratio:.2g} times the tokens"
    )
    if noise:
        return f"is indistinguishable from the best before it, {how}; {noise}."
    return f"{'better' if gap < 0 else 'worse'} than the best before it, {how}."


def difference(bpb: float, best_bpb: float, spread: Spread | None, other: Spread | None) -> tuple[float, str | None]:
    """The difference to the best before, and what makes it none; None if seeds cannot have made it.

    Where both have seeds enough, their means are compared by Welch's t-test; else the two runs by the spread that is known, or assumed.
    """
    known = [one for one in (spread, other) if one and one.seeds >= FEWEST]
    if len(known) == 2:
        test = welch(known[0].mean - known[1].mean, *((one.deviation, one.seeds) for one in known))
        return test.mean, None if test.significant else f"means of {known[0].seeds} and {known[1].seeds} seeds"
    deviation = max(known[0].deviation, LEAST_SD * best_bpb) if known else ASSUMED_SD * best_bpb
    indistinct = abs(bpb - best_bpb) <= least_difference(deviation, known[0].seeds - 1 if known else math.inf)
    return bpb - best_bpb, f"seeds move it by ± {deviation:.4f}{'' if known else ', assumed'}" if indistinct else None
