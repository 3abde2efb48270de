"""``task=clean``: what caches, checkpoints and studies take on the disk; removes what is named, after asking, and nothing in use.

Links are never followed: what a link points at belongs to somebody else.
"""

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from gptshake.console import aligned, one_line
from gptshake.context import Context
from gptshake.errors import ConfigError, RecordError, closest
from gptshake.estimate.formatting import short_bytes
from gptshake.files import expanded, is_locked
from gptshake.record.index import STUDY_FILE, read_index
from gptshake.record.lock import is_alive

CACHES = ("stores", "corpora", "tokenizers", "fits")  # folders of the cache; all of it can be made again
COPIES = "copies"  # of token stores on a node's own disk, in paths.node_cache


@dataclass(frozen=True)
class Item:
    """Something that can be removed by its name."""

    kind: str  # stores, checkpoints, studies, ...
    name: str  # kind and name: stores/308cb16aa754678f, checkpoints/x3k9a2pq, studies/night1
    path: Path
    size: int  # bytes on the disk
    about: str  # what it belongs to
    runs: tuple[Path, ...] = ()  # directories that must not be at work, a study's own among them


def run(context: Context) -> None:
    """List everything, or remove what ``task.remove`` names.

    Raises:
        ConfigError: a name that nothing has.
        RecordError: something cannot be removed.
    """
    cfg = context.config
    places = [expanded(folder) for key in ("runs", "multirun", "cache", "node_cache") if (folder := cfg.paths.get(key))]
    found, wanted, limit = items(*places), cfg.task.remove, cfg.task.limit
    if wanted:
        _remove(_named([wanted] if isinstance(wanted, str) else [str(name) for name in wanted], found), sure=cfg.task.yes)
    elif found:
        sizes = Counter[str]()
        for item in found:
            sizes[item.kind] += item.size
        print("  ".join(f"{kind} {short_bytes(size)}" for kind, size in sizes.most_common()) + "  (a study holds its runs' checkpoints)\n")
        print(_table(found[:limit], {}))
        more = f"{len(found) - limit} more; task.limit=null shows all. " if limit and len(found) > limit else ""
        print(f"\n{more}Remove by name or pattern: task=clean task.remove={found[0].name}")
    else:
        print("No caches, checkpoints or studies are on the disk.")


def items(runs: Path, multirun: Path, cache: Path, node_cache: Path | None = None) -> list[Item]:
    """Everything, the largest first."""
    roots = [root.resolve() for root in (runs, multirun)]
    entries = [entry for entry in read_index([runs, multirun]) if any(entry.path.resolve().is_relative_to(root) for root in roots)]
    found: list[Item] = []

    def add(kind: str, name: str, path: Path, about: str, used_by: Iterable[Path]) -> None:
        found.append(Item(kind, f"{kind}/{name}", path, size_of(path), about, tuple(used_by)))

    caches = {kind: cache / kind for kind in CACHES} | ({COPIES: node_cache / "stores"} if node_cache not in (None, cache) else {})
    for kind, place in caches.items():
        for path in _children(place):
            users = [entry for entry in entries if entry.part("data").get("store") == path.name]
            ids = ", ".join(list(dict.fromkeys(entry.id for entry in users))[:3])
            add(kind, path.name, path, f"of {ids}" if ids else "", (entry.path for entry in users))
    for entry in entries:
        folder = entry.path / "checkpoints"
        if folder.is_dir() and not folder.is_symlink() and any(folder.iterdir()):
            about = f"{entry.title}, {entry.status}{f', trial of {entry.study}' if entry.study else ''}"
            add("checkpoints", entry.id, folder, about, [entry.path])
    for folder in filter(Path.is_dir, _children(multirun)):
        trials = [entry.path for entry in entries if entry.path.is_relative_to(folder)]
        if trials or (folder / STUDY_FILE).is_file():
            add("studies", folder.name, folder, f"{len(trials)} runs with their records", [folder, *trials])
    return sorted(found, key=lambda item: (-item.size, item.name))


