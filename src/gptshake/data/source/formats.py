"""The formats of text files, each a function that reads one open file: plain text, JSON, JSON lines, Parquet, MediaWiki dumps.

Each gives ids and texts, streamed, and can leave out the first ``skip`` of them cheaply, for a reader that resumes after
an interruption. What does not fit is an error with its position (file, line, row, byte); the one thing that is skipped is
a value of null, which is a document without text.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader, TextIOWrapper
from itertools import count, islice
from pathlib import Path
from typing import IO, Any

from gptshake.console import visible
from gptshake.data.source.mediawiki import Site, articles, prose
from gptshake.data.source.protocol import Document
from gptshake.data.source.streams import byte_order_mark, decode_part, decode_stream
from gptshake.errors import DataError, first_line

_ROWS = 64  # of a Parquet file at once: enough for speed, few enough for rows of a megabyte
_VISIBLE = re.compile(r"[^ \t\n\r]")
_LONGEST = 16  # characters of JSON that mean nothing before their last one, such as -Infinity and \\ud83d\\ude00
# Bytes at a place, in files that may well fit an encoding; PAR1 and ustar alone may stand in a text, as in mustard.
_NO_TEXT: dict[str, tuple[bytes | tuple[bytes, ...], int]] = {
    "a PDF": (b"%PDF-", 0),
    "a zip archive (or .docx, .epub)": (b"PK\x03\x04", 0),
    "a 7z archive": (b"7z\xbc\xaf", 0),
    "a tar archive": ((b"ustar\0", b"ustar  \0"), 257),
    "packed with gzip": (b"\x1f\x8b", 0),
    "packed with bzip2": (tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)), 0),
    "packed with xz": (b"\xfd7zXZ", 0),
    "packed with zstd": (b"\x28\xb5\x2f\xfd", 0),
    "Parquet": (b"PAR1\x15", 0),
    "RTF": (b"{\\rtf", 0),
    "a SQLite database": (b"SQLite format 3\0", 0),
}
LARGE_DUMP = 16 << 20  # bytes on disk from which it pays to start processes


@dataclass(frozen=True)
class File:
    """One file, open."""

    name: str  # its id, or how those of its documents begin
    path: Path  # for messages
    raw: IO[bytes]  # its bytes on disk
    stream: BufferedReader  # the same decompressed; ``raw`` itself below a buffer if ``compression`` is empty
    compression: str
    text_key: str  # field or column of the text
    encoding: str  # of what has no byte order mark
    cleaning: int  # version of the cleaning of dumps

    @property
    def shown(self) -> str:
        return visible(str(self.path))


def plain(file: File, skip: int) -> Iterator[Document]:
    """A text as one document, in stretches of about a megabyte; CR LF becomes LF."""
    if skip:
        return
    begin, held = file.stream.peek(1), ""
    for format, (mark, at) in _NO_TEXT.items():
        if begin.startswith(mark, at):
            raise DataError(f"{file.shown} is {format}, no plain text. Unpack or convert it, or give it the suffix of its format.")
    for chunk in decode_stream(file.stream, file.encoding, file.shown):
        if held:
            end = len(held) - held.endswith("\r")  # perhaps the first half of a CR LF
            yield Document(file.name, held[:end].replace("\r\n", "\n"), more=True)
            held = held[end:]
        held += chunk
    yield Document(file.name, held.replace("\r\n", "\n"))


def json_lines(file: File, skip: int) -> Iterator[Document]:
    """One object a line; ids are the field ``id`` if it is there, else the file's name and the number of the line."""
    for number, line in islice(((number, line) for number, line in _lines(file) if not line.isspace()), skip, None):
        where = f"{file.shown}, line {number:,}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = f"{error.msg} at character {error.pos + 1:,}" if isinstance(error, json.JSONDecodeError) else str(error)
            raise DataError(f"{where} is not JSON: {reason}. A .jsonl file has one object on each line.") from error
        if not isinstance(row, dict):
            raise DataError(f"{where} is a {type(row).__name__}, not an object with a field that holds the text.")
        yield _document(row, number, where, file)


def json_list(file: File, skip: int) -> Iterator[Document]:
    """One list of objects, of which memory holds one, and a megabyte of the file; ids as in ``json_lines``."""
    text = _Window(decode_stream(file.stream, file.encoding, file.shown))
    if text.next() != "[":
        raise DataError(
            f"{file.shown} is not a list of objects, [{{…}}, {{…}}]. A file with one object on each line is named .jsonl or .ndjson."
        )
    text.at += 1
    for number in count(1):
        where = f"{file.shown}, object {number:,}"
        if number == 1 and text.next() == "]":
            break
        if text.next() != "{":
            raise DataError(f"{where} is none: {text.rest() or 'the file ends'}. A .json file is one list of objects.")
        row = text.object(where)
        if number > skip:
            yield _document(row, number, where, file)
        if text.next() == "]":
            break
        if text.next() != ",":
            raise DataError(
                f"{where} is followed by {text.rest() or 'the end of the file'}, neither by a comma nor by the end of the list."
            )
        text.at += 1
    text.at += 1
    if text.next():
        raise DataError(f"{file.shown} continues after its list: {text.rest()}.")


def parquet(file: File, skip: int) -> Iterator[Document]:
    """One row a document; ids are the column ``id`` if there is one, else the file's name and the number of the row."""
    import pyarrow
    from pyarrow.parquet import ParquetFile

    with tempfile.TemporaryFile() as unpacked:  # for a file that is compressed once more: Parquet is read from its end
        if file.compression:
            shutil.copyfileobj(file.stream, unpacked)
        try:
            source = unpacked if file.compression else file.raw
            table = ParquetFile(source, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True)  # else a row group at once
            columns = _columns(table.schema_arrow, file)
            for number, row in enumerate(_rows(table, columns, skip), skip + 1):
                text = text_of(row[file.text_key], f"{file.shown}, row {number:,}", file.text_key)
                yield Document(id_of(row, f"{file.name}:{number}"), text)
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            raise DataError(f"{file.shown} is damaged or no Parquet file: {first_line(error)}.") from error


