"""notes.jsonl: what people said about a run or a sweep after it began, one line of JSON for each note, appended.

It stands beside run.json, not in it: a run at work writes run.json from its memory, and a note must not wait for its end.
"""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from gptshake.redaction import redact

_FILE = "notes.jsonl"


class Note(NamedTuple):
    """One note."""

    time: float  # seconds since 1970
    text: str


def add_note(path: Path, text: str) -> None:
    """Keep a note in a run's or a sweep's folder, without secrets; it is on the disk when this returns, whoever else is writing there."""
    line = json.dumps({"time": time.time(), "text": redact(text)}, ensure_ascii=False).encode(errors="replace") + b"\n"
    with (path / _FILE).open("ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read()[-1:])[1] != b"\n":
            line = b"\n" + line  # a kill tore the last one
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_notes(path: Path) -> list[Note]:
    """All notes in a folder, the oldest first; a line that cannot be read is left out, a missing file has none."""
    try:
        lines = (path / _FILE).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    notes = []
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError):
            note = json.loads(line)
            notes.append(Note(float(note["time"]), str(note["text"])))
    return notes
