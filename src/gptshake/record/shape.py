"""What run.json and study.json must look like, so that a reader may trust them: what was edited by hand, torn, or is of another program.

A field that is not there, or null, is fine: older records lack some, and runs at work have no end yet.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from gptshake.errors import RecordError
from gptshake.files import read_text

SCHEMA = 1  # of run.json and study.json; raised by a change that would make an older gptshake misread them; none: before it was written
STATUSES = ("running", "ok", "failed", "interrupted", "pruned")
LARGEST = 64 << 20  # bytes of such a file
DEEPEST = 50  # mappings and lists in each other; ours are four deep
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,254}")  # of one folder, which the user may have chosen
Check = tuple[Callable[[Any], bool], str]  # whether a value fits, and what one that fits is


def read_record(file: Path, what: str, *needed: str) -> dict[str, Any]:
    """The mapping of a run.json or study.json, whatever its fields hold; only those that are needed are there for sure.

    Raises:
        RecordError: it is missing, damaged, or written by a gptshake whose records this one cannot read.
    """
    try:
        record = json.loads(read_text(file, LARGEST))
    except OSError as error:
        raise RecordError(f"{file.parent} is not a {what}: it has no readable {file.name}.") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{file} is damaged: {error if isinstance(error, ValueError) else 'it is nested too deep'}.") from error
    if not isinstance(record, dict) or not record.keys() >= {*needed}:
        raise RecordError(
            f"{file} is not the record of a {what.removesuffix(' directory')}: it lacks {', '.join(needed[:-1])} or {needed[-1]}."
        )
    schema = record.get("schema") or SCHEMA
    if not isinstance(schema, int) or schema > SCHEMA:
        raise RecordError(f"{file} was written by a newer gptshake (schema {schema}, this one reads up to {SCHEMA}): update gptshake.")
    return record


def malformed(info: Mapping[str, Any]) -> str | None:
    """Why it is not the record of a run, in words; None if it can be read."""
    for key, plain in (("id", _ID), ("name", _NAME)):
        if not isinstance(info[key], str):
            return f"{key} is not a text"
        if not plain.fullmatch(info[key]):
            return f"{key} cannot be part of a path"
    return _misfit(info, _RUN_JSON, "it") or _unreadable(info)


def malformed_study(rows: Any) -> str | None:
    """Why it is not what a study's study.json holds, in words; None if it can be read."""
    return _unreadable(rows) or _misfit(rows, _STUDY, "it") or _inconsistent(rows)


def _misfit(node: Any, shape: Any, place: str) -> str | None:
    """Where a value has not its shape: a mapping of keys, a list of what all entries are, or a check."""
    if isinstance(shape, dict):
        if not isinstance(node, dict):
            return f"{place} is not a mapping"
        if lacking := sorted(_NEEDED & shape.keys() - node.keys()):
            return f"{place} lacks {lacking[0]}"
        return next((why for key, child in shape.items() if (why := _misfit(node.get(key), child, key))), None)
    if isinstance(shape, list):
        if not isinstance(node, list):
            return f"{place} is not a list"
        return next((why for n, child in enumerate(node) if (why := _misfit(child, shape[0], f"{place}, entry {n}"))), None)
    fits, kind = shape
    return None if fits(node) else f"{place} is not {kind}"


def _inconsistent(study: Mapping[str, Any]) -> str | None:
    confirm = study.get("confirm") or []
    if not all(trial["runs"] for trial in confirm):
        return "a confirmation has no runs"
    for axis in study["axes"]:
        values = [trial["params"].get(axis["key"], ...) for trial in (*study["trials"], *confirm)]
        numeric = axis["low"] is not None or (axis.get("choices") and all(map(_is_number, axis["choices"])))
        if ... in values or (numeric and not all(map(_is_number, values))):
            return f"a trial lacks a value of {axis['key']}"
        if axis.get("log") and any(_is_number(value) and value <= 0 for value in (*values, axis["low"], axis["high"])):
            return f"{axis['key']} is on a logarithmic scale, but not above 0"
    return "ablate is no axis" if study.get("ablate") and [axis["key"] for axis in study["axes"]] != ["ablate"] else None