def dump(file: File, skip: int) -> Iterator[Document]:
    """The articles of a MediaWiki export as prose; ids are the page ids."""
    site = Site(file.cleaning)
    parallel = file.path.stat().st_size >= LARGE_DUMP
    for id, text in prose(articles(file.stream, file.shown, site), skip, parallel=parallel, site=site):
        yield Document(id, text)


READERS: Mapping[str, Callable[[File, int], Iterator[Document]]] = {
    ".txt": plain,
    ".md": plain,
    ".jsonl": json_lines,
    ".ndjson": json_lines,
    ".json": json_list,
    ".parquet": parquet,
    ".xml": dump,
}


def text_of(value: Any, where: str, key: str) -> str:
    """A value as text, empty for null; DataError for a value of another type."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{where} has {type(value).__name__} in {key}, not text. Say which field is the text: data.text_key=…")
    return value


def id_of(row: Mapping[str, Any], otherwise: str) -> str:
    """The field ``id`` of a row if it is a text or a whole number, else what is given."""
    value = row.get("id")
    return str(value) if (isinstance(value, str) and value) or type(value) is int else otherwise


def listed_names(names: Mapping[str, Any] | list[str]) -> str:
    some = [visible(str(name)) for name in names]
    return ", ".join(some[:8]) + (f" and {len(some) - 8} more" if len(some) > 8 else "") if some else "none at all"


def _lines(file: File) -> Iterator[tuple[int, str]]:
    """The lines with their numbers, counted from 1."""
    length, encoding = byte_order_mark(file.stream.peek(4)[:4], file.encoding)
    offset = len(file.stream.read(length))
    if encoding == "utf-8":
        for number, line in enumerate(file.stream, 1):
            yield number, decode_part(line, encoding, f"{file.shown}, line {number:,},", offset)
            offset += len(line)
        return
    number = 0
    try:
        for number, text in enumerate(TextIOWrapper(file.stream, encoding, newline="\n"), 1):
            yield number, text
    except UnicodeError as error:
        raise DataError(
            f"{file.shown} is not {encoding} text: what comes after line {number:,} cannot be read. Convert the file."
        ) from error


def _document(row: dict[str, Any], number: int, where: str, file: File) -> Document:
    if file.text_key not in row:
        raise DataError(f"{where} has no field {file.text_key}, but {listed_names(row)}. Say which field is the text: data.text_key=…")
    return Document(id_of(row, f"{file.name}:{number}"), text_of(row[file.text_key], where, file.text_key))


class _Window:
    """A text that comes in chunks, seen from the character ``at`` on."""

    def __init__(self, chunks: Iterator[str]) -> None:
        self.text, self.at, self._chunks, self._json = "", 0, chunks, json.JSONDecoder()

    def next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while not (found := _VISIBLE.search(self.text, self.at)):
            self.at = len(self.text)
            if not self._more():
                return ""
        self.at = found.start()
        return found[0]

    def rest(self) -> str:
        return visible(self.text[self.at : self.at + 20])

    def object(self, where: str) -> dict[str, Any]:
        """The object that begins here, however many chunks it takes."""
        while True:
            try:
                row, self.at = self._json.raw_decode(self.text, self.at)
                return row  # type: ignore[no-any-return]
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos >= len(self.text) - _LONGEST
                if not (cut and self._more()):
                    raise DataError(f"{where} is not JSON: {error.msg}.") from error
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where} is not JSON: {error}.") from error

    def _more(self) -> bool:
        """Whether there was more; as much again as there is, so that a long object is not tried for every chunk."""
        before = len(self.text) - self.at
        chunks = [self.text[self.at :]]
        while sum(map(len, chunks)) <= 2 * before and (chunk := next(self._chunks, "")):
            chunks.append(chunk)
        self.text, self.at = "".join(chunks), 0
        return len(self.text) > before


def _columns(schema: Any, file: File) -> list[str]:
    """Columns to read: the text, and the ids if there are any."""
    import pyarrow.types as is_a

    def kind(name: str) -> str:
        found = schema.field(name).type
        found = found.value_type if is_a.is_dictionary(found) else found
        if is_a.is_string(found) or is_a.is_large_string(found) or is_a.is_string_view(found) or is_a.is_null(found):
            return "text"
        return "integer" if is_a.is_integer(found) else "other"

    key = file.text_key
    if twice := next((name for name in (key, "id") if schema.names.count(name) > 1), None):
        raise DataError(f"{file.shown} has {schema.names.count(twice)} columns named {visible(twice)}. Give each a name of its own.")
    if key not in schema.names:
        raise DataError(
            f"{file.shown} has no column {key}, but {listed_names(schema.names)}. Say which column is the text: data.text_key=…"
        )
    if kind(key) != "text":
        raise DataError(f"The column {key} of {file.shown} is {schema.field(key).type}, not text. Name another with data.text_key=…")
    return [key, "id"] if key != "id" and "id" in schema.names and kind("id") != "other" else [key]


def _rows(table: Any, columns: list[str], skip: int) -> Iterator[dict[str, Any]]:
    """The rows after the first ``skip``; whole groups of them are not even read."""
    for group in range(table.num_row_groups):
        size = table.metadata.row_group(group).num_rows
        if skip >= size:
            skip -= size
            continue
        for batch in table.iter_batches(_ROWS, row_groups=[group], columns=columns):
            yield from batch.slice(skip).to_pylist()
            skip = max(skip - len(batch), 0)
