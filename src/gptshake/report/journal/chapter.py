"""What the journal says of each experiment, as plain values: why, what changed, what came out, how that compares.

An entry speaks only of what was known when its run began: the best before it, the seeds so far. So an old entry never changes
because of a new one, and the journal's diff stays small.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean, stdev
from typing import Any

from gptshake.estimate.basin import ASSUMED_SD, LEAST_SD
from gptshake.estimate.significance import FEWEST, least_difference, welch
from gptshake.estimate.words import counted, short_count
from gptshake.record.catalogue import Entry
from gptshake.record.figures import is_number
from gptshake.record.history import History
from gptshake.record.notes import read_notes
from gptshake.report.changes import SETTLED, changed_keys, key_text, value_text
from gptshake.report.journal.figures import Figures, figures_of, settings_of
from gptshake.report.journal.stories import Story
from gptshake.report.outcome import note, reason, source
from gptshake.report.study_stats import best, run_values

UNEXPECTED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)  # of a record that was changed by hand
_TO_DO = re.compile(r"TODO:? +(\S.*)", re.DOTALL)  # a note that is a box
_LONGEST = 100  # letters of a heading
Spread = tuple[float, float, int]  # mean of val/bpb, standard deviation between seeds, seeds


@dataclass(frozen=True)
class Other:
    """An earlier experiment that this one is compared with."""

    id: str
    what: str  # parent, original, previous, best before
    figures: Figures


@dataclass(frozen=True)
class Text:
    """What text an experiment is validated on; losses of other texts do not compare."""

    documents: str | None  # hash of the text itself; runs of earlier versions did not record it
    tokens: str  # hash of the text as its tokenizer encodes it
    split: tuple[Any, ...]

    def is_of(self, other: "Text") -> bool:
        """Whether both are the same part of the same text, whatever the tokenizers."""
        same = self.tokens == other.tokens or (self.documents is not None and self.documents == other.documents)
        return same and self.split == other.split


@dataclass(frozen=True)
class Chapter:
    """One entry of the journal, all texts as they were written."""

    story: Story
    date: str
    figures: Figures
    title: str
    status: str
    verdict: str
    why: list[tuple[str, str]] = field(default_factory=list)  # date of a later note or nothing, text
    to_do: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)  # since the entry before
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    against: Other | None = None  # what the changes are changes of
    known_parent: bool = True  # whether the run that it began from is among the runs
    compared: list[Other] = field(default_factory=list)
    spread: Spread | None = None
    settings: dict[str, str] = field(default_factory=dict)
    signature: str = ""  # all that can change its result but the seed
    text: Text | None = None  # what it was validated on


def chapters(stories: Sequence[Story]) -> tuple[list[Chapter], list[tuple[Story, str]]]:
    """Every story told, the oldest first, and those whose records hold what no run writes, with the reason."""
    told: list[Chapter] = []
    problems = []
    history = History(commit for story in stories if (commit := commit_of(story.main)))
    for story in stories:
        try:
            told.append(_tell(story, told, history))
        except UNEXPECTED as error:
            problems.append((story, unexpected(error)))
    return told, problems


def unexpected(error: Exception) -> str:
    """Why a record that could be read cannot be listed."""
    return f"its record holds what no run writes ({type(error).__name__}: {error})."


def _tell(story: Story, before: Sequence[Chapter], history: History) -> Chapter:
    main, figures = story.main, figures_of(story.main, story.study)
    against, origin = _against(main, before)
    changes = _changes(story, origin)
    text = _text_of(main)
    rival = _best_before(text, [one for one in before if one.story.main.old_rule == main.old_rule])
    compared = [against] if against and against.what != "previous" else []
    compared += (
        [Other(rival.story.id, "best before", rival.figures)] if rival and rival.story.id not in {one.id for one in compared} else []
    )
    signature = _signature(main)
    spread = _spread(story, before, signature)
    notes = [*_asked(story), *_later(story)]
    return Chapter(
        story,
        _date(story),
        figures,
        _title(story, changes),
        main.status if story.study is None else str(story.study.get("state", "")),
        _verdict(story, figures, rival, spread),
        [(when, text) for when, text in notes if not _TO_DO.match(text)],
        [found[1] for _, text in notes if (found := _TO_DO.match(text))],
        _commits(story, before, history),
        changes,
        against,
        not main.info.get("parent") or (against is not None and against.what == "parent"),
        compared,
        spread,
        settings_of(main),
        signature,
        text,
    )


def _date(story: Story) -> str:
    """Day and time on the clock of the machine that ran it, as the run's name has them; else UTC."""
    named = [found for run in story.runs if (found := re.match(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)-", run.name))]
    if named:
        year, month, day, hour, minute = min(found.groups() for found in named)
        return f"{year}-{month}-{day} {hour}:{minute}"
    return f"{datetime.fromtimestamp(story.started, UTC):%Y-%m-%d %H:%M} UTC"


def _title(story: Story, changes: Mapping[str, tuple[Any, Any]]) -> str:
    """``tiny · wiki_char · excerpt106``, and what was swept, or what is new if that is little."""
    what = source(story.main)[:_LONGEST] or story.id
    if story.study is not None:
        return f"{what} · sweep of {', '.join(key_text(str(axis['key']).lstrip('+')) for axis in story.study['axes'])}"
    if story.is_sweep:
        return f"{what} · {counted(len(story.runs), 'run')}"
    new = [f"{key_text(key)} {value_text(value)}" for key, (_, value) in changes.items()]
    return " · ".join([what, *new])[:_LONGEST] if len(new) <= 3 else what


def _asked(story: Story) -> list[tuple[str, str]]:
    text = note(story.main)
    return [("", text)] if text else []


def _later(story: Story) -> list[tuple[str, str]]:
    """Notes that were added to the sweep or to any of its runs, by time."""
    folders = dict.fromkeys([story.folder, *(run.path for run in story.runs)])
    notes = sorted(one for folder in folders for one in read_notes(folder))
    return [(f"{datetime.fromtimestamp(one.time, UTC):%Y-%m-%d}", " ".join(one.text.split())) for one in notes]


def _commits(story: Story, before: Sequence[Chapter], history: History) -> list[str]:
    """Subjects of the commits between the last entry that has one and this."""
    here = commit_of(story.main)
    last = next((commit for one in reversed(before) if (commit := commit_of(one.story.main))), None)
    return history.between(last, here) if here and last else []


def commit_of(entry: Entry) -> str | None:
    """The commit of a run's code."""
    git = entry.info.get("git")
    commit = git.get("commit") if isinstance(git, dict) else None
    return str(commit) if commit else None


def _against(main: Entry, before: Sequence[Chapter]) -> tuple[Other | None, Entry | None]:
    """What a run's changes are changes of: the run that it began from or repeats, else the one of the entry before of its task."""
    for what, id in (("parent", main.info.get("parent")), ("original", main.info.get("reproduces"))):
        for one in reversed(before) if id else ():
            if run := next((run for run in one.story.runs if run.id == id), None):
                return Other(one.story.id, what, figures_of(run, None)), run
    last = next((one for one in reversed(before) if one.story.main.info.get("task") == main.info.get("task")), None)
    return (Other(last.story.id, "previous", last.figures), last.story.main) if last else (None, None)


def _changes(story: Story, origin: Entry | None) -> dict[str, tuple[Any, Any]]:
    """Keys that differ from another run; of a sweep without those that it varies."""
    if origin is None or not origin.config or not story.main.config:
        return {}
    varied = {str(axis["key"]).lstrip("+") for axis in story.study["axes"]} if story.study else set[str]()
    return {key: pair for key, pair in changed_keys(origin.config, story.main.config).items() if key not in varied and key not in SETTLED}


def _text_of(entry: Entry) -> Text | None:
    """What text a run is validated on; None if that is not known."""
    data = entry.info.get("data") or {}
    split = tuple(entry.config.get(f"data.{key}") for key in ("split", "val_fraction", "test_fraction"))
    return Text(data.get("text"), data["fingerprint"], split) if data.get("fingerprint") else None


def _best_before(text: Text | None, before: Sequence[Chapter]) -> Chapter | None:
    rivals = [
        one for one in before if one.figures.bpb is not None and one.status in ("ok", "done") and text and one.text and text.is_of(one.text)
    ]
    return min(rivals, key=lambda one: one.figures.bpb or math.inf) if rivals else None


def _signature(entry: Entry) -> str:
    """All that can change a result but the seed."""
    return repr(sorted((key, repr(new)) for key, (_, new) in changed_keys({}, entry.config).items() if key not in ("seed", *SETTLED)))


def _spread(story: Story, before: Sequence[Chapter], signature: str) -> Spread | None:
    """Over the seeds of a sweep's winner, of a sweep of seeds, or of all runs so far that differ in their seed alone."""
    study = story.study
    if study is not None:
        winner = best(study)
        values = run_values(winner.trial) if winner else []
        if [axis["key"] for axis in study["axes"]] == [study.get("seed_key")]:
            values = [trial["value"] for trial in study["trials"] if is_number(trial["value"])]
    elif story.main.config and story.main.status == "ok":
        twins = [one.story.main for one in before if one.status == "ok" and one.signature == signature]
        by_seed = {run.config.get("seed"): run.summary.get("val/bpb") for run in [*twins, story.main]}
        values = [value for value in by_seed.values() if value is not None and is_number(value)]
    else:
        values = []
    return (fmean(values), stdev(values), len(values)) if len(values) > 1 else None


def _verdict(story: Story, figures: Figures, rival: Chapter | None, spread: Spread | None) -> str:
    """One sentence that says how it ended and how it compares; a difference that seeds make is called none."""
    main = story.main
    if story.study is None and main.status != "ok":
        why = reason(main)
        place = f" after {short_count(figures.tokens)} tokens" if figures.tokens else " before the first step"
        return f"{main.status}{place}{f': {why}' if why else ''}".rstrip(".") + "."
    if figures.bpb is None:
        return "no run of it came to an end." if story.is_sweep else "no validation, so nothing to compare."
    if rival is None or rival.figures.bpb is None:
        return f"the first on this text: {figures.bpb:.4f} bits per byte."
    gap, noise = _compared(figures.bpb, rival.figures.bpb, spread, rival.spread)
    how = f"{gap:+.4f} bits per byte ({100 * gap / rival.figures.bpb:+.1f} %)"
    tokens = _more_tokens(figures, rival.figures)
    if noise:
        return f"is indistinguishable from the best before it, {how}{tokens}; {noise}."
    return f"{'better' if gap < 0 else 'worse'} than the best before it, {how}{tokens}."


def _compared(bpb: float, best: float, spread: Spread | None, other: Spread | None) -> tuple[float, str | None]:
    """The difference to the best before, and what makes it none; None if seeds cannot have made it.

    Where both have seeds enough, their means are compared by Welch's t-test; else the two runs by the spread that is known, or assumed.
    """
    known = [one for one in (spread, other) if one and one[2] >= FEWEST]
    if len(known) == 2:
        test = welch(known[0][0] - known[1][0], *(one[1:] for one in known))
        return test.mean, None if test.significant else f"means of {known[0][2]} and {known[1][2]} seeds"
    deviation = max(known[0][1], LEAST_SD * best) if known else ASSUMED_SD * best
    indistinct = abs(bpb - best) <= least_difference(deviation, known[0][2] - 1 if known else math.inf)
    return bpb - best, f"seeds move it by ± {deviation:.4f}{'' if known else ', assumed'}" if indistinct else None


def _more_tokens(figures: Figures, other: Figures) -> str:
    if not figures.tokens or not other.tokens or 0.95 < figures.tokens / other.tokens < 1.05:
        return ""
    return f", with {figures.tokens / other.tokens:.2g} times the tokens"