def size_of(path: Path) -> int:
    """Bytes that a file or a folder takes on the disk; what cannot be read counts nothing."""
    total = 0
    with suppress(OSError):
        total = path.lstat().st_blocks * 512
        if path.is_dir() and not path.is_symlink():
            total += sum(size_of(child) for child in path.iterdir())
    return total


def _children(folder: Path) -> list[Path]:
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if not path.is_symlink() and not path.name.endswith(".lock"))
    return []


def in_use(item: Item) -> str | None:
    """Who works with it now, in words; None if nobody does."""
    if busy := next((run for run in item.runs if is_alive(run)), None):
        return f"{busy.name} is running"
    # A builder (``files.build_once``) holds the lock of this folder, or of the one that it becomes.
    lock = item.path.with_name(f".{item.path.name.removeprefix('.').removesuffix('.partial')}.lock")
    if item.kind in (*CACHES, COPIES) and is_locked(lock):
        return "it is being built"
    beginnings = tuple(os.fsencode(f"{item.path.resolve()}{end}") for end in ("/", "\n"))
    for process in Path("/proc").glob("[0-9]*"):  # where the system tells (Linux)
        if any(name.startswith(beginnings) for name in _opened(process)):
            return f"process {process.name} has it open"
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


def _table(found: Sequence[Item], used: dict[str, str]) -> str:
    notes = [f"in use: {used[item.name]}" if item.name in used else "" for item in found]
    rows = [[short_bytes(item.size), item.name, note, one_line(item.about)] for item, note in zip(found, notes, strict=True)]
    return aligned([["size", "name", "", "of"], *rows], left=(1, 2))


def _named(wanted: Sequence[str], found: Sequence[Item]) -> list[Item]:
    """The items whose names, with or without the kind, fit a name or a pattern; each once."""
    chosen: dict[str, Item] = {}
    for name in wanted:
        fits = [item for item in found if fnmatchcase(item.name, name) or item.name.partition("/")[2] == name]
        if not fits:
            near = closest(name, [item.name for item in found])
            hint = f"did you mean {near}?" if near else "task=clean lists the names."
            raise ConfigError(f"task.remove={name}: nothing on the disk has this name: {hint}")
        if len(fits) > 1 and not any(sign in name for sign in "*?["):
            raise ConfigError(f"task.remove={name} names {' and '.join(item.name for item in fits)}: say which.")
        chosen |= {item.name: item for item in fits}
    return list(chosen.values())


def _remove(chosen: Sequence[Item], *, sure: bool) -> None:
    """Remove what is not in use, after asking; where there is nobody to ask, the answer is no, with the way to say yes."""
    used = {item.name: why for item in chosen if (why := in_use(item))}
    print(_table(chosen, used))
    free = [item for item in chosen if item.name not in used]
    # Checkpoints in a study go with it, and count once.
    paths = {item.path for item in free}
    free = [item for item in free if paths.isdisjoint(item.path.parents)]
    if not free:
        print("Nothing is removed: all of it is in use.")
        return
    kinds = Counter(item.kind for item in free)
    lost = ["these runs cannot be resumed or sampled any more"] * ("checkpoints" in kinds)
    lost += ["records and results are among it"] * ("studies" in kinds)
    what = ", ".join([*(f"{number} of {kind}" for kind, number in kinds.items()), short_bytes(sum(item.size for item in free))])
    question = f"Remove {what}{f' ({end})' if (end := '; '.join(lost)) else ''} permanently?"
    confirmed = sure
    if not sure and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"{question} Add task.yes=true.")
    elif not sure:
        with suppress(EOFError):
            confirmed = input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    if confirmed:
        freed = 0
        for item in free:
            if why := in_use(item):  # since it was asked for
                print(f"{item.name} is kept: {why}.")
                continue
            try:
                remove(item)
            except OSError as error:
                left = f"{short_bytes(freed)} were freed."
                raise RecordError(f"{item.name} cannot be removed: {error.strerror}: {error.filename}. {left}") from error
            freed += item.size
        print(f"{short_bytes(freed)} freed.")
        return
    print("Nothing is removed.")


def remove(item: Item) -> None:
    if item.path.is_dir() and not item.path.is_symlink():
        shutil.rmtree(item.path)
    else:
        item.path.unlink(missing_ok=True)
