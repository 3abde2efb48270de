"""The user's own text: files, folders and patterns of plain text, JSON lines, Parquet and MediaWiki dumps, packed or not.

Text comes through as it is, with two exceptions that belong to files rather than to text: a byte order mark is removed
(and decides the encoding), and CR LF of a text file becomes LF; dumps are cleaned of their markup. NUL and other odd
characters stay. Everything is streamed: memory holds one document, of a plain text a megabyte.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gptshake.data.clean import CLEANING_VERSION, cleaning_version
from gptshake.data.source.content import content_hash, total_bytes
from gptshake.data.source.decode import known
from gptshake.data.source.find import find, suffixes
from gptshake.data.source.formats import READERS, File, plain
from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.source.streams import opened
from gptshake.errors import DataError
from gptshake.files import expanded


class TextFiles:
    """Text files as documents; a document's id begins with the file's path relative to the folder.

    Args:
        path: a file, a folder, a pattern such as ``texts/*.txt``, or a list of these. A file that is named is read by its suffix, as
            plain text if that says nothing; of a folder what has a known suffix is read (hidden files left out).
        encoding: Python's name of the encoding, for text files and JSON lines without a byte order mark.
        text_key: field of JSON and column of Parquet that holds the text.
        cache: folder for remembered hashes of large files; None: they are hashed at every start.
        cleaning: version of the cleaning of MediaWiki dumps.
    Raises:
        ConfigError: if there is no such version.
        DataError: if the path is missing or has nothing to read, or the encoding is unknown.
    """

    licence = "your own file (license unknown)"

    def __init__(
        self,
        path: str | Sequence[str] | None,
        encoding: str = "utf-8",
        text_key: str = "text",
        cache: str | None = None,
        cleaning: int = CLEANING_VERSION,
    ) -> None:
        self._entries = entries = [path] if isinstance(path, str) else [str(entry) for entry in path or ()]
        if not entries:
            raise DataError("Which text? Give a file, a folder or a pattern, or a list of them, with data.path=…")
        self._encoding, self._text_key, self._cleaning = known(encoding), text_key, cleaning_version(cleaning)
        self._cache = expanded(cache) if cache else None
        self._files, left_out = find(entries)
        self.notes = (_left_out(left_out),) if left_out else ()
        self.label = _label(entries[0]) + (f"-and-{len(entries) - 1}" if len(entries) > 1 else "")

    def fingerprint(self) -> dict[str, Any]:
        """Names and contents of all files, as one hash, and those settings that matter to them."""
        kinds = [suffixes(path.name) for path in self._files.values()]
        formats = {format for format, _ in kinds}
        later = {format for format in formats if format in (".json", ".ndjson")} | {packed for _, packed in kinds if packed == ".xz"}
        matters = {
            "encoding": self._encoding if formats - {".parquet", ".xml"} else None,
            "text_key": self._text_key if formats & {".jsonl", ".ndjson", ".json", ".parquet"} else None,
            "cleaning": self._cleaning if ".xml" in formats else None,
            "not_as_plain_text": sorted(later) or None,  # once they were read as that, to another text
        }
        settings = {key: value for key, value in matters.items() if value is not None}
        return {"source": "files", **settings, "files": len(self._files), "sha256": content_hash(self._files, self._cache)}

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The documents of the files, one file after the other; each file is a part.

        Raises:
            DataError: if a file cannot be read, is damaged, or holds something else than text; names the file and the place.
        """
        total = max(total_bytes(self._files), 1)
        before = total_bytes(dict(list(self._files.items())[: start.part]))
        for part, (name, path) in list(enumerate(self._files.items()))[start.part :]:
            format, compression = suffixes(path.name)
            with opened(path, compression) as (stream, raw):
                file = File(name, path, raw, stream, compression, self._text_key, self._encoding, self._cleaning)
                for id, text, more in READERS.get(format, plain)(file, start.inside if part == start.part else 0):
                    yield Document(id, text, part, min(1.0, (before + raw.tell()) / total), more)
                before += path.stat().st_size

    def resolved(self) -> dict[str, Any]:
        """Where the text lies, whatever the working directory, so that a run can be resumed from anywhere."""
        places = [os.path.abspath(os.path.expanduser(entry)) for entry in self._entries]  # noqa: PTH100, PTH111 -- a pattern is no path
        return {"path": places[0] if len(places) == 1 else places}


def _label(entry: str) -> str:
    path = expanded(entry).resolve()
    name = path.parent.name if "*" in path.name else path.name
    compression = suffixes(name)[1]
    stem = unicodedata.normalize("NFC", Path(name[: len(name) - len(compression)]).stem)  # macOS parts accents from their letters
    kept = "".join(letter if letter in "_.-" or unicodedata.category(letter)[0] in "LMN" else " " for letter in stem)
    return "-".join(kept.split()).strip("-.") or "text"


def _left_out(suffixes_left: Counter[str]) -> str:
    kinds = ", ".join(f"{count:,} {suffix}" for suffix, count in suffixes_left.most_common(5))
    more = ", ..." if len(suffixes_left) > 5 else ""
    n = suffixes_left.total()
    return f"left out, as no text that is read: {n:,} file{'s' if n > 1 else ''} ({kinds}{more})"
