"""A file's bytes as a stream, whatever it is compressed with, and every way in which that can fail as one sentence.

gz, bz2 and xz come from the standard library, zst from pyarrow; files made of several frames one after the other are read
whole by all of them, and a file that is cut off is an error, never a shorter text. A file that unpacks to hundreds of times
its size is no text but a bomb: it is refused before it fills memory or disk.
"""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gptshake.console import visible
from gptshake.errors import DataError

_BUFFER = 1 << 20
MOST_TIMES, MOST_FREE = 250, 64 << 20  # how much a file may unpack to: so many times what was read of it, or so many bytes; text: 3 to 20


@contextmanager
def opened(file: Path, compression: str) -> Iterator[tuple[io.BufferedReader, IO[bytes]]]:
    """The decompressed stream, and the file below it, whose position tells how far it has been read.

    Args:
        file: what to open.
        compression: ``.gz``, ``.bz2``, ``.xz``, ``.zst``, or empty.
    Raises:
        DataError: if the file cannot be read, is damaged or unpacks without end, or a document in it is too large for the memory.
    """
    try:
        with file.open("rb") as raw:
            yield io.BufferedReader(_Unpacked(raw, compression, file) if compression else raw, _BUFFER), raw
    except MemoryError as error:
        raise DataError(f"{visible(str(file))} holds a document that is too large for the memory. Divide it.") from error
    except EOFError as error:
        raise DataError(f"{visible(str(file))} is cut off: it ends in the middle of its {compression.removeprefix('.')} stream.") from error
    except (OSError, zlib.error, lzma.LZMAError) as error:  # pyarrow's errors of compression are OSErrors too
        damaged = not isinstance(error, OSError) or error.errno is None
        reason = str(error) if damaged else getattr(error, "strerror", None)
        raise DataError(f"{visible(str(file))} {'is damaged' if damaged else 'cannot be read'}: {str(reason).rstrip('.')}.") from error


class _Unpacked(io.RawIOBase):
    """The decompressed bytes of a file, as long as they are not too many for what was read of it."""

    def __init__(self, raw: IO[bytes], compression: str, file: Path) -> None:
        self._raw, self._file, self._given = raw, file, 0
        self._stream = _decompressed(raw, compression)

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read some bytes.

        Raises:
            DataError: they are too many.
        """
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        self._given += len(data)
        if self._given > max(MOST_FREE, MOST_TIMES * self._raw.tell()):
            raise DataError(
                f"{visible(str(self._file))} unpacks to more than {MOST_TIMES} times its size, which no text does. "
                "If it is one, unpack it and name the unpacked file."
            )
        return len(data)


def _decompressed(raw: IO[bytes], compression: str) -> Any:
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".bz2":
        return bz2.BZ2File(raw)
    if compression == ".xz":
        return lzma.LZMAFile(raw)
    import pyarrow

    return pyarrow.CompressedInputStream(raw, "zstd")
