"""Which runs, in which order, as a table for a terminal: a filter of words and comparisons, a sort, one line a run.

``model=tiny status=ok,failed lr>1e-3 seed!=1 overfit``: all of them must hold. A comparison is over whatever the run index has under
that name (option, figure, config key or its end); a bare word is looked for in names, ids, studies and notes. The table fits a width:
the middle columns are shortened first, then the least needed ones are left out.
"""

import math
import operator
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatch
from typing import TYPE_CHECKING, Any

from gptshake import console
from gptshake.console import aligned, one_line
from gptshake.errors import ConfigError, closest
from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.keys import RESULT, is_free
from gptshake.record.index import BROKEN, METADATA, SECONDS, SPEED, TOKENS, Entry, runs_frame
from gptshake.record.metrics import COLUMNS as METRICS
from gptshake.record.shape import STATUSES
from gptshake.report.changes import key_text, value_text

if TYPE_CHECKING:
    import pandas as pd

NEWEST = "started"
OLD = "*"  # behind bits per byte of an earlier version
COLUMNS = ("id", "started", "status", "trained", "changed", "val/bpb", "val/loss", "tokens", "time", "tokens/s", "note")
_LEFT = ("id", "started", "status", "trained", "changed")
_SHRINKS = {"trained": 18, "changed": 16, "note": 12}  # characters that must stay
_WIDEST = {"trained": 50, "changed": 60, "note": 50}
_SPARED_FIRST = ("note", "tokens/s", "val/loss", "time", "tokens", "started", "changed", "trained")
_IN_TITLE = ("model", "data", "tokenizer.path", "trainer", "trainer.accelerator", "trainer.precision")  # or of the machine
_SHORT = {"tokens": TOKENS, "tokens/s": SPEED, "bpb": "val/bpb", "loss": "val/loss", "mfu": "perf/mfu"}
_KNOWN = (*METADATA, *_SHORT, *METRICS)  # no mistake, even where no run has it yet
_COMPARISON = re.compile(r"([^=<>!]+)(!=|<=|>=|==|=|<|>)(.*)", re.DOTALL)
_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}
FIGURES: dict[str, tuple[str, Callable[[float], str]]] = {  # for people -> figure, and how it is written
    **{name: (name, "{:.4f}".format) for name in ("val/bpb", "val/loss", "test/bpb", "train/loss")},
    **{"tokens": (TOKENS, short_count), "time": (SECONDS, duration), "tokens/s": (SPEED, short_count)},
    "MFU": ("perf/mfu", lambda share: f"{100 * share:.1f} %"),
}
Line = dict[str, str]  # column -> text


def select(entries: Sequence[Entry], text: str) -> list[Entry]:
    """The entries for which every part of the filter holds, in their order.

    Raises:
        ConfigError: a comparison with a key that no run has (names the nearest), or with a value that cannot be compared.
    """
    comparisons = []
    for word in text.split():
        if found := _COMPARISON.fullmatch(word):
            comparisons.append(found.groups())
        elif re.search("[=<>]", word):
            raise ConfigError(f"{word!r} compares nothing: write a key first, as in lr>1e-3, without spaces.")
    bare = [word.lower() for word in text.split() if not _COMPARISON.fullmatch(word)]
    mask = _holds(entries, comparisons) if comparisons and entries else [True] * len(entries)
    kept = []
    for entry, holds in zip(entries, mask, strict=True):
        words = " ".join([entry.name, entry.id, entry.source, entry.status, entry.study or "", entry.note] if bare else []).lower()
        kept += [entry] if holds and all(word in words for word in bare) else []
    return kept


