"""metrics.csv, one row per optimizer step, and noise_scale.csv: the numbers come back exactly as they went in. Columns are open.

A row reaches the kernel in one write at once (about 5 us), so a killed process loses none; only ``flush`` waits for the disk, and survives a
power cut. A last line that a kill tore is ignored by readers and cut away by the next writer; another that cannot be read is a RecordError.
"""

import contextlib
import io
import math
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gptshake.errors import RecordError, first_line
from gptshake.files import fsync, storing, write_atomic

if TYPE_CHECKING:
    from gptshake.estimate.noise_scale import Measurement

WHOLE_NUMBERS = frozenset({"step", "train/tokens", "micro_batch_size", "batch_size"})
COLUMNS = (
    "step",  # optimizer steps finished
    "train/tokens",  # target tokens seen so far; the x-axis of every curve
    "train/loss",  # nats per token, mean over the step's batch
    "train/lr",  # peak x factor
    "train/beta1",  # where the schedule cycles it
    "train/grad_norm",  # global norm before clipping
    "perf/step_ms",
    "perf/data_ms",  # of which waiting for data
    "perf/tokens_per_s",
    "perf/mfu",  # fraction of the device's dense peak
    "val/loss",  # nats per token over the whole validation split
    "val/bpb",  # bits per UTF-8 byte of the original text
    "time",  # seconds since 1970
)
DRAWN = ("step", "train/tokens", "train/loss", "train/lr", "val/loss", "val/bpb", "perf/step_ms")  # what curves are made of
NOISE_SCALE = "noise_scale.csv"
NOISE_COLUMNS = ("step", "train/tokens", "micro_batch_size", "batch_size", "noise/micro_norm2", "noise/batch_norm2")  # as in Measurement
CHUNK_BYTES = 1 << 22
_LINES_BYTES = 1 << 16  # read at once from the end of a file; more than most rows have
_APPENDING = os.O_RDWR | os.O_APPEND  # right after a cut, too; and what was written can be read again
Row = dict[str, int | float]
Columns = dict[str, "array[float]"]  # values of all rows, NaN where a row has none


class MetricsWriter:
    """Appends rows to a metrics.csv, which is made if it is not there; a torn last line of a killed writer is cut away first.

    A file that is there may have other columns than those given behind the first two; if these differ, it is refused.
    """

    def __init__(self, path: Path, columns: Sequence[str] = COLUMNS) -> None:
        self._path = path
        header, self.n_rows = _mend(path, list(columns))
        self._columns = dict.fromkeys(header)
        self._handle = os.open(path, _APPENDING)

    def append(self, row: Mapping[str, float]) -> None:
        """Write one row; columns that are missing (or None) stay empty, and new names become columns."""
        if not row.keys() <= self._columns.keys():
            self._add([name for name in row if name not in self._columns])
        data = (",".join([_text(name, row.get(name)) for name in self._columns]) + "\n").encode()
        with storing(self._path):
            while data:  # of a disk that is nearly full the system takes a part
                data = data[os.write(self._handle, data) :]
        self.n_rows += 1

    def _add(self, names: list[str]) -> None:
        """Rewrite the file, all at once, with columns behind the old ones."""
        for name in names:
            if not name or not name.isprintable() or "," in name:
                raise RecordError(
                    f"{name!r} cannot be the name of a metric: it is a column of {self._path.name}, in one line without commas."
                )
        columns, rows = [*self._columns, *names], self._written().partition(b"\n")[2]
        self._replace(",".join(columns).encode() + b"\n" + rows.replace(b"\n", b"," * len(names) + b"\n"))
        self._columns = dict.fromkeys(columns)  # not where the disk was full: the file has its old header then

    def _written(self) -> bytes:
        with os.fdopen(self._handle, "rb", closefd=False) as file:
            file.seek(0)
            return file.read()  # to the end, which a single pread need not reach

    def _replace(self, content: bytes) -> None:
        write_atomic(self._path, content)
        os.close(self._handle)
        self._handle = os.open(self._path, _APPENDING)

    def flush(self) -> None:
        """Return once every row is on the disk, under the file's name: one that was removed, or replaced by an editor, is put back."""
        if not self._path.exists() or not os.path.samestat(self._path.stat(), os.fstat(self._handle)):
            self._replace(self._written())
        with storing(self._path):
            os.fsync(self._handle)

    def cut(self, n_rows: int) -> None:
        """Keep the first ``n_rows`` rows; the next one is appended after them."""
        if not 0 <= n_rows <= self.n_rows:
            raise RecordError(
                f"{self._path} holds {self.n_rows} rows and its checkpoint was saved after {n_rows}: rows were lost. "
                f"Put the file back, or start a new run from the weights: init_from={self._path.parent.name}"
            )
        if n_rows < self.n_rows:
            with self._path.open("rb") as file:
                end = sum(len(file.readline()) for _ in range(n_rows + 1))  # the header, too
            os.truncate(self._path, end)
            self.n_rows = n_rows
            self.flush()

    def close(self) -> None:
        self.flush()
        os.close(self._handle)


