"""From what ``data.path`` says to files: a file, a folder searched to its depths, a pattern, or a list of these.

Gives each file the name that becomes part of its documents' ids: its path relative to the folder or the pattern's fixed
part, so that a corpus may move or grow without a document changing sides. In a folder only known suffixes are taken and
the others are counted; a file that is named, by itself or by a pattern, is taken whatever its suffix.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path

from gptshake.console import visible
from gptshake.data.source.formats import READERS
from gptshake.errors import DataError
from gptshake.files import expanded

SUFFIXES = tuple(READERS)
COMPRESSED = (".gz", ".bz2", ".xz", ".zst")


def suffixes(name: str) -> tuple[str, str]:
    """What a file's name says of it: format and compression, each empty if unknown; ``a.jsonl.gz`` gives ``.jsonl``, ``.gz``."""
    path = Path(name.lower())
    compression = path.suffix if path.suffix in COMPRESSED else ""
    format = Path(path.stem).suffix if compression else path.suffix
    return format if format in SUFFIXES else "", compression


def find(entries: Sequence[str]) -> tuple[dict[str, Path], Counter[str]]:
    """Files by their names, in the order of the entries and within each sorted; and how many of a folder are left out, by suffix.

    Args:
        entries: paths or patterns; with several the names begin with the entry's own, and a file met twice is taken once.
    Raises:
        DataError: if an entry is not there, matches nothing or has nothing to read.
    """
    files: dict[str, Path] = {}
    left_out: Counter[str] = Counter()
    met: set[str] = set()
    for entry in entries:
        path = expanded(entry)
        found, others = _found(entry, path)
        left_out += Counter(other.suffix.lower() or "without a suffix" for other in others)
        prefix = f"{path.name}/" if len(entries) > 1 and path.is_dir() else ""
        for name in sorted(found):
            place = str(found[name].absolute())
            if place not in met:
                met.add(place)
                files[_unused(prefix + name, files)] = found[name]
    return files, left_out


def _unused(name: str, files: dict[str, Path]) -> str:
    """The name, or one with a number if two entries gave the same."""
    return next(tried for tried in chain([name], (f"{name} ({number})" for number in count(2))) if tried not in files)


def _found(entry: str, path: Path) -> tuple[dict[str, Path], list[Path]]:
    if path.is_file():
        return {path.name: path}, []
    if path.is_dir():
        files, others = _sorted_out(_walk(path))
        if not files:
            known = ", ".join(SUFFIXES[1:])
            raise DataError(
                f"The folder data.path={visible(entry)} holds no .txt file nor any other that is read ({known}, each also with "
                f"{', '.join(COMPRESSED)}). Name a single file to read it as text whatever its suffix."
            )
        return _named(files, path), others
    if path.exists():
        raise DataError(f"data.path={visible(entry)} is neither a file nor a folder. Write its content into a file first.")
    if not glob.has_magic(entry):
        raise DataError(f"data.path={visible(entry)} does not exist. If it has moved, give its new place with data.path=…")
    return _matching(entry, path)


def _matching(entry: str, path: Path) -> tuple[dict[str, Path], list[Path]]:
    fixed = next(parent for parent in path.parents if parent.is_dir() or not glob.has_magic(str(parent)))
    matches = [match for match in fixed.glob(str(path.relative_to(fixed))) if not is_hidden(match, fixed)]
    files = [match for match in matches if match.is_file()]
    more, others = _sorted_out(file for match in matches if match.is_dir() for file in _walk(match))
    if not files and not more:
        raise DataError(f"The pattern data.path={visible(entry)} matches no file.")
    return _named({*files, *more}, fixed), [other for other in others if other not in files]


def is_hidden(path: Path, folder: Path) -> bool:
    """Whether a file, or a folder above it, begins with a dot."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _named(files: Iterable[Path], folder: Path) -> dict[str, Path]:
    return {file.relative_to(folder).as_posix(): file for file in files}


def _sorted_out(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Those that can be read, and the others."""
    read: list[Path] = []
    others: list[Path] = []
    for file in files:
        (read if suffixes(file.name)[0] and file.is_file() else others).append(file)
    return read, others


def _walk(folder: Path) -> Iterator[Path]:
    """All entries that are no folders; hidden ones are passed over, linked folders entered, each folder once."""
    entered = set()
    for root, folders, names in os.walk(folder, followlinks=True, onerror=_refuse):
        real = os.path.realpath(root)
        folders[:] = [] if real in entered else sorted(name for name in folders if not name.startswith("."))
        yield from () if real in entered else (Path(root, name) for name in names if not name.startswith("."))
        entered.add(real)


def _refuse(error: OSError) -> None:
    raise DataError(f"The folder {visible(str(error.filename))} cannot be read: {error.strerror}.") from error
