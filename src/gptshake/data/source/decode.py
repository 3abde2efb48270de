"""Bytes of the user's files to text: byte order marks, named encodings, and errors that say which byte does not fit.

Nothing is ever replaced in silence.
"""

import codecs
from pathlib import Path

from gptshake.data.source.protocol import shown
from gptshake.errors import DataError

_MARKS = (  # the longer mark first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def known(encoding: str) -> str:
    """Python's own name of an encoding.

    Raises:
        DataError: if there is no such encoding of text.
    """
    try:
        "".encode(encoding)  # codecs.lookup would also accept what turns bytes into bytes, such as hex
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(f"data.encoding={encoding} is no text encoding that Python knows; try utf-8, latin-1, cp1252 or utf-16.") from error


def marked(begin: bytes, encoding: str) -> tuple[int, str]:
    """Length of the byte order mark at the beginning of a file, and the encoding that it names, else ``encoding``."""
    return next(((len(mark), name) for mark, name in _MARKS if begin.startswith(mark)), (0, encoding))


def decode(data: bytes, encoding: str, path: Path) -> str:
    """Text of a file's bytes, in the encoding of its byte order mark if it has one, else in ``encoding``.

    Raises:
        DataError: at the first bytes that do not fit; ``path`` is for the sentence.
    """
    length, encoding = marked(data[:4], encoding)
    return decode_part(data[length:], encoding, shown(str(path)), length)


def decode_part(data: bytes, encoding: str, place: str, offset: int) -> str:
    """Text of a part of a file; ``place`` names the part, ``offset`` is its first byte's number in the file.

    Raises:
        DataError: at the first bytes that do not fit.
    """
    try:
        return data.decode(encoding)
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        raise DataError(
            f"{place} is not {encoding} text: byte {offset + start:,} (0x{data[start]:02x}) cannot be read. "
            "Convert the file, or name its encoding: data.encoding=latin-1 reads any bytes."
        ) from error
