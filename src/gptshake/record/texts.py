"""Texts beside the numbers of a run: samples.md, which a resumed run cuts, and notes.jsonl, what people said about a run or sweep later.

A sample is a heading and a fenced block, so that no text is taken for Markdown. Notes are not in run.json, which a run at work writes.
"""

import contextlib
import json
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from gptshake.files import read_bytes, write_atomic
from gptshake.markdown import fence
from gptshake.redaction import redact

TITLE = "sample"  # of a text that the network wrote along the run
LARGEST = 256 << 20  # bytes of a file that is read
_NOTES = "notes.jsonl"
_SECTION = re.compile(
    r"^## step (\d[\d,]{0,20}) · (\d[\d,]{0,20}) tokens · ([^\n]*)\n\n(`{3,})text\n(.*?)\n\4\n\n", re.DOTALL | re.MULTILINE
)


class Sample(NamedTuple):
    """One text, written after ``step`` optimizer steps and ``tokens`` training tokens."""

    step: int
    tokens: int
    title: str
    text: str


class Note(NamedTuple):
    """One note."""

    time: float  # seconds since 1970
    text: str


def append_sample(path: Path, sample: Sample) -> None:
    with path.open("a", encoding="utf-8", errors="replace", newline="\n") as file:  # replace: a lone surrogate must not stop a run
        file.write(_section(sample))


def read_samples(path: Path) -> list[Sample]:
    """All whole sections in order, without one that a kill tore; none if there is no file, or none that can be read."""
    try:
        content = read_bytes(path, LARGEST).decode(errors="replace")  # not as text: a sample's \r would become \n
    except (OSError, ValueError):
        return []
    found = _SECTION.findall(content)
    return [Sample(int(step.replace(",", "")), int(tokens.replace(",", "")), title, text) for step, tokens, title, _, text in found]


def cut_samples(path: Path, step: int) -> None:
    """Keep the samples up to ``step``: a resumed run writes the later ones again."""
    if path.exists():
        write_atomic(path, "".join(_section(sample) for sample in read_samples(path) if sample.step <= step))


def _section(sample: Sample) -> str:
    ticks = fence(sample.text)
    return f"## step {sample.step:,} · {sample.tokens:,} tokens · {sample.title}\n\n{ticks}text\n{sample.text}\n{ticks}\n\n"


def add_note(path: Path, text: str) -> None:
    """Keep a note in a run's or a sweep's folder, without secrets; it is on the disk when this returns, whoever else is writing there."""
    line = json.dumps({"time": time.time(), "text": redact(text)}, ensure_ascii=False).encode(errors="replace") + b"\n"
    with (path / _NOTES).open("ab+") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read()[-1:])[1] != b"\n":
            line = b"\n" + line  # a kill tore the last one
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_notes(path: Path) -> list[Note]:
    """All notes in a folder, the oldest first, without lines that are none; none if there is no file, or none that can be read."""
    notes = []
    with contextlib.suppress(OSError, ValueError):
        for line in read_bytes(path / _NOTES, LARGEST).decode(errors="replace").split("\n"):
            with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
                note = json.loads(line)
                notes.append(Note(float(note["time"]), str(note["text"])))
    return notes
