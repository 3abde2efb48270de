"""The user's own text: one file of any name, or every .txt file of a folder.

Text comes through as it is, with two exceptions that belong to files rather than to text: a byte order mark is removed
(and decides the encoding), and CR LF becomes LF. NUL and other odd characters stay. Bytes that do not fit the encoding
are an error with their place; nothing is ever replaced in silence.
"""

import codecs
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from gptshake.data.source.protocol import Document
from gptshake.errors import DataError

_MARKS = (  # the longer mark first: UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class TextFiles:
    """Text files as documents; a document's id is the file's path relative to the folder.

    Args:
        path: a file, read as text whatever its suffix; or a folder, searched to its depths for ``*.txt`` (hidden ones left out).
        encoding: Python's name of the encoding, for files without a byte order mark.
    Raises:
        DataError: if the path is missing or has no text files, or the encoding is unknown.
    """

    licence = "the user's own text; licence unknown"

    def __init__(self, path: str | None, encoding: str = "utf-8") -> None:
        if path is None:
            raise DataError("Which text? Give a .txt file, or a folder of them, with data.path=…")
        self._path = Path(path).expanduser()
        self._encoding = _known(encoding)
        self._files = _find(self._path)
        self.label = re.sub(r"[^A-Za-z0-9_.-]+", "-", self._path.resolve().stem).strip("-.") or "text"

    def fingerprint(self) -> dict[str, Any]:
        """Names and contents of all files, as one hash."""
        content = sha256()
        for name, file in self._files.items():
            content.update(f"{name}\0{sha256(_read(file)).hexdigest()}\n".encode(errors="surrogateescape"))
        return {"source": "files", "encoding": self._encoding, "files": len(self._files), "sha256": content.hexdigest()}

    def documents(self) -> Iterator[Document]:
        """The files in the order of their relative paths.

        Raises:
            DataError: if a file cannot be read, or not in this encoding; names the file and the byte.
        """
        for name, file in self._files.items():
            yield Document(name, decode(_read(file), self._encoding, file).replace("\r\n", "\n"))

    def resolved(self) -> dict[str, Any]:
        """Nothing is ``auto`` here."""
        return {}


def decode(data: bytes, encoding: str, path: Path) -> str:
    """Text of a file's bytes, in the encoding of its byte order mark if it has one, else in ``encoding``.

    Raises:
        DataError: at the first bytes that do not fit; ``path`` is for the sentence.
    """
    mark, encoding = next(((mark, name) for mark, name in _MARKS if data.startswith(mark)), (b"", encoding))
    try:
        return data[len(mark) :].decode(encoding)
    except UnicodeError as error:
        start = len(mark) + error.start if isinstance(error, UnicodeDecodeError) else 0
        raise DataError(
            f"{path} is not {encoding} text: byte {start:,} (0x{data[start]:02x}) cannot be read. "
            "Convert the file, or name its encoding: data.encoding=latin-1 reads any bytes."
        ) from error


def _known(encoding: str) -> str:
    try:
        "".encode(encoding)  # codecs.lookup would also accept what turns bytes into bytes, such as hex
        return codecs.lookup(encoding).name
    except (LookupError, ValueError) as error:
        raise DataError(f"data.encoding={encoding} is no text encoding that Python knows; try utf-8, latin-1, cp1252 or utf-16.") from error


def _find(path: Path) -> dict[str, Path]:
    """The files by their ids, sorted."""
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise DataError(f"data.path={path} does not exist.")
    found = {file.relative_to(path).as_posix(): file for file in path.rglob("*") if file.suffix.lower() == ".txt" and file.is_file()}
    files = {name: found[name] for name in sorted(found) if not any(part.startswith(".") for part in name.split("/"))}
    if not files:
        raise DataError(f"The folder data.path={path} holds no .txt file. Name a single file to read it whatever its suffix.")
    return files


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
