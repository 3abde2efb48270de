"""Which runs, and in which order: a filter of words and comparisons, and a sort by any figure or key.

``model=tiny status=ok,failed lr>1e-3 seed!=1 overfit``: all of them must hold. A comparison is over whatever the record
has under that name (option, figure, config key or its end); a bare word is looked for in names, ids, studies and notes.
"""

import difflib
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatch
from typing import Any

from gptshake.errors import ConfigError
from gptshake.keys import RESULT, is_free
from gptshake.record.catalogue import Entry
from gptshake.record.figures import SPEED, TOKENS
from gptshake.record.metrics import COLUMNS
from gptshake.record.shape import STATUSES
from gptshake.report.changes import value_text
from gptshake.report.outcome import note, source

NEWEST = "started"
_SHORT = {"tokens": TOKENS, "tokens/s": SPEED, "bpb": "val/bpb", "loss": "val/loss", "mfu": "perf/mfu"}
_COMPARISON = re.compile(r"([^=<>!]+)(!=|<=|>=|==|=|<|>)(.*)", re.DOTALL)
_ORDER: dict[str, Callable[[Any, Any], bool]] = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_NOTHING = ("null", "none")
_UNITS = {"k": 1e3, "M": 1e6, "B": 1e9}
# How a time may be written -> how long it is; days that surely lead into the next month, or year.
_PERIODS = {
    "%Y-%m-%d": timedelta(days=1),
    "%Y-%m-%dT%H:%M": timedelta(minutes=1),
    "%Y-%m-%dT%H": timedelta(hours=1),
    "%Y-%m": timedelta(days=31),
    "%Y": timedelta(days=366),
}


def select(entries: Sequence[Entry], wish: str) -> list[Entry]:
    """The entries for which every part of the filter holds, in their order.

    Args:
        entries: all runs.
        wish: words and comparisons, split at spaces; empty for all.
    Raises:
        ConfigError: a comparison with a key that no run has (names the nearest), or with a value that cannot be compared.
    """
    everything = entries
    for word in wish.split():
        comparison = _COMPARISON.fullmatch(word)
        if not comparison and re.search("[=<>]", word):
            raise ConfigError(f"{word!r} compares nothing: write a key first, as in lr>1e-3, without spaces.")
        if comparison:
            _refuse_unknown(comparison[1], everything)
            _refuse_incomparable(everything, *comparison.groups())
        entries = [entry for entry in entries if (_holds(entry, *comparison.groups()) if comparison else _mentions(entry, word))]
    return list(entries)


def in_order(entries: Sequence[Entry], key: str) -> list[Entry]:
    """The entries by a figure or key, the smallest first; ``-key`` the largest first; those without it at the end.

    Raises:
        ConfigError: a key that no run has; names the nearest.
    """
    name = key.removeprefix("-")
    _refuse_unknown(name, entries)
    if name == NEWEST:
        return sorted(entries, key=lambda entry: entry.started, reverse=key == NEWEST)
    values = [(value_of(entry, name), entry) for entry in entries]
    there = sorted(((value, entry) for value, entry in values if value is not None), key=lambda pair: _rank(pair[0]), reverse=key != name)
    return [entry for _, entry in there] + [entry for value, entry in values if value is None]


def value_of(entry: Entry, key: str) -> Any:
    """What a run has under a name: of the record itself, an option, a figure, a config key or the end of just one; None if nothing."""
    key = _SHORT.get(key, key)
    own: dict[str, Callable[[], Any]] = {
        "id": lambda: entry.id,
        "name": lambda: entry.name,
        "status": lambda: entry.status,
        "study": lambda: entry.study,
        "note": lambda: note(entry),
        "task": lambda: entry.info.get("task"),
        NEWEST: lambda: datetime.fromtimestamp(entry.started).isoformat(" ", "minutes"),
    }
    if key in own:
        return own[key]()
    choices = entry.info.get("choices")
    for place in (choices if isinstance(choices, dict) else {}, entry.figures, entry.config):
        if key in place:
            return place[key]
    ends = [
        name for name in entry.config if name.endswith(f".{key}") and not is_free(name, RESULT) and not name.startswith("data.documents.")
    ]
    return entry.config[ends[0]] if len(ends) == 1 else None


def _holds(entry: Entry, key: str, sign: str, wanted: str) -> bool:
    if key == NEWEST:
        return _in_time(entry.started, sign, wanted)
    value = value_of(entry, key)
    if sign in _ORDER:
        a, b = _number(value), _number(wanted)
        return a is not None and b is not None and _ORDER[sign](a, b)
    return (sign == "!=") != any(_equal(value, word) for word in wanted.split(","))


