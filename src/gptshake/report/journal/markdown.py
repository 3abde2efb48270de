"""A chapter as Markdown that a forge shows well and that people can read as it is. Every foreign text is escaped."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from gptshake.estimate.words import counted, duration, short_count
from gptshake.record.catalogue import Entry
from gptshake.record.figures import is_number
from gptshake.record.samples import Sample
from gptshake.report.changes import value_text
from gptshake.report.journal.boxes import box_line
from gptshake.report.journal.chapter import Chapter, Other, commit_of
from gptshake.report.journal.escape import cell, code, fenced, item, prose
from gptshake.report.journal.figures import Figures
from gptshake.report.study_text import table, verdict

_MOST = {"changes": 20, "commits": 12, "trials": 24, "letters": 300, "lines": 8}  # shown of each
_AGAINST = {"parent": "the run it began from", "original": "the run it repeats", "previous": "the entry before"}
Picture = tuple[str, Path]  # what it shows, where it lies
_HEAD = ("", "val/bpb", "val/loss", "test/bpb", "tokens", "time", "tokens/s", "MFU")


def entry(chapter: Chapter, pictures: Sequence[Picture], home: Path) -> str:
    """The Markdown between the marks of one entry.

    Args:
        chapter: what to say.
        pictures: what was drawn for it.
        home: folder of the journal's file, from which links lead.
    """
    story = chapter.story
    parts = [
        f'<a id="{story.id}"></a>',
        f"## {prose(chapter.date)} · {prose(chapter.title)}",
        f"**Verdict:** {prose(chapter.verdict)}",
        *_why(chapter),
        _origin(chapter, home),
        _commits(chapter.commits),
        _changes(chapter),
        _table(_HEAD, _results(chapter)) if chapter.figures.tokens else "",
        *(f"![{prose(what)}]({quote(os.path.relpath(path, home))})" for what, path in pictures),
        _settings(chapter.settings),
        *_findings(story.main),
        *(_study(chapter, home) if story.study is not None else _runs(chapter)),
        *_samples(story.main),
    ]
    return "\n\n".join(part for part in parts if part)


def unreadable(problems: Sequence[tuple[Path, str]], home: Path) -> str:
    """The list of records that cannot be read; empty if all can."""
    lines = [f"- {code(os.path.relpath(path, home))}: {prose(why)}" for path, why in problems]
    return "\n".join(["## Records that cannot be read", "", *lines]) if lines else ""


def _why(chapter: Chapter) -> list[str]:
    asked = [f"**Why:** {prose(text)}" for when, text in chapter.why if not when]
    later = [f"- {when}: {prose(text)}" for when, text in chapter.why if when]
    return [*asked, "\n".join([*later, *(box_line(prose(text), False) for text in chapter.to_do)])]


def _origin(chapter: Chapter, home: Path) -> str:
    """Version, commit, where the record lies, and the mirror."""
    info = chapter.story.main.info
    git = info["git"] if isinstance(info.get("git"), dict) else {}
    commit = commit_of(chapter.story.main)
    where = f"commit {code(commit[:8])}" if commit else "unversioned"
    dirty = ", with uncommitted changes" if git.get("dirty") else ""
    branch = f" on {code(str(git['branch']))}" if git.get("branch") and commit else ""
    parts = [f"version {prose(str(info.get('version', 'unknown')))}", f"{where}{branch}{dirty}"]
    parts += [f"record {code(os.path.relpath(chapter.story.folder, home))}", *_mirror(info.get("wandb"))]
    if not chapter.known_parent:
        parts.append(f"begun from {code(str(info['parent']))}, which is not among these runs")
    if info.get("reproduces"):
        parts.append(f"reproduces {code(str(info['reproduces']))}")
    return " · ".join(parts)


def _mirror(mirror: Any) -> list[str]:
    if not isinstance(mirror, dict):
        return []
    url = str(mirror.get("url") or "")
    if url.startswith(("https://", "http://")):
        return [f"[W&B](<{quote(url, safe=':/?=&%.~-_')}>)"]
    return ["W&B: offline, `gptshake task=sync` uploads it"] if mirror.get("mode") == "offline" else []


def _commits(subjects: Sequence[str]) -> str:
    if not subjects:
        return ""
    lines = [f"- {item(subject)}" for subject in subjects[: _MOST["commits"]]]
    more = [f"- and {len(subjects) - len(lines)} more"] if len(subjects) > len(lines) else []
    return "\n".join(["Commits since the entry before:", "", *lines, *more])


def _changes(chapter: Chapter) -> str:
    against = chapter.against
    if against is None:
        return ""
    name = f"{_AGAINST[against.what]}, [{against.id}](#{against.id})"
    if not chapter.changes:
        return f"{'But for what is swept, nothing' if chapter.story.study else 'Nothing'} that counts was changed against {name}."
    rows = [[cell(key), cell(value_text(old)), cell(value_text(new))] for key, (old, new) in chapter.changes.items()]
    more = f"\n\n… and {len(rows) - _MOST['changes']} keys more." if len(rows) > _MOST["changes"] else ""
    return f"Changed against {name}:\n\n{_table(('key', 'was', 'is'), rows[: _MOST['changes']])}{more}"


def _results(chapter: Chapter) -> list[list[str]]:
    rows = [[f"**{'best run' if chapter.story.is_sweep else 'this'}**", *_cells(chapter.figures)]]
    rows += [_difference(chapter.figures, other) for other in chapter.compared]
    if chapter.spread:
        mean, deviation, seeds = chapter.spread
        rows.append([f"{seeds} seeds", f"{mean:.4f} ± {deviation:.4f}", *[""] * 6])
    return rows


def _cells(figures: Figures) -> list[str]:
    losses = [f"{value:.4f}" if value is not None else "" for value in (figures.bpb, figures.loss, figures.test_bpb)]
    return [
        *losses,
        short_count(figures.tokens) if figures.tokens else "",
        duration(figures.seconds) if figures.seconds is not None else "",
        short_count(figures.rate) if figures.rate else "",
        f"{100 * figures.mfu:.1f} %" if figures.mfu else "",
    ]


def _difference(ours: Figures, other: Other) -> list[str]:
    """How this run lies to an earlier one: losses by their difference, the rest by its ratio."""
    theirs = other.figures
    losses = [(ours.bpb, theirs.bpb), (ours.loss, theirs.loss), (ours.test_bpb, theirs.test_bpb)]
    ratios = [(ours.tokens, theirs.tokens), (ours.seconds, theirs.seconds), (ours.rate, theirs.rate), (ours.mfu, theirs.mfu)]
    return [
        f"to the {other.what}, [{other.id}](#{other.id})",
        *(f"{a - b:+.4f}" if a is not None and b is not None else "" for a, b in losses),
        *(f"{a / b:.2f}×" if a and b else "" for a, b in ratios),
    ]


def _settings(settings: Mapping[str, str]) -> str:
    """The hyperparameters in two halves, one below the other, so that the table is no wider than a page."""
    names, values = [f"**{name}**" for name in settings], list(map(prose, settings.values()))
    half = (len(names) + 1) // 2
    padding = [""] * (2 * half - len(names))
    rows = [values[:half], [*names[half:], *padding], [*values[half:], *padding]]
    return _table([name.strip("*") for name in names[:half]], rows) if names else ""


def _findings(run: Entry) -> list[str]:
    """What another task than training found: the plain values that it keeps under its own name."""
    found = run.info.get(str(run.info.get("task")))
    if not isinstance(found, dict):
        return []
    cells = {str(key): value_text(value) for key, value in found.items() if is_number(value) or isinstance(value, str)}
    return [_table(tuple(map(prose, cells)), [list(map(cell, cells.values()))])] if cells else []


def _study(chapter: Chapter, home: Path) -> list[str]:
    """What the study found, as the terminal says it, and its trials."""
    study = chapter.story.study or {}
    sentences = []
    for text in verdict(study, Path(os.path.relpath(chapter.story.folder, home))):
        words, gap, line = text.partition(":  ")
        sentences.append(f"- {item(words)}: {code(line)}" if gap else f"- {item(text)}")
    head, rows = table(study)
    cells = [[f"**{prose(cell)}**" if row[0] and cell else prose(cell) for cell in row[1:]] for row in rows]
    return ["\n".join(sentences), *_folded(counted(len(rows), "trial"), tuple(map(prose, head)), cells)]


def _runs(chapter: Chapter) -> list[str]:
    """The runs of Hydra's basic sweeper."""
    if not chapter.story.is_sweep:
        return []
    rows = []
    for run in chapter.story.runs:
        bpb = run.summary.get("val/bpb")
        said = " ".join(str(text) for text in run.info.get("overrides", []) if "=" in str(text))
        mark = "**" if run is chapter.story.main else ""
        rows.append([cell(run.id), f"{mark}{run.status}{mark}", f"{bpb:.4f}" if is_number(bpb) else "", cell(said[-160:])])
    return _folded(counted(len(rows), "run"), ("run", "status", "val/bpb", "overrides"), rows)


