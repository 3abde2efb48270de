"""The user's own text: files, folders and patterns of plain text, JSON lines, Parquet and MediaWiki dumps, packed or not.

Text comes through as it is, with two exceptions that belong to files rather than to text: a byte order mark is removed
(and decides the encoding), and CR LF of a text file becomes LF; dumps are cleaned of their markup. Everything is streamed: memory
holds one document, of a plain text a megabyte. A file's name is its path relative to the folder or the pattern's fixed part, so that
a corpus may move or grow without a document changing splits.
"""

import glob
import json
import os
import time
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256 as new_sha256
from itertools import chain, count
from pathlib import Path
from typing import Any

from gptshake.console import visible
from gptshake.data.clean import cleaning_version
from gptshake.data.config import TextKeys
from gptshake.data.source.formats import READERS, File, plain
from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.source.streams import known_encoding, open_stream
from gptshake.errors import DataError
from gptshake.estimate.formatting import counted
from gptshake.files import expanded, sha256, sha256_text, write_atomic

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
REMEMBERED_FROM = 64 << 20  # bytes of all files together from which their hashes are remembered: hashing runs at 2 GB/s
_RECENT_NS = 2 * 10**9  # a file touched so shortly before it was hashed is not remembered: the clock of a file system is coarse


@dataclass
class TextFiles(TextKeys):
    """Text files as documents; a document's id begins with the name of its file.

    A file that is named is read by its suffix, as plain text if that says nothing; of a folder what has a known suffix is read.

    Raises:
        ConfigError: if there is no such version of the cleaning.
        DataError: if the path is missing or has nothing to read, or the encoding is unknown.
    """

    cache: str | None = None  # folder for remembered hashes of large files; None: they are hashed at every start
    licence = "your own file (license unknown)"

    def __post_init__(self) -> None:
        several = isinstance(self.path, Sequence) and not isinstance(self.path, str)
        self._entries = entries = list(dict.fromkeys(map(str, self.path if several else filter(None, [self.path]))))
        if not entries:
            raise DataError("Which text? Give a file, a folder or a pattern, or a list of them, with data.path=…")
        self.encoding, self.cleaning = known_encoding(self.encoding), cleaning_version(self.cleaning)
        self._files, left_out = find(entries)
        plainly = Counter(unknown for name in self._files if (unknown := _unknown_suffix(name)))
        found = {"skipped, not a known text format": left_out, "read as plain text, not a known text format": plainly}
        self.notes = tuple(f"{how}: {_kinds(kinds)}" for how, kinds in found.items() if kinds)
        self.label = _label(entries[0]) + (f"-and-{len(entries) - 1}" if len(entries) > 1 else "")

    def fingerprint(self) -> dict[str, Any]:
        """Names and contents of all files, as one hash, and those settings that matter to them."""
        kinds = [suffixes(path.name) for path in self._files.values()]
        formats = {format for format, _ in kinds}
        later = (formats & {".json", ".ndjson"}) | {packed for _, packed in kinds if packed == ".xz"}
        matters = {
            "encoding": self.encoding if formats - {".parquet", ".xml"} else None,
            "text_key": self.text_key if formats & {".jsonl", ".ndjson", ".json", ".parquet"} else None,
            "cleaning": self.cleaning if ".xml" in formats else None,
            "not_as_plain_text": sorted(later) or None,  # once they were read as that, to another text
        }
        settings = {key: value for key, value in matters.items() if value is not None}
        content = content_hash(self._files, expanded(self.cache) if self.cache else None)
        return {"source": "files", **settings, "files": len(self._files), "sha256": content}

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The documents of the files, one file after the other, each a part; DataError names a file that cannot be read or holds no text."""
        sizes = [_stat(path).st_size for path in self._files.values()]
        total, before = max(sum(sizes), 1), sum(sizes[: start.part])
        for part, (name, path) in list(enumerate(self._files.items()))[start.part :]:
            format, compression = suffixes(path.name)
            with open_stream(path, compression) as (stream, raw):
                file = File(name, path, raw, stream, compression, self.text_key, self.encoding, self.cleaning)
                for document in READERS.get(format, plain)(file, start.inside if part == start.part else 0):
                    yield replace(document, part=part, share=min(1.0, (before + raw.tell()) / total))
            before += sizes[part]

    def resolved(self) -> dict[str, Any]:
        """Where the text lies, whatever the working directory, so that a run can be resumed from anywhere."""
        paths = [os.path.abspath(os.path.expanduser(entry)) for entry in self._entries]  # noqa: PTH100, PTH111 -- a pattern is no path
        return {"path": paths[0] if len(paths) == 1 else paths}


def _label(entry: str) -> str:
    path = expanded(entry).resolve()
    name = path.parent.name if "*" in path.name else path.name
    compression = suffixes(name)[1]
    stem = unicodedata.normalize("NFC", Path(name[: len(name) - len(compression)]).stem)  # macOS splits accents from their letters
    kept = "".join(letter if letter in "_.-" or unicodedata.category(letter)[0] in "LMN" else " " for letter in stem)
    return "-".join(kept.split()).strip("-.") or "text"


def _unknown_suffix(name: str) -> str:
    """A suffix that names no format which is read, as ``.csv`` of ``a.csv.gz``; empty if it does, or if there is none."""
    format, compression = suffixes(name)
    return "" if format else Path(name[: len(name) - len(compression)]).suffix.lower()


def _kinds(kinds: Counter[str]) -> str:
    some = ", ".join(f"{n:,} {suffix}" for suffix, n in kinds.most_common(5)) + (", ..." if len(kinds) > 5 else "")
    return f"{counted(kinds.total(), 'file')} ({some})"


def suffixes(name: str) -> tuple[str, str]:
    """Format and compression by a file's name, each empty if unknown; ``a.jsonl.gz`` gives ``.jsonl``, ``.gz``."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in COMPRESSED else ""
    format = Path(path.stem).suffix if compression else path.suffix
    return format if format in READERS else "", compression


