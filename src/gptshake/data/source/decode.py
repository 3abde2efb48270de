"""Bytes of the user's files to text: byte order marks, named encodings, and errors that say which byte does not fit.

Nothing is ever replaced in silence.
"""

import codecs
import encodings
import sys
from collections.abc import Iterator
from io import BufferedReader

from gptshake.errors import DataError

CHUNK = 1 << 20  # bytes read at once
_NO_TEXTS = ("idna", "punycode")  # of host names
_MARKS = (  # the longer mark first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ORDER = "le" if sys.byteorder == "little" else "be"
_UNMARKED = {"utf-16": f"utf-16-{_ORDER}", "utf-32": f"utf-32-{_ORDER}"}  # read in chunks they would insist on a mark


def known(encoding: str) -> str:
    """Python's own name of an encoding.

    Only the standard library is asked: installed packages may have codecs of their own for any name (future-typing has).

    Raises:
        DataError: if there is no such encoding of text.
    """
    try:
        found = encodings.search_function(encoding.lower().replace(" ", "-")) if encoding.isascii() else None
        if found and found.name not in _NO_TEXTS:
            "".encode(found.name)  # refuses what turns bytes into bytes, such as hex
            return found.name
    except (LookupError, ValueError) as error:
        raise DataError(_unknown(encoding)) from error
    raise DataError(_unknown(encoding))


def marked(begin: bytes, encoding: str) -> tuple[int, str]:
    """Length of the byte order mark at the beginning of a file, and the encoding that it names, else ``encoding``."""
    return next(((len(mark), name) for mark, name in _MARKS if begin.startswith(mark)), (0, encoding))


def decoded(stream: BufferedReader, encoding: str, place: str) -> Iterator[str]:
    """Text of a stream, in chunks: in the encoding of its byte order mark if it has one, else in ``encoding``.

    Raises:
        DataError: at the first bytes that do not fit; ``place`` is for the sentence.
    """
    data = stream.read(4)
    length, encoding = marked(data, encoding)
    decoder = codecs.getincrementaldecoder(_UNMARKED.get(encoding, encoding))()
    read, data, ended = len(data), data[length:], False
    while not ended:
        more = stream.read(CHUNK)
        data, read, ended = data + more, read + len(more), not more
        try:
            text = decoder.decode(data, final=ended)
        except UnicodeError as error:
            pending = error.object if isinstance(error, UnicodeDecodeError) else data  # with what the decoder had kept
            raise DataError(_misfit(error, pending, encoding, place, read - len(pending))) from error
        data = b""
        if text:
            yield text


def decode_part(data: bytes, encoding: str, place: str, offset: int) -> str:
    """Text of a part of a file; ``place`` names the part, ``offset`` is its first byte's number in the file.

    Raises:
        DataError: at the first bytes that do not fit.
    """
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        raise DataError(_misfit(error, data, encoding, place, offset)) from error


def _misfit(error: UnicodeError, data: bytes, encoding: str, place: str, offset: int) -> str:
    start = error.start if isinstance(error, UnicodeDecodeError) else 0
    return (
        f"{place} is not {encoding} text: byte {offset + start:,} (0x{data[start : start + 1].hex()}) cannot be read. "
        "Convert the file, or name its encoding: data.encoding=latin-1 reads any bytes."
    )


def _unknown(encoding: str) -> str:
    return f"data.encoding={encoding} is no text encoding that Python knows; try utf-8, latin-1, cp1252 or utf-16."