def _folded(summary: str, head: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    more = f"\n\n… and {len(rows) - _MOST['trials']} more." if len(rows) > _MOST["trials"] else ""
    return [f"<details><summary>{summary}</summary>\n\n{_table(head, rows[: _MOST['trials']])}{more}\n\n</details>"]


def _samples(run: Entry) -> list[str]:
    """The first, the middle and the last text from one prompt."""
    texts = [sample for sample in run.samples if sample.title == "sample"]
    chosen = dict.fromkeys([texts[0], texts[len(texts) // 2], texts[-1]]) if texts else {}
    return [part for sample in chosen for part in _sample(run, sample)]


def _sample(run: Entry, sample: Sample) -> list[str]:
    prompts = run.config.get("callbacks.samples.prompts")
    texts = sample.text.split("\n---\n")
    known = isinstance(prompts, list) and len(prompts) == len(texts)
    said = f" from {code(repr(prompts[-1]))}" if known and isinstance(prompts, list) else ""
    text = texts[-1] if known else sample.text
    calm = re.sub(r"\n(?:[ \t]*\n)+", "\n\n", text).strip("\n")
    lines = calm[: _MOST["letters"]].split("\n")[: _MOST["lines"]]
    short = "\n".join(lines)
    wrapped = re.sub(r"([^\n]{100})(?=[^\n])", r"\1\n", short + (" …" if short != calm else ""))
    return [f"Written{said} after {short_count(sample.tokens)} tokens:", fenced(wrapped)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; columns without any cell are left out."""
    used = [column for column in range(len(head)) if any(row[column] for row in rows)]
    lines = [[head[column] for column in used], ["---"] * len(used), *([row[column] for column in used] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
