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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256 as new_sha256
from itertools import chain, count
from pathlib import Path
from typing import Any

from gptshake.console import visible
from gptshake.data.clean import CLEANING_VERSION, cleaning_version
from gptshake.data.source.formats import READERS, File, plain
from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.source.streams import known_encoding, opened
from gptshake.errors import DataError
from gptshake.files import expanded, sha256, sha256_text, write_atomic

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
REMEMBERED_FROM = 64 << 20  # bytes of all files together from which their hashes are remembered: hashing runs at 2 GB/s
_SETTLED_NS = 2 * 10**9  # a file touched so shortly before it was hashed is not remembered: the clock of a file system is coarse


class TextFiles:
    """Text files as documents; a document's id begins with the name of its file.

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
        self._encoding, self._text_key, self._cleaning = known_encoding(encoding), text_key, cleaning_version(cleaning)
        self._cache = expanded(cache) if cache else None
        self._files, left_out = find(entries)
        kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in left_out.most_common(5)) + (", ..." if len(left_out) > 5 else "")
        n = left_out.total()
        self.notes = (f"skipped, not a known text format: {n:,} file{'s' if n > 1 else ''} ({kinds})",) if n else ()
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
        sizes = [_stat(path).st_size for path in self._files.values()]
        total, before = max(sum(sizes), 1), sum(sizes[: start.part])
        for part, (name, path) in list(enumerate(self._files.items()))[start.part :]:
            format, compression = suffixes(path.name)
            with opened(path, compression) as (stream, raw):
                file = File(name, path, raw, stream, compression, self._text_key, self._encoding, self._cleaning)
                for id, text, more in READERS.get(format, plain)(file, start.inside if part == start.part else 0):
                    yield Document(id, text, part, min(1.0, (before + raw.tell()) / total), more)
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


def suffixes(name: str) -> tuple[str, str]:
    """Format and compression by a file's name, each empty if unknown; ``a.jsonl.gz`` gives ``.jsonl``, ``.gz``."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in COMPRESSED else ""
    format = Path(path.stem).suffix if compression else path.suffix
    return format if format in READERS else "", compression


def find(entries: Sequence[str]) -> tuple[dict[str, Path], Counter[str]]:
    """Files by their names, in the order of the entries and within each sorted; and how many of a folder are left out, by suffix.

    In a folder only known suffixes are taken; a file that is named, by itself or by a pattern, is taken whatever its suffix.

    Args:
        entries: paths or patterns; with several the names begin with the entry's own, and a file found twice is taken once.
    Raises:
        DataError: if an entry is not there, matches nothing or has nothing to read.
    """
    files: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    taken: set[str] = set()
    for entry in entries:
        path = expanded(entry)
        found, others = _found(entry, path)
        left_out += Counter(other.suffix.lower() or "without a suffix" for other in others)
        prefix = f"{path.name}/" if len(entries) > 1 and path.is_dir() else ""
        for name in sorted(found):
            if (absolute := str(found[name].absolute())) in taken:
                continue
            taken.add(absolute)
            full = prefix + name
            unused = (tried for tried in chain([full], (f"{full} ({number})" for number in count(2))) if tried not in files)
            files[next(unused)] = found[name]
    return files, left_out


def _found(entry: str, path: Path) -> tuple[dict[str, Path], list[Path]]:
    """The files of one entry by their names, and those that are left out."""
    if path.is_file():
        return {path.name: path}, []
    if path.is_dir():
        files, others = _by_suffix(_walk(path))
        if not files:
            known = ", ".join([*READERS][1:])
            raise DataError(
                f"The folder data.path={visible(entry)} holds no .txt file nor any other that is read ({known}, each also with "
                f"{', '.join(COMPRESSED)}). Name a single file to read it as text whatever its suffix."
            )
        return {file.relative_to(path).as_posix(): file for file in files}, others
    if path.exists():
        raise DataError(f"data.path={visible(entry)} is neither a file nor a folder. Write its content into a file first.")
    if not glob.has_magic(entry):
        raise DataError(f"data.path={visible(entry)} does not exist. If it has moved, give its new path with data.path=…")
    fixed = next(parent for parent in path.parents if parent.is_dir() or not glob.has_magic(str(parent)))
    matches = [match for match in fixed.glob(str(path.relative_to(fixed))) if not is_hidden(match, fixed)]
    named = {match for match in matches if match.is_file()}
    files, others = _by_suffix(file for match in matches if match.is_dir() for file in _walk(match))
    if not named and not files:
        raise DataError(f"The pattern data.path={visible(entry)} matches no file.")
    return {file.relative_to(fixed).as_posix(): file for file in {*named, *files}}, [other for other in others if other not in named]


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder above it, begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _by_suffix(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Those that can be read, and the others."""
    read: list[Path] = []
    others: list[Path] = []
    for file in files:
        (read if suffixes(file.name)[0] and file.is_file() else others).append(file)
    return read, others


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
    """SHA-256 over names and contents.

    A large file's hash is remembered for as long as its size, times, inode and device are the same. The time of the last change (ctime)
    is among them, which no program can set: a file that is changed to the same size and with its old date is noticed all the same.

    Args:
        files: by their names, which count; where they lie does not.
        cache: folder for what is remembered; None: everything is hashed.
    Raises:
        DataError: if a file cannot be read.
    """
    stats = {name: _stat(file) for name, file in files.items()}
    memory, known = None, dict[str, list[Any]]()
    if cache is not None and sum(stat.st_size for stat in stats.values()) >= REMEMBERED_FROM:
        paths = "\n".join(str(file.absolute()) for file in files.values())
        memory = cache / "hashes" / f"{sha256_text(paths.encode(errors='surrogateescape').hex())[:16]}.json"
        try:
            known = {str(name): list(entry) for name, entry in json.loads(memory.read_bytes()).items()}
        except (OSError, ValueError, AttributeError, TypeError):
            known = {}  # missing or damaged: costs time, nothing else
    fresh: dict[str, list[Any]] = {}
    content = new_sha256()
    for name, file in files.items():
        stamp = _stamp(stats[name])
        *old, digest = known.get(name) or [None]
        if old != stamp:
            try:
                digest = sha256(file)
            except OSError as error:
                raise DataError(f"{visible(str(file))} cannot be read: {error.strerror}.") from error
        settled = time.time_ns() - max(stats[name].st_mtime_ns, stats[name].st_ctime_ns) > _SETTLED_NS
        if memory is not None and settled and _stamp(_stat(file)) == stamp:
            fresh[name] = [*stamp, digest]
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
