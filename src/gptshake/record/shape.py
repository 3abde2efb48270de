"""What run.json must look like, so that a reader may trust it: a record edited by hand, torn, or by another program is found here.

A field that is not there, or null, is fine: older records lack some, and runs at work have no end yet.
"""

import re
from collections.abc import Mapping
from typing import Any

STATUSES = ("running", "ok", "failed", "interrupted", "pruned")
LAST_MOMENT = 1e11  # seconds since 1970 that a calendar can hold: about the year 5138
LARGEST = 1e300  # what a float holds
DEEPEST = 50  # mappings and lists in each other; ours are four deep
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NAME = re.compile(r"[^./\x00-\x1f\x7f][^/\x00-\x1f\x7f]{0,254}")  # of one folder, which the user may have chosen
_MOMENTS = ("started", "finished")
_MAPPINGS = (
    *("git", "environment", "local_conf", "trial", "choices", "resolved", "budget", "data", "hardware", "devices", "model", "summary"),
    *("checkpoints", "wandb"),
)


def malformed(info: Mapping[str, Any]) -> str | None:
    """Why it is not the record of a run, in words; None if it can be read."""
    for key in ("id", "name", "status"):
        if not isinstance(info.get(key), str):
            return f"{key} is not a text"
    for key, plain in (("id", _ID), ("name", _NAME)):
        if not plain.fullmatch(info[key]):
            return f"{key} cannot be part of a path"
    if info["status"] not in STATUSES:
        return f"status is none of {', '.join(STATUSES)}"
    for key in _MOMENTS:
        if info.get(key) is not None and not _is_moment(info[key]):
            return f"{key} is not a time in seconds since 1970"
    for key in _MAPPINGS:
        if info.get(key) is not None and not isinstance(info[key], dict):
            return f"{key} is not a mapping"
    if not _is_list(info.get("overrides"), str):
        return "overrides is not a list of texts"
    sittings = info.get("sittings")
    if not _is_list(sittings, dict) or not all(
        _is_moment(one.get("started")) and _is_moment(one.get("ended", one["started"])) for one in sittings or ()
    ):
        return "sittings is not a list with the start and the end of each"
    return _unreadable(info)


def _unreadable(node: Any, depth: int = 0) -> str | None:
    """Values that a JSON file can hold, but no reader can use."""
    if depth > DEEPEST:
        return f"it is nested more than {DEEPEST} deep"
    if isinstance(node, int) and abs(node) > LARGEST:
        return "it holds a number that is too large"
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return next((why for child in children if (why := _unreadable(child, depth + 1))), None)


def _is_moment(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LAST_MOMENT


def _is_list(value: Any, kind: type) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(one, kind) for one in value))