def find(entries: Sequence[str]) -> tuple[dict[str, Path], Counter[str]]:
    """Files by their names, in the order of the entries and within each sorted; and how many of a folder are left out, by suffix.

    In a folder only known suffixes are taken; a file that is named, by itself or by a pattern, is taken whatever its suffix. With several
    entries the names begin with the entry's own, and a file found twice is taken once.
    """
    files: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    taken: set[str] = set()
    for entry in entries:
        path = expanded(entry)
        named, below = _matches(entry, path)
        known = {name: file for name, file in below.items() if suffixes(file.name)[0] and file.is_file()}
        if not named and not known:
            raise DataError(_nothing(entry, path))
        left_out.update(_why_left_out(below[name]) for name in below if name not in known | named)
        prefix = f"{path.name}/" if len(entries) > 1 and path.is_dir() else ""
        for name, file in sorted((known | named).items()):
            if (absolute := str(file.absolute())) not in taken:
                taken.add(absolute)
                tries = chain([prefix + name], (f"{prefix}{name} ({number})" for number in count(2)))
                files[next(tried for tried in tries if tried not in files)] = file
    return files, left_out


def _matches(entry: str, path: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """The files that one entry names, and all those below the folders that it names, by their names."""
    if path.is_file():
        return {path.name: path}, {}
    if path.is_dir():
        return {}, {file.relative_to(path).as_posix(): file for file in _walk(path)}
    if path.exists() or not glob.has_magic(entry):
        return {}, {}
    fixed = next(parent for parent in path.parents if parent.is_dir() or not glob.has_magic(str(parent)))
    matches = [match for match in fixed.glob(str(path.relative_to(fixed))) if not is_hidden(match, fixed)]
    named = {match.relative_to(fixed).as_posix(): match for match in matches if match.is_file()}
    below = [file for match in matches if match.is_dir() for file in _walk(match)]
    return named, {file.relative_to(fixed).as_posix(): file for file in below}


def _why_left_out(file: Path) -> str:
    if suffixes(file.name)[0]:
        return "linked to nothing" if file.is_symlink() and not file.exists() else "not regular"
    return file.suffix.lower() or "without a suffix"


def _nothing(entry: str, path: Path) -> str:
    """Why there is nothing to read, as a sentence."""
    shown = visible(entry)
    if path.is_dir():
        return (
            f"The folder data.path={shown} holds no .txt file nor any other that is read ({', '.join([*READERS][1:])}, each also with "
            f"{', '.join(COMPRESSED)}). Name a single file to read it as text whatever its suffix."
        )
    if path.exists():
        return f"data.path={shown} is neither a file nor a folder. Write its content into a file first."
    if not glob.has_magic(entry):
        return f"data.path={shown} does not exist. If it has moved, give its new path with data.path=…"
    return f"The pattern data.path={shown} matches no file."


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder above it, begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _walk(folder: Path) -> Iterator[Path]:
    """All entries that are no folders; hidden ones are skipped, linked folders entered, each folder once."""

    def refuse(error: OSError) -> None:
        raise DataError(f"The folder {visible(str(error.filename))} cannot be read: {error.strerror}.") from error

    entered = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        real = os.path.realpath(root)
        folders[:] = [] if real in entered else sorted(name for name in folders if not name.startswith("."))
        yield from () if real in entered else (Path(root, name) for name in names if not name.startswith("."))
        entered.add(real)


def content_hash(files: Mapping[str, Path], cache: Path | None) -> str:
    """SHA-256 over names and contents; where the files lie does not count.

    A large file's hash is remembered in ``cache`` for as long as its size, times, inode and device are the same. The time of the last
    change (ctime) is among them, which no program can set: a file that is changed to the same size and with its old date is noticed.
    """
    memory, known = None, dict[str, list[Any]]()
    if cache is not None and sum(_stat(file).st_size for file in files.values()) >= REMEMBERED_FROM:
        paths = "\n".join(str(file.absolute()) for file in files.values())
        memory = cache / "hashes" / f"{sha256_text(paths.encode(errors='surrogateescape').hex())[:16]}.json"
        try:
            known = {str(name): list(entry) for name, entry in json.loads(memory.read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            known = {}  # missing or damaged: costs time, nothing else
    fresh: dict[str, list[Any]] = {}
    content = new_sha256()
    for name, file in files.items():
        stat = _stat(file)
        *old, digest = known.get(name) or [None]
        if old != _stamp(stat):
            try:
                digest = sha256(file)
            except OSError as error:
                raise DataError(f"{visible(str(file))} cannot be read: {error.strerror}.") from error
        quiet = time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _RECENT_NS
        if quiet and _stamp(_stat(file)) == _stamp(stat):
            fresh[name] = [*_stamp(stat), digest]
        content.update(f"{name}\0{digest}\n".encode(errors="surrogatepass"))
    if memory is not None and fresh != known:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(memory, json.dumps(fresh))
    return content.hexdigest()


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise DataError(f"{visible(str(file))} cannot be read: {error.strerror}.") from error
