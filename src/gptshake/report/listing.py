"""Runs as a table for a terminal: one line a run, the trials of a study in one line.

Takes entries in their order and gives text that fits a width: the middle columns are shortened first, then the least needed
ones are left out. Broken records have a line like any other, and their reasons in full below.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from gptshake import console
from gptshake.estimate.words import counted, duration, short_count
from gptshake.keys import RESULT, is_free
from gptshake.record.catalogue import BROKEN, Entry
from gptshake.record.figures import SECONDS, SPEED, TOKENS
from gptshake.report.changes import key_text, value_text
from gptshake.report.outcome import note, one_line, reason, source
from gptshake.report.tables import aligned

COLUMNS = ("id", "started", "status", "trained", "changed", "val/bpb", "val/loss", "tokens", "time", "tokens/s", "note")
_LEFT = ("id", "started", "status", "trained", "changed")
_SHRINKS = {"trained": 18, "changed": 16, "note": 12}  # letters that must stay
_WIDEST = {"trained": 50, "changed": 60, "note": 50}
_SPARED_FIRST = ("note", "tokens/s", "val/loss", "time", "tokens", "started", "changed", "trained")
_GAP = 2
OLD = "*"  # behind bits per byte of an earlier version
_IN_TITLE = ("model", "data", "tokenizer.path", "trainer", "trainer.accelerator", "trainer.precision")  # or of the machine
Line = dict[str, str]  # column -> text


def lines(entries: Sequence[Entry], *, trials: bool = False) -> list[Line]:
    """One line for each run, in the entries' order.

    Args:
        entries: runs.
        trials: a line for each trial of a sweep, too; else a study has one line, where its first trial would stand.
    """
    now, common = time.time(), shared(entries)
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.path if trials or not entry.study else entry.study, []).append(entry)
    return [_study(key, group, common, now) if isinstance(key, str) else _run(group[0], common, now) for key, group in groups.items()]


def table(rows: Sequence[Line], width: int | None = None) -> str:
    """The lines in columns.

    Args:
        rows: from ``lines``.
        width: letters in a line of the terminal; None for no limit.
    """
    kept = [name for name in COLUMNS if any(row[name] for row in rows)]
    natural = {name: min(max(len(name), *(console.width(row[name]) for row in rows)), _WIDEST.get(name, 200)) for name in kept}
    tries = (_fitted(natural, _SPARED_FIRST[:spared], width) for spared in range(len(_SPARED_FIRST) + 1))
    widths = next((fitted for fitted in tries if width is None or _total(fitted) <= width), {"id": natural["id"]})
    head = {name: name for name in COLUMNS}
    cells = [[console.cut(row[name], widths[name], "…") for name in widths] for row in [head, *rows]]
    return aligned(cells, left=[place for place, name in enumerate(widths) if name in _LEFT])


def tally(entries: Sequence[Entry]) -> str:
    """``12 runs: 9 ok, 2 failed, 1 broken``, then a line for each broken record and what is wrong with it."""
    counted = ", ".join(f"{number} {status}" for status, number in Counter(entry.status for entry in entries).most_common())
    broken = [f"  broken: {one_line(str(entry.path))}: {reason(entry)}" for entry in entries if entry.status == BROKEN]
    return "\n".join([f"{len(entries)} run{'s' if len(entries) != 1 else ''}{f': {counted}' if counted else ''}", *broken])


def old_rule(entries: Sequence[Entry]) -> str:
    """What the mark means, if one of the runs has it."""
    marked = any(entry.old_rule and "val/bpb" in entry.figures for entry in entries)
    return f"{OLD} bits per byte by the old rule: what unknown tokens hide is left out, so do not compare them." if marked else ""


def shared(entries: Sequence[Entry]) -> dict[str, str]:
    """Changes that all runs have in common, so that they are shown once; a single run has none."""
    asked = [changes_of(entry).items() for entry in entries if entry.status != BROKEN]
    return {key: value for key, value in asked[0] if all((key, value) in other for other in asked)} if len(asked) > 1 else {}


def changes_text(changes: Mapping[str, str]) -> str:
    """``lr 3e-4, seed 2``."""
    return one_line(", ".join(f"{key_text(key)} {value}" for key, value in changes.items()))


def _own(entry: Entry, common: Mapping[str, str]) -> str:
    return changes_text({key: value for key, value in changes_of(entry).items() if key not in common})


def _run(entry: Entry, common: Mapping[str, str], now: float) -> Line:
    return _cells([entry], entry, now) | {
        "id": one_line(entry.id),
        "status": entry.status,
        "changed": _own(entry, common),
        "note": note(entry) if entry.status in ("ok", "running") else note(entry) or reason(entry),
    }


def _study(name: str, entries: Sequence[Entry], common: Mapping[str, str], now: float) -> Line:
    """A sweep: the figures of its best run, the time from its first start to its last end."""
    best = min(entries, key=lambda entry: entry.figures.get("val/bpb", float("inf")) if entry.status == "ok" else float("inf"))
    states = Counter(entry.status for entry in entries)
    why = _own(best, common)
    return _cells(entries, best, now) | {
        "id": one_line(name),
        "status": counted(len(entries), "trial")
        if set(states) == {"ok"}
        else ", ".join(f"{number} {state}" for state, number in states.items()),
        "changed": f"best {why}" if why and best.status == "ok" else why,
        "note": next(filter(None, map(note, entries)), ""),
    }


def _cells(entries: Sequence[Entry], shown: Entry, now: float) -> dict[str, str]:
    found = shown.figures
    tokens = sum(entry.figures.get(TOKENS, 0.0) for entry in entries)
    ends = [entry.started + entry.figures[SECONDS] for entry in entries if SECONDS in entry.figures]
    span = max(ends) - min(entry.started for entry in entries) if len(entries) > 1 and ends else found.get(SECONDS)
    return {
        "started": age(min(entry.started for entry in entries), now),
        "trained": source(shown),
        "val/bpb": f"{found['val/bpb']:.4f}{OLD if shown.old_rule else ''}" if "val/bpb" in found else "",
        "val/loss": f"{found['val/loss']:.4f}" if "val/loss" in found else "",
        "tokens": short_count(tokens) if tokens else "",
        "time": duration(span) if span is not None else "",
        "tokens/s": short_count(found[SPEED]) if SPEED in found else "",
    }


def changes_of(entry: Entry) -> dict[str, str]:
    """What was asked for beyond model and data, key -> value: a trial's point, or a run's overrides; the last of a key counts."""
    trial, overrides = entry.info.get("trial"), entry.info.get("overrides")
    params = trial.get("params") if isinstance(trial, dict) else None
    if isinstance(params, dict) and params:
        return {str(key).lstrip("+"): value_text(value) for key, value in params.items()}
    pairs = (str(text).lstrip("+~").partition("=") for text in (overrides if isinstance(overrides, list) else ()))
    return {key: value.strip("'\"") for key, _, value in pairs if not is_free(key, RESULT) and key not in _IN_TITLE}


def age(began: float, now: float) -> str:
    """When, for people: ``just now``, ``5 min ago``, ``3 h ago``, ``21 Nov 2026``."""
    passed = now - began
    if 0 <= passed < 60:
        return "just now"
    if 0 <= passed < 3600:
        return f"{passed // 60:.0f} min ago"
    if 0 <= passed < 86400:
        return f"{passed // 3600:.0f} h ago"
    return time.strftime("%d %b %Y", time.localtime(began))


def _fitted(natural: Mapping[str, int], without: Sequence[str], width: int | None) -> dict[str, int]:
    """Widths of the columns but some, letters taken from the widest that may be shortened until the line fits or none can give more."""
    widths = {name: wide for name, wide in natural.items() if name not in without}
    while width is not None and _total(widths) > width:
        able = [name for name, least in _SHRINKS.items() if widths.get(name, 0) > least]
        if not able:
            break
        widths[max(able, key=lambda name: widths[name])] -= 1
    return widths


def _total(widths: Mapping[str, int]) -> int:
    return sum(widths.values()) + _GAP * (len(widths) - 1)