def in_order(entries: Sequence[Entry], key: str) -> list[Entry]:
    """The entries by a figure or key, the smallest first; ``-key`` the largest first; those without it at the end.

    Raises:
        ConfigError: a key that no run has; names the nearest.
    """
    name = key.removeprefix("-")
    if name == NEWEST or not entries:
        return sorted(entries, key=lambda entry: entry.started, reverse=key == NEWEST)
    values = list(zip(_column(_frame(entries, [name]), name), entries, strict=True))

    def rank(pair: tuple[Any, Entry]) -> tuple[bool, Any]:
        return (False, number) if (number := _number(pair[0])) is not None else (True, str(pair[0]).lower())

    there = sorted((pair for pair in values if pair[0] is not None), key=rank, reverse=key != name)
    return [entry for _, entry in there] + [entry for value, entry in values if value is None]


def _holds(entries: Sequence[Entry], comparisons: Sequence[tuple[str, ...]]) -> "pd.Series[bool]":
    import pandas as pd  # late: a third of a second

    def matches(value: Any, words: Sequence[str]) -> bool:
        texts = {str(value).lower(), value_text(value).lower()} | ({"null"} if value is None else set())
        return any(fnmatch(text, word) for text in texts for word in words)

    mask, table = pd.Series(True, index=range(len(entries))), _frame(entries, [key for key, _, _ in comparisons])
    for key, sign, wanted in comparisons:
        if key == NEWEST:
            mask &= _in_time(pd.Series([entry.started for entry in entries]), sign, wanted)
            continue
        values = _column(table, key)
        numbers, words = values.map(_number).astype(float), wanted.split(",")
        _refuse_incomparable(values[values.notna()].tolist(), key, sign, wanted)
        if sign in _ORDER:
            mask &= _ORDER[sign](numbers, _number(wanted) or 0.0)  # it is a number, or refused
            continue
        equal = numbers.isin([number for word in words if (number := _number(word)) is not None])
        equal |= pd.Series([matches(value, [word.lower() for word in words]) for value in values])
        mask &= ~equal if sign == "!=" else equal
    return mask


def _in_time(started: "pd.Series[float]", sign: str, wanted: str) -> "pd.Series[bool]":
    """``>`` and ``>=`` from the beginning of the day, or minute, that was named; ``<`` before it, ``<=`` up to its end; ``=`` inside."""
    if sign not in _ORDER:
        inside = started != started
        for first, after in map(_period, wanted.split(",")):
            inside |= (first <= started) & (started < after)
        return ~inside if sign == "!=" else inside
    first, after = _period(wanted)
    return first <= started if sign in (">", ">=") else started < (first if sign == "<" else after)


def _period(text: str) -> tuple[float, float]:
    """The beginning of a day, month, year, hour or minute, in local time, and of the next one, in seconds since 1970."""
    import pandas as pd

    days = {"today": 0, "yesterday": 1}
    try:
        if text.lower() in days:
            found = pd.Period(datetime.now() - timedelta(days=days[text.lower()]), "D")
        elif re.fullmatch(r"\d{4}(-\d\d(-\d\d(T\d\d(:\d\d)?)?)?)?", text):
            found = pd.Period(text)
        else:
            raise ValueError(text)
        return found.start_time.to_pydatetime().timestamp(), (found + 1).start_time.to_pydatetime().timestamp()
    except (ValueError, OverflowError) as error:  # another form, or outside of the calendar
        said = f"started: {text!r} is not a time: use today, yesterday, a date such as 2026-11-20, or 2026-11-20T18:30."
        raise ConfigError(said) from error


def _frame(entries: Sequence[Entry], keys: Sequence[str]) -> "pd.DataFrame":
    """The run index; without the configs, which are slow to read, where no key is one of theirs."""
    table = runs_frame(entries, config=False)
    return table if all(_SHORT.get(key, key) in table for key in keys) else runs_frame(entries)


