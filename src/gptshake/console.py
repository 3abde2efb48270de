"""Text on a terminal: how many columns it takes, and lines that renew themselves, fitted to its width anew at every showing.

Under TERM=dumb lines follow each other; in a pipe or a file they keep their full length. Nothing printed may end or shorten a run: ``protect``
replaces the lowest layer of the two streams, and so covers print, logging and libraries.
"""

import contextlib
import errno
import io
import os
import re
import select
import shutil
import sys
import unicodedata
from collections.abc import Sequence
from typing import Any, TextIO

from gptshake.errors import StorageError

GAP = " | "  # between the parts of a line
NOTEBOOK = "JPY_PARENT_PID"  # variable that Jupyter sets for its kernels, and Colab does
# Control characters but tabs and line breaks, marks that turn the direction of writing, line separators, and what UTF-8 cannot say.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def protect() -> None:
    """Replace ``sys.stdout`` and ``sys.stderr``; call it first. A descriptor that is closed becomes the null device, so that no file gets its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
            os.set_inheritable(number, True)  # it was opened under this very number, else a child process has it closed again
    for name, number in (("stdout", 1), ("stderr", 2)):
        before = getattr(sys, name)
        stream = lasting(number, getattr(before, "encoding", None) or "utf-8", line_buffering=number == 2 or os.isatty(number))
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def lasting(number: int, encoding: str, *, line_buffering: bool) -> io.TextIOWrapper:
    """A stream to an open descriptor, whose writing never fails; a character that the encoding lacks is written as its escape."""
    raw = io.BufferedWriter(_Lasting(number, "w", closefd=False))
    return io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=line_buffering)


def refuse_loss() -> None:
    """Raise a StorageError if the disk was too full for what was printed to the standard output; a reader that has gone loses nothing."""
    sys.stdout.flush()
    error = getattr(getattr(sys.stdout.buffer, "raw", None), "lost", None)
    if error and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        raise StorageError(f"What was printed could not all be written: {error.strerror}. Free some space, and run the same command again.")


class _Lasting(io.FileIO):
    """Passes over what cannot be written, and keeps the first reason."""

    lost: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, wait for a reader that is slow, and take what cannot be written for written."""
        while True:
            try:
                written = super().write(data)
            except OSError as error:  # the reader or the terminal is gone, or the disk is full
                self.lost = self.lost or error
                return memoryview(data).nbytes
            if written is not None:
                return written
            select.select([], [self], [])  # a descriptor that does not block, and is full


class Console:
    """A stream that people may be looking at, by default the standard output. One that is closed, or knows fewer characters, raises nothing."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self.terminal = not self._stream.closed and self._stream.isatty()
        # Whether text can be replaced. The cell of a notebook (``!gptshake ...``) is a terminal to its commands, and cannot.
        self.renews = self.terminal and os.environ.get("TERM") not in ("dumb", "unknown") and NOTEBOOK not in os.environ
        self._shown: Sequence[str] = ()  # lines on the terminal that will be replaced; the cursor is at the end of the last one

    def size(self) -> os.terminal_size:
        try:
            size = os.get_terminal_size(self._stream.fileno())
        except (OSError, ValueError):
            return shutil.get_terminal_size()
        return size if size.columns and size.lines else shutil.get_terminal_size()

    def line(self, parts: Sequence[str], spare: Sequence[int] = ()) -> str:
        """The parts as one line that does not wrap if this is a terminal; arguments as in ``fit``."""
        return fit(parts, self.size().columns - 1, spare) if self.terminal else GAP.join(filter(None, parts))

    def show(self, parts: Sequence[str], spare: Sequence[int] = ()) -> None:
        """Show a line in place of the one before, or below it where it cannot be replaced; arguments as in ``fit``."""
        text = self.line(parts, spare)
        if self.renews:
            self._replace([text])
        else:
            self.write(f"{text}\n")

    def renew(self, lines: Sequence[str]) -> None:
        """Show lines, cut to the terminal's width, in place of those of the last call."""
        self._replace([*(cut(line, self.size().columns - 1) for line in lines), ""])

    def keep(self) -> None:
        """Leave the lines of ``renew`` where they are; what comes next is written below them."""
        self._shown = ()

    def clear(self) -> None:
        """Remove the line that is shown; call it before other text."""
        self._replace(())

    def _replace(self, lines: Sequence[str]) -> None:
        """Write lines over those that are shown, which a terminal that was narrowed since then has wrapped."""
        columns = self.size().columns
        above = sum(_rows(line, columns) for line in self._shown) - 1
        erase = f"\x1b[{above}A\r\x1b[J" if above > 0 else "\r\x1b[K" if self._shown else ""
        self.write(erase + "\n".join(lines))
        self._shown = lines

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # a closed pipe, a closed file
            try:
                self._stream.write(text)
            except UnicodeEncodeError:
                self._stream.write(text.encode("ascii", "replace").decode())
            self._stream.flush()


def printable(text: str) -> str:
    """Text that cannot move a terminal's cursor, colour it or command it: control characters as ``\\\\x1b``, line breaks and tabs as they are."""
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text.replace("\r\n", "\n"))


def visible(text: str, keep: str = "") -> str:
    """Text with what has no shape written out: ``\\x1b`` for an escape, ``\\n`` for a line break; characters in ``keep`` stay."""
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode() for character in text
    )


def one_line(text: str) -> str:
    """A text on one line that cannot move a terminal's cursor: spaces for breaks, ``?`` for what cannot be printed."""
    return "".join(character if character.isprintable() else "?" for character in " ".join(text.split()))


def fit(parts: Sequence[str], columns: int, spare: Sequence[int] = ()) -> str:
    """The parts that are not empty in one line of at most so many columns.

    ``spare`` has the indices of parts that may be left out, the first one first; what remains is cut at the end.
    """
    left = list(parts)
    for index in spare:
        if width(GAP.join(filter(None, left))) > columns:
            left[index] = ""
    return cut(GAP.join(filter(None, left)), columns)


def cut(text: str, columns: int, end: str = "") -> str:
    """The beginning of a text that takes at most so many columns, on one line; ``end`` marks that something is missing."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    if width(text) <= columns:
        return text
    taken, kept = width(end), ""
    for character in text:
        taken += width(character)
        if taken > columns:
            break
        kept += character
    return kept.rstrip() + end if end else kept


def width(text: str) -> int:
    """Columns that a text takes on a terminal: two for wide characters (Chinese, Japanese, Korean, emoji), none for combining marks."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _rows(text: str, columns: int) -> int:
    """Rows of a terminal over which a line is wrapped; a wide character is not split."""
    rows, taken = 1, 0
    for size in map(_columns, text):
        rows, taken = (rows, taken + size) if taken + size <= columns else (rows + 1, size)
    return rows


def _columns(character: str) -> int:
    if unicodedata.east_asian_width(character) in "WF":
        return 2
    return 0 if unicodedata.category(character) in ("Mn", "Me") and character != "\ufe0f" else 1  # U+FE0F may widen the character before it


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Cells in columns (rich takes 30 times as long): numbers to the right, the columns ``left`` and the last one to the left; empty columns are left out."""
    last = len(rows[0]) - 1
    used = [column for column in range(last + 1) if any(row[column] for row in rows[1:])]
    widths = {column: max(width(row[column]) for row in rows) for column in used}
    lines = []
    for row in rows:
        gaps = {column: " " * (widths[column] - width(row[column])) for column in used}
        cells = [row[column] + gaps[column] if column in left or column == last else gaps[column] + row[column] for column in used]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
