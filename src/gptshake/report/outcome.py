"""What people ask first about a run: what it trained on what, why, and what went wrong. From an ``Entry``, as one line of text."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from gptshake.record.catalogue import BROKEN, Entry
from gptshake.record.run import debugs


def source(entry: Entry) -> str:
    """What was trained on what: ``tiny · wiki_char · excerpt106``, with the task, and ``debug=smoke``, in front if it was no plain training."""
    choices, data = _mapping(entry.info.get("choices")), _mapping(entry.info.get("data"))
    chosen, label = str(choices.get("data") or ""), str(data.get("label") or "")
    parts = [choices.get("model"), chosen, "" if chosen.startswith(label) else label]  # shakespeare_char says it already
    task, debug = entry.info.get("task", "train"), debugs(entry.info)
    named = parts if all(parts[:2]) else ["" if entry.status == BROKEN else entry.title]
    return one_line(" · ".join(str(part) for part in [f"debug={debug}" if debug else "", task if task != "train" else "", *named] if part))


def note(entry: Entry) -> str:
    """Why the run was made, in its author's words."""
    return one_line(str(entry.info.get("note") or ("" if "note" in entry.info else entry.config.get("note")) or ""))


def reason(entry: Entry) -> str:
    """Why it did not end well, or cannot be read; empty if it did."""
    return one_line(entry.problem or str(entry.info.get("reason") or ""))


def written(write: Callable[[], Iterable[Path]]) -> str:
    """Write files and name them, a line each; where they cannot be written, say so: what was printed is not lost by that."""
    try:
        return "\n".join(f"  {os.path.relpath(file)}" for file in write())
    except OSError as error:
        return f"  note: no file was written: {error.filename or 'the folder'}: {error.strerror or error}"


def one_line(text: str) -> str:
    """A text that cannot move a terminal's cursor: spaces for breaks, ``?`` for what cannot be printed."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def _mapping(node: Any) -> Mapping[str, Any]:
    return node if isinstance(node, dict) else {}