def _column(table: "pd.DataFrame", key: str) -> "pd.Series[Any]":
    """What each run has under a name: of the record itself, an option, a figure, a config key or the end of just one; None if nothing.

    Raises:
        ConfigError: no run has it, and none could have it; names the nearest.
    """
    name = _SHORT.get(key, key)
    if name in table:
        return table[name]
    ends = [end for end in table if end.endswith(f".{name}") and not is_free(end, RESULT) and not end.startswith("data.documents.")]
    found = [[value for value in row if value is not None] for row in table[ends].to_numpy(dtype=object)]
    column = table["id"].copy()
    column[:] = [values[0] if len(values) == 1 else None for values in found]
    if key not in _KNOWN and column.isna().all():
        near = closest(key, [*_KNOWN, *(name for name in table if not is_free(name, RESULT))])
        otherwise = "it takes options (model), figures (val/bpb, tokens, time) and config keys (optimizer.lr)."
        raise ConfigError(f"No run has {key!r}: {f'did you mean {near}?' if near else otherwise}")
    return column


def _refuse_incomparable(values: Sequence[Any], key: str, sign: str, wanted: str) -> None:
    """Refuse a value that no run could hold for, whatever it has."""
    words = [wanted] if sign in _ORDER else wanted.split(",")
    states = (*STATUSES, "killed", BROKEN)
    if key == "status" and (strange := [word for word in words if not any(fnmatch(state, word.lower()) for state in states)]):
        raise ConfigError(f"{key}{sign}{wanted}: no run can be {strange[0] or 'nothing'!r}; a status is one of {', '.join(states)}.")
    numeric = [_number(value) is not None for value in values]
    if sign in _ORDER and values and not any(numeric):
        raise ConfigError(f"{key}{sign}{wanted}: {key} is a text such as {value_text(values[0])}, which has no order; use = or !=.")
    for word in words:
        pattern = any(mark in word for mark in "*?[") or word in ("null", "none")
        if _number(word) is None and (sign in _ORDER or not (pattern or not all(numeric) or not values)):
            raise ConfigError(f"{key}{sign}{wanted}: {key} is a number, and {word or 'nothing'!r} is none; write 1e-3 or 20M.")


def _number(value: Any) -> float | None:
    """A number, also as people type it: 1e-3, 20M."""
    if isinstance(value, bool) or value is None:
        return None
    text = str(value)
    unit = _UNITS.get(text[-1:], 1.0)
    try:
        number = float(text[:-1] if unit > 1 else text) * unit
    except ValueError:
        return None
    return None if math.isnan(number) else number


def lines(entries: Sequence[Entry], *, trials: bool = False) -> list[Line]:
    """One line for each run, in the entries' order; without ``trials`` a study has one, where its first trial would stand."""
    now, common = time.time(), shared(entries)
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.path if trials or not entry.study else entry.study, []).append(entry)
    return [_study(key, group, common, now) if isinstance(key, str) else _run(group[0], common, now) for key, group in groups.items()]


def table(rows: Sequence[Line], width: int | None = None) -> str:
    """The lines in columns; ``width`` is in characters of the terminal, None for no limit."""
    kept = [name for name in COLUMNS if any(row[name] for row in rows)]
    widths = {name: min(max(len(name), *(console.width(row[name]) for row in rows)), _WIDEST.get(name, 200)) for name in kept}
    natural, spared = dict(widths), 0
    while width is not None and sum(widths.values()) + 2 * (len(widths) - 1) > width:
        if able := [name for name, least in _SHRINKS.items() if widths.get(name, 0) > least]:
            widths[max(able, key=lambda name: widths[name])] -= 1
        elif spared < len(_SPARED_FIRST):  # leave out one more column, and the others have their width again
            spared += 1
            widths = {name: wide for name, wide in natural.items() if name not in _SPARED_FIRST[:spared]}
        else:
            widths = {"id": natural["id"]}
            break
    cells = [[console.cut(row[name], widths[name], "…") for name in widths] for row in [{name: name for name in COLUMNS}, *rows]]
    return aligned(cells, left=[place for place, name in enumerate(widths) if name in _LEFT])


def tally(entries: Sequence[Entry]) -> str:
    """``12 runs: 9 ok, 2 failed, 1 broken``, then a line for each broken record and what is wrong with it."""
    states = ", ".join(f"{number} {status}" for status, number in Counter(entry.status for entry in entries).most_common())
    broken = [f"  broken: {one_line(str(entry.path))}: {entry.reason}" for entry in entries if entry.status == BROKEN]
    return "\n".join([f"{counted(len(entries), 'run', '')}{f': {states}' if states else ''}", *broken])


