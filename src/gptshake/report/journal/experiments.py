"""What the journal says of each experiment (a plain run, or all runs of a sweep), as plain values.

A section uses only what was known when its run began, so a new run never changes an older section.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from gptshake.errors import RecordError
from gptshake.estimate.formatting import counted, short_count
from gptshake.estimate.lr_fit import ASSUMED_SD, LEAST_SD
from gptshake.estimate.significance import FEWEST, least_difference, welch
from gptshake.record.git import commits_between
from gptshake.record.index import BROKEN, SECONDS, SPEED, STUDY_FILE, TOKENS, Entry, is_number, read_study
from gptshake.record.run import debugs
from gptshake.report.changes import SETTLED, changed_keys, counting, key_text, value_text
from gptshake.report.study_stats import Rows, best, run_values

UNEXPECTED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)  # of a record that was changed by hand
LOSSES = ("val/bpb", "val/loss", "test/bpb")
_LONGEST = 100  # letters of a heading
RESULTS = {**{name: name for name in LOSSES}, "tokens": TOKENS, "time": SECONDS, "tokens/s": SPEED, "MFU": "perf/mfu"}  # -> figure
Results = Mapping[str, float | None]  # None is unknown
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

    @property
    def varied(self) -> list[str]:
        """Keys of the study's axes."""
        return [str(axis["key"]).lstrip("+") for axis in self.study["axes"]] if self.study else []

    @cached_property
    def results(self) -> Results:
        """Of the main run; of a study the mean over the winner's seeds."""
        winner = best(self.study) if self.study and self.study["objective"] == "val/bpb" else None
        return results_of(self.main) | ({"val/bpb": winner.value} if winner else {})


class Reference(NamedTuple):
    """An earlier experiment that another is compared with: what it is to it (parent, original, previous, best before)."""

    id: str
    what: str
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
    verdict: str
    commits: list[str]  # subjects since the section before
    changes: dict[str, tuple[Any, Any]]
    against: Reference | None  # what the changes are changes of
    compared: list[Reference]
    spread: Spread | None

    @property
    def title(self) -> str:
        """``tiny · wiki_char · excerpt106``, and what was swept, or what is new if that is little."""
        one = self.experiment
        what = one.main.source[:_LONGEST] or one.id
        if one.is_sweep:
            swept = f"sweep of {', '.join(map(key_text, one.varied))}" if one.study else counted(len(one.runs), "run")
            return f"{what} · {swept}"
        new = [f"{key_text(key)} {value_text(value)}" for key, (_, value) in self.changes.items()]
        return " · ".join([what, *new])[:_LONGEST] if len(new) <= 3 else what


def find_experiments(entries: Sequence[Entry], multirun: Path) -> tuple[list[Experiment], list[Problem], int]:
    """The experiments, the oldest first; records that cannot be listed; and the number of ``debug=`` runs, which are left out.

    ``entries`` are of the run index, the newest first.
    """
    problems: list[Problem] = [(entry.path, entry.problem) for entry in entries if entry.status == BROKEN]
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
        study = None
        try:
            study = read_study(folder) if (folder / STUDY_FILE).exists() else None
        except RecordError as error:
            problems.append((folder, str(error)))
        if runs or study:
            started = float((study or {}).get("started") or min((run.started for run in runs), default=0.0))
            found.append(Experiment(_safe_id(folder.name), started, _best_run(folder, runs, study), tuple(runs), folder, study))
    once: dict[str, Experiment] = {}
    for one in sorted(found, key=lambda one: (one.started, str(one.folder))):
        if (first := once.setdefault(one.id, one)) is not one:
            problems.append((one.folder, f"this has the id of {first.folder}: a copy, which is listed once."))
    return list(once.values()), problems, len(whole) - len(meant)


def _safe_id(name: str) -> str:
    """A name as a marker, an anchor and a file can hold it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def _best_run(folder: Path, runs: list[Entry], study: Rows | None) -> Entry:
    """A sweep's best run, or the last one; a study none of whose runs began has none of its own."""
    winner = best(study) if study else None
    paths = {folder / run["path"] for run in winner.trial["runs"] if run["state"] == "ok"} if winner else set()
    ended = [run for run in runs if run.status == "ok" and is_number(run.summary.get("val/bpb"))]
    lowest = sorted(ended, key=lambda run: run.summary["val/bpb"])
    return [*(run for run in runs if run.path in paths), *lowest, *runs[-1:], Entry(folder, "failed", {"name": folder.name})][0]