def _equal(value: Any, wanted: str) -> bool:
    a, b = _number(value), _number(wanted)
    if a is not None and b is not None:
        return a == b
    texts = {str(value).lower(), value_text(value).lower()} | ({"null"} if value is None else set())
    return any(fnmatch(text, wanted.lower()) for text in texts)


def _in_time(started: float, sign: str, wanted: str) -> bool:
    """``>`` and ``>=`` from the beginning of the day, or minute, that was named; ``<`` before it, ``<=`` up to its end; ``=`` inside."""
    if sign not in _ORDER:
        return (sign == "!=") != any(first <= started < after for first, after in map(period, wanted.split(",")))
    first, after = period(wanted)
    return {">": first <= started, ">=": first <= started, "<": started < first, "<=": started < after}[sign]


def period(text: str) -> tuple[float, float]:
    """The beginning of a day, month, year, hour or minute and of the next one, in seconds since 1970.

    Args:
        text: ``today``, ``yesterday``, ``2026-11-20``, ``2026-11``, ``2026``, ``2026-11-20T18`` or ``2026-11-20T18:30``, local time.
    Raises:
        ConfigError: anything else.
    """
    today = datetime.now().replace(hour=0, minute=0, second=0, microsecond=0)
    days = {"today": 0, "yesterday": 1}
    if text.lower() in days:
        first = today - timedelta(days=days[text.lower()])
        return first.timestamp(), (first + timedelta(days=1)).timestamp()
    for form, step in _PERIODS.items():
        try:
            first = datetime.strptime(text, form)
            after = first + step
            if step.days > 1:
                after = after.replace(day=1, month=1 if form == "%Y" else after.month)
            return first.timestamp(), after.timestamp()
        except (ValueError, OverflowError):  # another form, or outside of the calendar
            continue
    raise ConfigError(f"started: {text!r} is no time: write today, yesterday, a date such as 2026-11-20, or 2026-11-20T18:30.")


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


def _rank(value: Any) -> tuple[bool, Any]:
    number = _number(value)
    return (False, number) if number is not None else (True, str(value).lower())


def _mentions(entry: Entry, word: str) -> bool:
    return word.lower() in " ".join([entry.name, entry.id, source(entry), entry.status, entry.study or "", note(entry)]).lower()


def _refuse_unknown(key: str, entries: Iterable[Entry]) -> None:
    known = {NEWEST, "id", "name", "status", "study", "note", "task", *_SHORT, *COLUMNS}
    entries = list(entries)
    if key in known or not entries or any(value_of(entry, key) is not None or key in entry.config for entry in entries):
        return
    names = [*known, *dict.fromkeys(name for entry in entries[:20] for name in entry.config)]
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.6) or [name for name in names if name.endswith(f".{key}")][:1]
    hint = (
        f"did you mean {near[0]}?" if near else "it takes options (model), figures (val/bpb, tokens, time) and config keys (optimizer.lr)."
    )
    raise ConfigError(f"No run has {key!r}: {hint}")


def _refuse_incomparable(entries: Iterable[Entry], key: str, sign: str, wanted: str) -> None:
    """Refuse a value that no run could hold for, whatever it has."""
    words = [wanted] if sign in _ORDER else wanted.split(",")
    if key == NEWEST:
        for word in words:
            period(word)
        return
    states = (*STATUSES, "killed", "broken")
    if key == "status" and (strange := [word for word in words if not any(fnmatch(state, word.lower()) for state in states)]):
        raise ConfigError(f"{key}{sign}{wanted}: no run can be {strange[0] or 'nothing'!r}; a status is one of {', '.join(states)}.")
    values = [value for entry in entries if (value := value_of(entry, key)) is not None]
    numbers = [value for value in values if _number(value) is not None]
    if sign in _ORDER and values and not numbers:
        raise ConfigError(f"{key}{sign}{wanted}: {key} is a text such as {value_text(values[0])}, which has no order; use = or !=.")
    for word in words:
        free = sign not in _ORDER and (len(numbers) < len(values) or not values or any(mark in word for mark in "*?[") or word in _NOTHING)
        if _number(word) is None and not free:
            raise ConfigError(f"{key}{sign}{wanted}: {key} is a number, and {word or 'nothing'!r} is none; write 1e-3 or 20M.")
