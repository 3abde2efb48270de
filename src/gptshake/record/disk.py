"""What caches, checkpoints and studies take on the disk, and how a part of it is removed. Nothing that is in use is.

Links are never followed: what a link points at belongs to somebody else.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from gptshake.record.index import STUDY_FILE, Entry, read_index
from gptshake.record.lock import is_alive

CACHES = ("stores", "corpora", "tokenizers", "fits")  # folders of the cache; all of it can be made again
CHECKPOINTS, STUDIES = "checkpoints", "studies"


@dataclass(frozen=True)
class Item:
    """Something that can be removed by its name."""

    name: str  # kind and name: stores/308cb16aa754678f, checkpoints/x3k9a2pq, studies/night1
    paths: tuple[Path, ...]
    size: int  # bytes on the disk
    about: str  # what it belongs to
    runs: tuple[Path, ...] = ()  # directories that must not be at work, a study's own among them

    @property
    def kind(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]


def items(runs: Path, multirun: Path, cache: Path) -> list[Item]:
    """Everything, the largest first."""
    roots = [root.resolve() for root in (runs, multirun)]
    entries = [entry for entry in read_index([runs, multirun]) if any(entry.path.resolve().is_relative_to(root) for root in roots)]
    found = [*_caches(cache, entries), *_checkpoints(entries), *_studies(multirun, entries)]
    return sorted(found, key=lambda item: (-item.size, item.name))


def in_use(item: Item) -> str | None:
    """Who works with it now, in words; None if nobody does."""
    if busy := next((run for run in item.runs if is_alive(run)), None):
        return f"{busy.name} is running"
    if item.kind in CACHES and any(_is_locked(path) for path in item.paths):
        return "it is being built"
    if process := _opened_by(item.paths):
        return f"process {process} has it open"
    return None


def remove(item: Item) -> None:
    """Remove it from the disk.

    Raises:
        OSError: it cannot be removed; some of it may be gone.
    """
    for path in item.paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def size_of(path: Path) -> int:
    """Bytes that a file or a folder takes on the disk; what cannot be read counts nothing."""
    total = 0
    with suppress(OSError):
        total = path.lstat().st_blocks * 512
        if path.is_dir() and not path.is_symlink():
            total += sum(size_of(child) for child in path.iterdir())
    return total


def _caches(cache: Path, entries: Sequence[Entry]) -> Iterator[Item]:
    for kind in CACHES:
        for path in _children(cache / kind):
            users = tuple(entry.path for entry in entries if (entry.info.get("data") or {}).get("store") == path.name)
            of = dict.fromkeys(entry.id for entry in entries if entry.path in users)
            yield Item(f"{kind}/{path.name}", (path,), size_of(path), f"of {', '.join(list(of)[:3])}" if of else "", users)


def _checkpoints(entries: Iterable[Entry]) -> Iterator[Item]:
    for entry in entries:
        folder = entry.path / CHECKPOINTS
        if folder.is_dir() and not folder.is_symlink() and any(folder.iterdir()):
            study = f", trial of {entry.study}" if entry.study else ""
            yield Item(f"{CHECKPOINTS}/{entry.id}", (folder,), size_of(folder), f"{entry.title}, {entry.status}{study}", (entry.path,))


def _studies(multirun: Path, entries: Sequence[Entry]) -> Iterator[Item]:
    for folder in _children(multirun):
        trials = tuple(entry.path for entry in entries if entry.path.is_relative_to(folder))
        if folder.is_dir() and (trials or (folder / STUDY_FILE).is_file()):
            yield Item(f"{STUDIES}/{folder.name}", (folder,), size_of(folder), f"{len(trials)} runs with their records", (folder, *trials))


def _children(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if not path.is_symlink() and not path.name.endswith(".lock"))
    return []


def _is_locked(path: Path) -> bool:
    """Whether a builder (``files.build_once``) holds the lock of this folder, or of the one that it becomes."""
    lock = path.with_name(f".{path.name.removeprefix('.').removesuffix('.partial')}.lock")
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True


def _opened_by(paths: Sequence[Path]) -> int | None:
    """A process that has a file below one of the paths open or mapped, where the system tells (Linux)."""
    beginnings = tuple(os.fsencode(f"{path.resolve()}{end}") for path in paths for end in ("/", "\n"))
    for process in Path("/proc").glob("[0-9]*"):
        if any(name.startswith(beginnings) for name in _opened(process)):
            return int(process.name)
    return None


def _opened(process: Path) -> Iterator[bytes]:
    """Names, each with a line end, of what a process has open and mapped; of another user's nothing can be read."""
    with suppress(OSError):
        for link in (process / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                yield os.fsencode(link.readlink()) + b"\n"
    with suppress(OSError):
        for line in (process / "maps").read_bytes().splitlines():
            yield line[line.find(b"/") :] + b"\n"