class Timeline:
    """What was known before each experiment; sections must be asked for in the order of time."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[Experiment, Entry]] = {}  # by the run's id
        self._last: dict[Any, Experiment] = {}  # by task
        self._ended: list[tuple[frozenset[Any], float, Section]] = []  # names of the text, val/bpb
        self._seeds: dict[str, dict[Any, Any]] = {}  # val/bpb by seed of the runs that have all other settings in common
        self._commit: str | None = None

    def section(self, experiment: Experiment) -> Section:
        """The section of the next experiment."""
        main, bpb, texts = experiment.main, experiment.results["val/bpb"], _texts(experiment.main)
        against, origin = self._against(main)
        changes = changed_keys(origin.config, main.config) if origin and origin.config and main.config else {}
        changes = {key: pair for key, pair in changes.items() if key not in (*experiment.varied, *SETTLED)}
        known = [one for one in self._ended if one[0] & texts]
        rival = min(known, key=lambda one: one[1])[2] if known else None
        spread = self._spread(experiment)
        compared = [against] if against and against.what != "previous" else []
        if rival and rival.experiment.id not in [one.id for one in compared]:
            compared.append(Reference(rival.experiment.id, "best before", rival.experiment.results))
        here = commit_of(main)
        commits = commits_between(self._commit, here, "%s", ()) or [] if here and self._commit and here != self._commit else []
        section = Section(experiment, _verdict(experiment, rival, spread), commits, changes, against, compared, spread)
        self._commit = here or self._commit
        self._last[main.info.get("task")] = experiment
        self._runs |= {run.id: (experiment, run) for run in experiment.runs}
        if bpb is not None and (experiment.study["state"] == "done" if experiment.study else main.status == "ok"):
            self._ended.append((texts, bpb, section))
        return section

    def _against(self, main: Entry) -> tuple[Reference | None, Entry | None]:
        """What a run's changes are changes of: the run that it began from or repeats, else that of the section before of its task."""
        for what, id in (("parent", main.info.get("parent")), ("original", main.info.get("reproduces"))):
            if id in self._runs:
                experiment, run = self._runs[id]
                return Reference(experiment.id, what, results_of(run)), run
        last = self._last.get(main.info.get("task"))
        return (Reference(last.id, "previous", last.results), last.main) if last else (None, None)

    def _spread(self, experiment: Experiment) -> Spread | None:
        """Over the seeds of a sweep's winner, of a sweep of seeds, or of all runs so far that differ in their seed alone."""
        study, main = experiment.study, experiment.main
        values: list[Any] = []
        if study is not None and [axis["key"] for axis in study["axes"]] == [study.get("seed_key")]:
            values = [trial["value"] for trial in study["trials"]]
        elif study is not None:
            winner = best(study)
            values = run_values(winner.trial) if winner else []
        elif main.config and main.status == "ok":
            settings = {key: value for key, value in counting(main.config).items() if key not in ("seed", *SETTLED)}
            by_seed = self._seeds.setdefault(repr(sorted(settings.items())), {})
            by_seed[main.config.get("seed")] = main.summary.get("val/bpb")
            values = list(by_seed.values())
        values = [value for value in values if is_number(value)]
        return Spread(fmean(values), stdev(values), len(values)) if len(values) > 1 else None


def results_of(run: Entry) -> dict[str, float | None]:
    found = {name: run.figures.get(figure) for name, figure in RESULTS.items()}
    return found if found["tokens"] else found | {"time": None, "tokens/s": None, "MFU": None}


def commit_of(entry: Entry) -> str | None:
    return str(entry.part("git").get("commit") or "") or None


def _texts(entry: Entry) -> frozenset[tuple[Any, ...]]:
    """What names the text that a run is validated on, and the rule of its bits per byte: runs that share a name compare.

    One is the hash of the text itself, which earlier versions did not record, the other that of its tokens.
    """
    data = entry.part("data")
    split = tuple(str(entry.config.get(f"data.{key}")) for key in ("split", "val_fraction", "test_fraction"))
    hashes = {"tokens": data.get("fingerprint"), "documents": data.get("text")} if data.get("fingerprint") else {}
    return frozenset((kind, str(value), split, entry.old_rule) for kind, value in hashes.items() if value is not None)


def _verdict(experiment: Experiment, rival: Section | None, spread: Spread | None) -> str:
    """One sentence that says how it ended and how it compares; a difference that seeds may have made is called none."""
    main, bpb, tokens = experiment.main, experiment.results["val/bpb"], experiment.results["tokens"]
    if experiment.study is None and main.status != "ok":
        place = f" after {short_count(tokens)} tokens" if tokens else " before the first step"
        return f"{main.status}{place}{f': {main.reason}' if main.reason else ''}".rstrip(".") + "."
    if bpb is None:
        return "no run of it came to an end." if experiment.is_sweep else "no validation, so nothing to compare."
    if rival is None or not (best_bpb := rival.experiment.results["val/bpb"]):
        return f"the first on this text: {bpb:.4f} bits per byte."
    gap, noise = difference(bpb, best_bpb, spread, rival.spread)
    theirs = rival.experiment.results["tokens"]
    ratio = tokens / theirs if tokens and theirs else 1.0
    how = f"{gap:+.4f} bits per byte ({100 * gap / best_bpb:+.1f} %)"
    how += "" if 0.95 < ratio < 1.05 else f", with {ratio:.2g} times the tokens"
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