def _mend(path: Path, columns: list[str]) -> tuple[list[str], int]:
    """Make the file end with a whole line, beginning with a header; returns its columns and its number of rows."""
    size, lines, whole, crlf = 0, 0, 0, False
    with path.open("rb") if path.exists() else io.BytesIO() as file:
        first = _cells(file.readline().decode(errors="replace"))
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            if count := chunk.count(b"\n"):
                lines, whole = lines + count, size + chunk.rindex(b"\n") + 1
            size, crlf = size + len(chunk), crlf or b"\r" in chunk
    if not whole:  # new, or killed within its header
        path.write_text(",".join(columns) + "\n", encoding="utf-8")
        fsync(path.parent)
        return columns, 0
    if first[:2] != columns[:2] or len(set(first)) < len(first):
        raise RecordError(f"{path} has other columns than this version of gptshake writes, so the run cannot go on in it.")
    if whole < size:
        os.truncate(path, whole)
    if crlf:
        write_atomic(path, path.read_bytes().replace(b"\r\n", b"\n"))
    return first, lines - 1


class NoiseScaleWriter(MetricsWriter):
    """Appends to noise_scale.csv, after measurements of steps later than ``step`` were cut away, which a resumed run makes again."""

    def __init__(self, folder: Path, step: int = 0) -> None:
        super().__init__(folder / NOISE_SCALE, NOISE_COLUMNS)
        self.cut(sum(one.step <= step for one in read_measurements(folder)))

    def add(self, one: "Measurement") -> None:
        self.append(dict(zip(NOISE_COLUMNS, astuple(one), strict=True)))


def read_measurements(folder: Path) -> list["Measurement"]:
    """All finite measurements of the noise scale in a run so far, in order; none if there is no file."""
    from gptshake.estimate.noise_scale import Measurement  # only here, as every command imports this module

    rows = ([row[name] for name in NOISE_COLUMNS] for row in read_rows(folder / NOISE_SCALE))
    return [Measurement(*map(int, row[:4]), *row[4:]) for row in rows if all(map(math.isfinite, row))]


def read_rows(path: Path) -> list[Row]:
    """All whole rows in order, each with the columns it has; a torn last line is left out, a missing file has no rows."""
    return list(history(path, 1))


def history(path: Path, every: int, most: int | None = None) -> Iterator[Row]:
    """The rows of every so many steps, of a long run only about ``most``, evenly, and all with a validation; read as a stream."""
    if not path.is_file():  # a FIFO would never end
        return
    if most:
        every *= max(1, math.ceil(last_row(path).get("step", 0) / every / most))
    # newline="\n": only the writer's own line ends count, and only a line with its end is whole.
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        header = _cells(file.readline())
        for number, line in enumerate(file, start=2):
            if not line.endswith("\n"):
                return
            cells = dict(zip(header, line.split(","), strict=False)) if every > 1 else {}
            step = cells.get("step", "")  # a line that is no row is read, too, for it is to be found
            if not step.isdigit() or int(step) % every == 0 or cells.get("val/loss"):
                yield _row(path, header, line, f"line {number}")


def last_row(path: Path) -> Row:
    """The last whole row; empty if there is none. Reads the end of the file only."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        header = _cells(file.readline().decode())
        return next((_row(path, header, line, "the last line") for line in _lines_from_end(file, file.tell())), {})


def last_values(path: Path, names: Iterable[str]) -> Row:
    """The last value of each column that has one, found from the end of the file; none of a file that is not there or cannot be read."""
    wanted, found = set(names), Row()
    if not path.is_file():
        return found
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        header = _cells(file.readline().decode(errors="replace"))
        places = {name: place for place, name in enumerate(header) if name in wanted}
        for line in _lines_from_end(file, file.tell()):
            if not places:
                break
            cells = _cells(line)
            here = [name for name, place in places.items() if place < len(cells) and cells[place]]
            found |= {name: _number(name, cells[places.pop(name)]) for name in here}
    return found


def _lines_from_end(file: BinaryIO, start: int) -> Iterator[str]:
    """The whole lines behind the byte ``start``, the last one first, until one is longer than any row; reads in chunks, as asked for."""
    position, rest, torn = file.seek(0, os.SEEK_END), b"", True
    while position > start and len(rest) < CHUNK_BYTES:  # a file without line ends is not searched to its beginning
        size = min(_LINES_BYTES, position - start)
        position = file.seek(position - size)
        lines = (file.read(size) + rest).split(b"\n")
        if torn and len(lines) > 1:
            lines.pop()
            torn = False
        rest, *lines = lines  # the first began before this chunk
        yield from (line.decode(errors="replace") for line in reversed(lines))
    if position == start and not torn:
        yield rest.decode(errors="replace")


class Tail:
    """Reads a metrics.csv that another process is writing: every whole row once, all of them again if it was cut or got more columns.

    A file of another program, without our column of tokens, has no rows; neither has a row without its tokens.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.more = False  # whether the last call left some for the next one
        self._restart()

    def _restart(self) -> None:
        self._offset, self._header = 0, list[str]()
        self._tokens, self._seconds = 0, 0.0
        self._rate = 0.0  # the last learning rate
        self._warm: int | None = None  # tokens at which it rose no more

    def new(self, most: int = -1) -> list[Row]:
        """The rows that came since the last call, or those in the first so many bytes of them."""
        self.more = False
        if not self._path.is_file():  # a FIFO would never end
            return []
        try:
            if self._path.stat().st_size < self._offset:  # cut back to a checkpoint
                self._restart()
            with self._path.open("rb") as file:
                if self._header and _cells(file.readline().decode(errors="replace")) != self._header:
                    self._restart()
                file.seek(self._offset)
                content = file.read(most)
        except OSError:
            content = b""
        whole = content[: content.rfind(b"\n") + 1]
        self._offset += len(whole)
        self.more = bool(whole) and len(content) == most
        try:
            return [row for line in whole.decode().split("\n")[:-1] if (row := self._row(line))]
        except ValueError:  # it was cut and has grown past our place since: these are not whole lines
            self._restart()
            return []

    def _row(self, line: str) -> Row | None:
        if not self._header:
            self._header = _cells(line)
            return None
        if "train/tokens" not in self._header:
            return None
        row = {name: _number(name, cell) for name, cell in zip(self._header, _cells(line), strict=True) if cell}
        if "train/tokens" not in row:
            return None
        rate = row.get("train/lr", 0.0)
        if self._warm is None and rate <= self._rate:
            self._warm = int(row["train/tokens"])
        self._rate = rate
        self._tokens, self._seconds = int(row["train/tokens"]), self._seconds + row.get("perf/step_ms", 0.0) / 1e3
        return row

    def warming(self, tokens: int) -> bool:
        """Whether the learning rate had risen with every row up to the one of so many tokens."""
        return self._warm is None or tokens < self._warm

    @property
    def rate(self) -> float | None:
        """Tokens per second of training in the rows so far, without validations and start-up; None before the first."""
        return self._tokens / self._seconds if self._seconds else None