def _unreadable(node: Any, depth: int = 0) -> str | None:
    """Values that a JSON file can hold, but no reader can use."""
    if depth > DEEPEST:
        return f"it is nested more than {DEEPEST} deep"
    if isinstance(node, int) and abs(node) > 1e300:  # more than a float holds
        return "it holds a number that is too large"
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((why for child in children if (why := _unreadable(child, depth + 1))), None)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_moment(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1e11  # what a calendar can hold: about the year 5138


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_list(value: Any, kind: type) -> bool:
    return isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _are_sessions(value: Any) -> bool:
    return _is_list(value, dict) and all(_is_moment(one.get("started")) and _is_moment(one.get("ended", one["started"])) for one in value)


def _or_null(check: Check) -> Check:
    return (lambda value: value is None or check[0](value)), check[1]


_TEXT: Check = (lambda value: isinstance(value, str), "a text")
_TEXTS = _or_null((lambda value: _is_list(value, str), "a list of texts"))
_INSIDE: Check = (
    lambda value: isinstance(value, str) and not PurePath(value).is_absolute() and ".." not in PurePath(value).parts,
    "a path inside of the study",
)
_COUNT: Check = (lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a count")
_FINITE = _or_null((lambda value: _is_number(value) and math.isfinite(value), "a finite number"))
_MAYBE_TEXT, _MAYBE_COUNT, _MAYBE_NUMBER = _or_null(_TEXT), _or_null(_COUNT), _or_null((_is_number, "a number"))
_MOMENT = _or_null((_is_moment, "a time in seconds since 1970"))
_BOOL = _or_null((lambda value: isinstance(value, bool), "true or false"))
_MAPPING = _or_null((lambda value: isinstance(value, dict), "a mapping"))
_PLAIN_VALUES: Check = (lambda value: isinstance(value, dict) and all(map(_is_plain, value.values())), "a mapping of plain values")

_NEEDED = {"value", "low", "high", "tokens_per_s"}  # may be null, but not left out
_RUN_JSON = {
    "status": ((lambda value: value in STATUSES), f"one of {', '.join(STATUSES)}"),
    **dict.fromkeys(("started", "finished"), _MOMENT),
    **dict.fromkeys(("git", "environment", "local_conf", "trial", "choices", "resolved", "budget", "data", "hardware"), _MAPPING),
    **dict.fromkeys(("devices", "model", "checkpoints", "wandb"), _MAPPING),
    "summary": _or_null((lambda value: isinstance(value, dict) and all(map(_MAYBE_NUMBER[0], value.values())), "a mapping of numbers")),
    "overrides": _TEXTS,
    "sittings": _or_null((_are_sessions, "a list with the start and the end of each")),
}
_RUN = {
    **{"path": _INSIDE, "repeat": _COUNT, "state": _TEXT, "value": _MAYBE_NUMBER},
    **{"tokens_per_s": _FINITE, "spent": _FINITE, "reason": _MAYBE_TEXT},
    **dict.fromkeys(("started", "ended"), _MOMENT),
    **dict.fromkeys(("slot", "tokens"), _MAYBE_COUNT),
}
_TRIAL = {
    **{"number": _COUNT, "state": _TEXT, "params": _PLAIN_VALUES, "overrides": [_TEXT], "runs": [_RUN]},
    **{"value": _MAYBE_NUMBER, "reason": _MAYBE_TEXT, "at": _MAYBE_COUNT},
}
_AXIS = {
    **{"key": _TEXT, "low": _FINITE, "high": _FINITE, "declared": (_is_plain, "a plain value")},
    "choices": _or_null((lambda value: isinstance(value, list) and all(map(_is_plain, value)), "a list of plain values")),
    **dict.fromkeys(("log", "integer", "powers"), _BOOL),
}
_STUDY = {
    **{"name": _TEXT, "objective": _TEXT, "axes": [_AXIS], "trials": [_TRIAL], "fixed": _TEXTS, "seconds": _FINITE, "noise": _BOOL},
    **dict.fromkeys(("direction", "label", "state", "program", "schedule", "warmer", "device"), _MAYBE_TEXT),
    **dict.fromkeys(("started", "updated", "deadline"), _MOMENT),
    **dict.fromkeys(("tokens", "n_trials", "repeats", "slots", "confirm_runs"), _MAYBE_COUNT),
    "ablate": _or_null(
        (lambda value: isinstance(value, dict) and bool(value.get("labels")) and _is_list(value["labels"], str), "a mapping with labels")
    ),
    "confirm": _or_null((lambda value: not _misfit(value, [_TRIAL], ""), "a list of trials")),
}
