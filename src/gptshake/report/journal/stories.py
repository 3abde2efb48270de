"""Which runs are told together: a plain run alone, the runs of a sweep as one story, the oldest story first.

Takes the catalogue. What cannot be read, or is a second copy of a run, becomes a sentence; a ``debug=`` run tells nothing and
is left out.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gptshake.errors import RecordError
from gptshake.record.catalogue import BROKEN, Entry
from gptshake.record.figures import is_number
from gptshake.record.run import debugs
from gptshake.record.studies import ROWS, read_rows_of
from gptshake.report.study_stats import Rows, best


@dataclass(frozen=True)
class Story:
    """One experiment."""

    id: str  # of its block, its anchor and its pictures
    started: float
    main: Entry  # the run that speaks for it: the only one, or a sweep's best
    runs: tuple[Entry, ...]  # all of them, the oldest first
    folder: Path  # of the run, or of the sweep
    study: Rows | None = None  # study.json, where it is our sweeper's

    @property
    def is_sweep(self) -> bool:
        """Whether it may have several runs."""
        return self.folder != self.main.path or self.study is not None


@dataclass(frozen=True)
class Gathered:
    """Everything that some folders hold."""

    stories: list[Story]  # the oldest first
    problems: list[tuple[Path, str]]  # what cannot be listed, and why
    left_out: int  # debug= runs


def gather(entries: Sequence[Entry], multirun: Path) -> Gathered:
    """Sort runs into stories.

    Args:
        entries: of ``catalogue``.
        multirun: folder of sweeps.
    """
    problems = [(entry.path, entry.problem) for entry in entries if entry.status == BROKEN]
    whole = [entry for entry in reversed(entries) if entry.status != BROKEN]
    told = [entry for entry in whole if not debugs(entry.info)]
    sweeps: dict[Path, list[Entry]] = {file.parent: [] for file in sorted(multirun.glob(f"*/{ROWS}"))}
    plain = []
    for entry in told:
        folder = _sweep_of(entry, multirun)
        if folder is None:
            plain.append(Story(_id(entry.id), entry.started, entry, (entry,), entry.path))
        else:
            sweeps.setdefault(folder, []).append(entry)
    found = plain
    for folder, runs in sweeps.items():
        rows, problem = _rows(folder)
        problems += [(folder, problem)] if problem else []
        found += [_sweep(folder, runs, rows)] if runs or rows else []
    return Gathered(_each_once(found, problems), problems, len(whole) - len(told))


def _id(name: str) -> str:
    """A name as a mark, an anchor and a file can hold it."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)


def _sweep_of(entry: Entry, multirun: Path) -> Path | None:
    """The folder of the sweep that a run lies in."""
    if not entry.path.is_relative_to(multirun):
        return None
    parts = entry.path.relative_to(multirun).parts
    return multirun / parts[0] if len(parts) > 1 else None


def _rows(folder: Path) -> tuple[Rows | None, str]:
    """study.json, if it is there, or why it cannot be used."""
    if not (folder / ROWS).exists():
        return None, ""
    try:
        rows = read_rows_of(folder)
        best(rows)
    except RecordError as error:
        return None, str(error)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return None, f"study.json holds what no study writes ({type(error).__name__}: {error}); its runs are listed without it."
    return rows, ""


def _sweep(folder: Path, runs: list[Entry], rows: Rows | None) -> Story:
    started = rows.get("started") if rows else None
    first = float(started) if is_number(started) and started else min((run.started for run in runs), default=0.0)
    return Story(_id(folder.name), first, _best(folder, runs, rows), tuple(runs), folder, rows)


def _best(folder: Path, runs: list[Entry], rows: Rows | None) -> Entry:
    """A sweep's best run, or the last one; a study none of whose runs began speaks for itself."""
    winner = best(rows) if rows else None
    if winner:
        paths = [folder / run["path"] for run in winner.trial["runs"] if run["state"] == "ok"]
        ours = [run for run in runs if run.path in paths]
        if ours:
            return ours[0]
    if not runs:
        return Entry(folder, "failed", {"name": folder.name})
    scored = [run for run in runs if run.status == "ok" and is_number(run.summary.get("val/bpb"))]
    return min(scored, key=lambda run: run.summary["val/bpb"]) if scored else runs[-1]


def _each_once(found: Iterable[Story], problems: list[tuple[Path, str]]) -> list[Story]:
    """Stories by their start, one for each id."""
    stories: dict[str, Story] = {}
    for story in sorted(found, key=lambda story: (story.started, str(story.folder))):
        if not math.isfinite(story.started):
            problems.append((story.folder, "run.json has no time at which the run began."))
        elif story.id in stories:
            problems.append((story.folder, f"this has the id of {stories[story.id].folder}: a copy, which is listed once."))
        else:
            stories[story.id] = story
    return list(stories.values())