def read_columns(path: Path, names: Iterable[str]) -> Columns:
    """Some columns of all whole rows, 8 bytes a value."""
    columns = {name: array("d") for name in names}
    for part in column_chunks(path, list(columns)):
        for name, values in part.items():
            columns[name].extend(values)
    return columns


def column_chunks(path: Path, names: Sequence[str]) -> Iterator[Columns]:
    """As ``read_columns``, in parts of some ten thousand rows: a million rows take a second and little memory."""
    if not path.is_file():
        return
    from pyarrow import csv, float64  # late: a tenth of a second

    numbers = csv.ConvertOptions(
        include_columns=names, include_missing_columns=True, column_types=dict.fromkeys(names, float64()), null_values=[""]
    )
    plain, one_block = csv.ParseOptions(quote_char=False), csv.ReadOptions(use_threads=False, block_size=2 * CHUNK_BYTES)
    with path.open("rb") as file:
        header, rest = file.readline(), b""
        while chunk := file.read(CHUNK_BYTES):
            lines, end, rest = (rest + chunk).rpartition(b"\n")  # what is behind the last was torn by a kill
            if end:
                try:
                    table = csv.read_csv(io.BytesIO(header + lines + end), one_block, plain, numbers)
                except ValueError as error:
                    raise RecordError(f"{path} cannot be read as rows of numbers: {first_line(error)}.") from error
                yield {name: _values(table[name].combine_chunks()) for name in names}


def _values(column: Any) -> "array[float]":
    """The numbers of an arrow column, NaN where there is none; its own ``to_numpy`` would import pandas, for most of a second."""
    import numpy as np

    known, values = column.buffers()
    numbers = np.frombuffer(values, count=len(column))
    if column.null_count:
        numbers = np.where(np.unpackbits(np.frombuffer(known, "u1"), count=len(column), bitorder="little"), numbers, math.nan)
    return array("d", numbers.tobytes())


def validations(path: Path) -> dict[int, float]:
    """The validation loss of every step that has one, in order; one that is not finite is left out."""
    chunks = (zip(part["step"], part["val/loss"], strict=True) for part in column_chunks(path, ("step", "val/loss")))
    return {int(step): loss for chunk in chunks for step, loss in chunk if math.isfinite(loss)}


def other_columns(path: Path) -> list[str]:
    """The columns that callbacks have added, in order; none if there is no file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        return [name for name in _cells(file.readline()) if name and name not in COLUMNS]


def _row(path: Path, header: list[str], line: str, place: str) -> Row:
    try:
        return {name: _number(name, cell) for name, cell in zip(header, _cells(line), strict=True) if cell}
    except ValueError as error:
        raise RecordError(f"{path}, {place} cannot be read as a row of numbers: {line[:80]!r}.") from error


def _cells(line: str) -> list[str]:
    """The cells of a line; an editor or a copy may have ended it as Windows does."""
    return line.rstrip("\r\n").split(",")


def _text(name: str, value: float | None) -> str:
    """A cell. ``repr`` is the shortest text that reads back as the same float; numpy's own would name its type."""
    if value is None:
        return ""
    return str(int(value)) if name in WHOLE_NUMBERS else repr(float(value))


def _number(name: str, cell: str) -> int | float:
    return int(cell) if name in WHOLE_NUMBERS else float(cell)
