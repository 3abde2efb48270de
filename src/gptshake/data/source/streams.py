"""A file's bytes as a stream, whatever it is compressed with, and every way in which that can fail as one sentence.

gz and bz2 come from the standard library, zst from pyarrow (which ``datasets`` brings); files made of several frames one
after the other are read whole by all three, and a file that is cut off is an error, never a shorter text.
"""

import bz2
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gptshake.data.source.protocol import shown
from gptshake.errors import DataError

_BUFFER = 1 << 20


@contextmanager
def opened(file: Path, compression: str) -> Iterator[tuple[io.BufferedReader, IO[bytes]]]:
    """The decompressed stream, and the file below it, whose position tells how far it has been read.

    Args:
        file: what to open.
        compression: ``.gz``, ``.bz2``, ``.zst``, or empty.
    Raises:
        DataError: if the file cannot be read or is damaged, while it is open.
    """
    try:
        with file.open("rb") as raw:
            yield io.BufferedReader(_decompressed(raw, compression), _BUFFER), raw
    except EOFError as error:
        raise DataError(f"{shown(str(file))} is cut off: it ends in the middle of its {compression.removeprefix('.')} stream.") from error
    except (OSError, zlib.error) as error:  # pyarrow's errors of compression are OSErrors too
        damaged = not isinstance(error, OSError) or error.errno is None
        reason = str(error) if damaged else getattr(error, "strerror", None)
        raise DataError(f"{shown(str(file))} {'is damaged' if damaged else 'cannot be read'}: {str(reason).rstrip('.')}.") from error


def _decompressed(raw: IO[bytes], compression: str) -> Any:
    if compression == ".gz":
        return gzip.GzipFile(fileobj=raw)
    if compression == ".bz2":
        return bz2.BZ2File(raw)
    if compression == ".zst":
        import pyarrow

        return pyarrow.CompressedInputStream(raw, "zstd")
    return raw