def old_rule(entries: Sequence[Entry]) -> str:
    marked = any(entry.old_rule and "val/bpb" in entry.figures for entry in entries)
    return f"{OLD} bits per byte by the old rule, without the charge for unknown tokens: do not compare them." if marked else ""


def shared(entries: Sequence[Entry]) -> dict[str, str]:
    """Changes that all runs have in common, so that they are shown once; a single run has none."""
    changes = [changes_of(entry).items() for entry in entries if entry.status != BROKEN]
    return {key: value for key, value in changes[0] if all((key, value) in other for other in changes)} if len(changes) > 1 else {}


def changes_text(changes: Mapping[str, str]) -> str:
    """``lr 3e-4, seed 2``."""
    return one_line(", ".join(f"{key_text(key)} {value}" for key, value in changes.items()))


def changes_of(entry: Entry) -> dict[str, str]:
    """What was asked for beyond model and data, key -> value: a trial's point, or a run's overrides; the last of a key counts."""
    params, overrides = entry.part("trial").get("params"), entry.info.get("overrides")
    if isinstance(params, dict) and params:
        return {str(key).lstrip("+"): value_text(value) for key, value in params.items()}
    pairs = (str(text).lstrip("+~").partition("=") for text in (overrides if isinstance(overrides, list) else ()))
    return {key: value.strip("'\"") for key, _, value in pairs if not is_free(key, RESULT) and key not in _IN_TITLE}


def _run(entry: Entry, common: Mapping[str, str], now: float) -> Line:
    note = entry.note if entry.status in ("ok", "running") else entry.note or entry.reason
    changed = changes_text({key: value for key, value in changes_of(entry).items() if key not in common})
    about = {"id": one_line(entry.id), "started": age(entry.started, now), "status": entry.status, "trained": entry.source}
    return about | {"changed": changed, **figure_texts(entry), "note": note}


def _study(name: str, entries: Sequence[Entry], common: Mapping[str, str], now: float) -> Line:
    """A sweep: the figures of its best run, the time from its first start to its last end."""
    best = min(entries, key=lambda entry: entry.figures.get("val/bpb", math.inf) if entry.status == "ok" else math.inf)
    states = ", ".join(f"{number} {state}" for state, number in Counter(entry.status for entry in entries).items())
    tokens, began = sum(entry.figures.get(TOKENS, 0.0) for entry in entries), min(entry.started for entry in entries)
    ends = [entry.started + entry.figures[SECONDS] for entry in entries if SECONDS in entry.figures]
    line = _run(best, common, now)
    return line | {
        "id": one_line(name),
        "started": age(began, now),
        "status": counted(len(entries), "trial") if all(entry.status == "ok" for entry in entries) else states,
        "changed": f"best {line['changed']}" if line["changed"] and best.status == "ok" else line["changed"],
        "tokens": short_count(tokens) if tokens else "",
        "time": duration(max(ends) - began) if ends else "",
        "note": next(filter(None, (entry.note for entry in entries)), ""),
    }


def figure_texts(entry: Entry) -> dict[str, str]:
    """The figures that tables show, as people read them; empty where there is none."""
    known = entry.figures
    texts = {name: text(known[figure]) if figure in known else "" for name, (figure, text) in FIGURES.items() if name in COLUMNS}
    return texts | ({"val/bpb": f"{texts['val/bpb']}{OLD}"} if entry.old_rule and texts["val/bpb"] else {})


def age(began: float, now: float) -> str:
    """When, for people: ``just now``, ``5 min ago``, ``3 h ago``, ``21 Nov 2026``."""
    passed = now - began
    if not 0 <= passed < 86400:
        return time.strftime("%d %b %Y", time.localtime(began))
    return "just now" if passed < 60 else f"{passed // 60:.0f} min ago" if passed < 3600 else f"{passed // 3600:.0f} h ago"
