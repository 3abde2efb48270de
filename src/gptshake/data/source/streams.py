"""A file's bytes as a stream, whatever it is compressed with, then as text: and every way in which that can fail as one sentence.

gz, bz2 and xz come from the standard library, zst from pyarrow; files made of several frames one after the other are read
whole by all of them, and a file that is cut off is an error, never a shorter text. A file that unpacks to hundreds of times
its size is no text but a bomb: it is refused before it fills memory or disk. A byte order mark decides the encoding; bytes that do not
fit are an error with their position, never replaced.
"""

import bz2
import codecs
import contextlib
import encodings
import gzip
import io
import lzma
import sys
import zlib
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from gptshake.console import visible
from gptshake.errors import DataError

CHUNK = 1 << 20  # bytes decoded at once
MOST_TIMES, MOST_FREE = 250, 64 << 20  # how much a file may unpack to: so many times what was read of it, or so many bytes; text: 3 to 20
_MARKS = (  # the longer mark first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ORDER = "le" if sys.byteorder == "little" else "be"
_UNMARKED = {"utf-16": f"utf-16-{_ORDER}", "utf-32": f"utf-32-{_ORDER}"}  # read in chunks they would insist on a mark


@contextlib.contextmanager
def open_stream(file: Path, compression: str) -> Iterator[tuple[io.BufferedReader, IO[bytes]]]:
    """The decompressed stream, and the file below it, whose position tells how far it has been read.

    Raises:
        DataError: if the file cannot be read, is damaged or unpacks without end, or a document in it is too large for the memory.
    """
    shown = visible(str(file))
    try:
        with file.open("rb") as raw:
            yield io.BufferedReader(_Unpacked(raw, compression, shown) if compression else raw, 1 << 20), raw
    except MemoryError as error:
        raise DataError(f"{shown} holds a document that is too large for the memory. Divide it.") from error
    except EOFError as error:
        raise DataError(f"{shown} is cut off: it ends in the middle of its {compression.removeprefix('.')} stream.") from error
    except (OSError, zlib.error, lzma.LZMAError) as error:  # pyarrow's errors of compression are OSErrors too
        damaged = not isinstance(error, OSError) or error.errno is None
        reason = str(error) if damaged else getattr(error, "strerror", None)
        raise DataError(f"{shown} {'is damaged' if damaged else 'cannot be read'}: {str(reason).rstrip('.')}.") from error


class _Unpacked(io.RawIOBase):
    """The decompressed bytes of a file, as long as they are not too many for what was read of it."""

    def __init__(self, raw: IO[bytes], compression: str, shown: str) -> None:
        self._raw, self._shown, self._given = raw, shown, 0
        self._stream: Any
        if compression == ".zst":
            import pyarrow

            self._stream = pyarrow.CompressedInputStream(raw, "zstd")
        else:
            unpackers: dict[str, Any] = {".gz": lambda raw: gzip.GzipFile(fileobj=raw), ".bz2": bz2.BZ2File, ".xz": lzma.LZMAFile}
            self._stream = unpackers[compression](raw)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._given += len(data)
        if self._given > max(MOST_FREE, MOST_TIMES * self._raw.tell()):
            raise DataError(
                f"{self._shown} unpacks to more than {MOST_TIMES} times its size, which no text does. "
                "If it is one, unpack it and name the unpacked file."
            )
        return len(data)


def known_encoding(encoding: str) -> str:
    """Python's own name of an encoding; DataError if there is no such encoding of text.

    Only the standard library is asked: installed packages may have codecs of their own for any name (future-typing has).
    """
    try:
        found = encodings.search_function(encoding.lower().replace(" ", "-")) if encoding.isascii() else None
        if found and found.name not in ("idna", "punycode"):  # which are for the names of hosts
            "".encode(found.name)  # refuses what turns bytes into bytes, such as hex
            return found.name
    except (LookupError, ValueError):
        pass
    raise DataError(f"data.encoding={encoding} is not a text encoding of Python; try utf-8, latin-1, cp1252 or utf-16.")


def byte_order_mark(begin: bytes, encoding: str) -> tuple[int, str]:
    """Length of the byte order mark at the beginning of a file, and the encoding that it names, else ``encoding``."""
    return next(((len(mark), name) for mark, name in _MARKS if begin.startswith(mark)), (0, encoding))


def decode_stream(stream: BufferedReader, encoding: str, where: str) -> Iterator[str]:
    """Text of a stream, in chunks, by its byte order mark if it has one, else by ``encoding``; DataError at the first bytes that do not fit."""
    begin = stream.peek(CHUNK)
    data = stream.read(4)
    length, encoding = byte_order_mark(data, encoding)
    if not length and encoding.startswith(("utf-16", "utf-32")) and _is_utf8(begin):
        raise DataError(f"{where} is UTF-8 text and has no byte order mark, so it is no {encoding}: leave data.encoding out.")
    if not length and encoding == "utf-8" and len(begin) >= 100 and begin.count(0) > len(begin) // 4:
        raise DataError(
            f"{where} is no utf-8 text: {100 * begin.count(0) // len(begin)} % of its first bytes are 0, as in UTF-16 without a byte order mark. "
            "Name its encoding, as in data.encoding=utf-16-le, or make a copy of it that is whole."
        )
    decoder = codecs.getincrementaldecoder(_UNMARKED.get(encoding, encoding))()
    read, data, ended = len(data), data[length:], False
    while not ended:
        more = stream.read(CHUNK)
        data, read, ended = data + more, read + len(more), not more
        try:
            text = decoder.decode(data, final=ended)
        except UnicodeError as error:
            pending = error.object if isinstance(error, UnicodeDecodeError) else data  # with what the decoder had kept
            raise _misfit(error, pending, encoding, where, read - len(pending)) from error
        data = b""
        if text:
            yield text


def _is_utf8(begin: bytes) -> bool:
    """Whether it is UTF-8 without zeros, and long enough to be nothing else; as UTF-16, where nearly any two bytes are a character, it would be nonsense."""
    with contextlib.suppress(UnicodeDecodeError):
        codecs.getincrementaldecoder("utf-8")().decode(begin)
        return len(begin) >= 100 and b"\0" not in begin
    return False


def decode_part(data: bytes, encoding: str, where: str, offset: int) -> str:
    """Text of a part of a file, of which ``offset`` is the first byte's number; DataError at the first bytes that do not fit."""
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        raise _misfit(error, data, encoding, where, offset) from error


def _misfit(error: UnicodeError, data: bytes, encoding: str, where: str, offset: int) -> DataError:
    start = error.start if isinstance(error, UnicodeDecodeError) else 0
    return DataError(
        f"{where} is not {encoding} text: byte {offset + start:,} (0x{data[start : start + 1].hex()}) cannot be read. "
        "Convert the file, or name its encoding: data.encoding=latin-1 reads any bytes."
    )
