"""Files that are either whole or not there: atomic writes, folders built once under a lock, checksums.

All is written beside its target, flushed to the disk, then renamed: a kill at any moment leaves the old content or the new one.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import io
import os
import random
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import inf
from pathlib import Path
from typing import Any

import yaml

from gptshake.errors import DiskFull, GptshakeError, RecordError, StorageError, chain

YAML_BYTES, YAML_VALUES, YAML_DEPTH = 1 << 20, 100_000, 50  # of a config file; a run's has 4 kB, 150 values, four deep
PIECE = 16 << 20  # bytes of a file under one checksum; token stores of every version are compared by these
CHEAP_BYTES = 64 << 20  # 0.07 s
_NESTED = re.compile(r"(?:[\[{]\s*){20}|(?:- ){20}|^ {100}|(?:\? ){20}", re.MULTILINE)
_OS_ERROR = re.compile(r"os error (\d+)")  # how Rust's libraries write the system's number
_BESIDE = re.compile(r"(^|/)\.([^/]+)\.(?:[0-9a-f]{8}|partial|lock)(?=/|$)")  # what is written in place of its target, see below
_ELSEWHERE = "choose another place with paths.runs=, paths.multirun=, paths.cache= or paths.node_cache= (or the variable GPTSHAKE_CACHE)"
_UNWRITABLE = (errno.EFBIG, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EEXIST)  # the last is a link to what is gone
# What a file system does not do; without a file it may be about anything, such as a socket.
_UNSUPPORTED = (errno.ETXTBSY, errno.EBUSY, errno.EXDEV, errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.ENODEV, errno.ENXIO)


def refuse_links(folder: Path) -> None:
    """Refuse a folder to be written to in which a link leads out of it: what is written or removed through it is somebody else's.

    Nor is anything written to a FIFO or a device: that would never end.
    """
    inside = folder.resolve()
    for parent, folders, files in os.walk(folder):
        for entry in (Path(parent) / name for name in (*folders, *files)):
            name = entry.name if "wandb" in entry.relative_to(folder).parts else ""  # W&B makes such links and leaves them alone later
            wandbs = name == "latest-run" or re.fullmatch(r"debug.*\.log", name)
            if entry.is_symlink() and not entry.resolve().is_relative_to(inside) and not wandbs:
                raise RecordError(
                    f"{entry} is a link to {entry.readlink()}: nothing is written or removed through links. Put what it points to in its place."
                )
            if not (entry.is_symlink() or entry.is_file() or entry.is_dir()):
                raise RecordError(
                    f"{entry} is neither a file nor a folder: it is none of gptshake's. Remove it, or choose another directory."
                )


def expanded(path: str | Path) -> Path:
    """A path as people type it, with ``~`` for the home; a name that only begins with a tilde, as ``~draft.txt``, stays what it is."""
    plain = Path(str(path))  # a number in a file of config is a name like any other
    try:
        return plain.expanduser()
    except RuntimeError:
        return plain


def as_seen_from_here(path: str | Path) -> str:
    """A path relative to the working directory; absolute where that was removed."""
    try:
        return os.path.relpath(path)
    except FileNotFoundError:
        return str(path)


def place(error: BaseException) -> str:
    """Where in a file below the working directory an error was raised, in a part of the user's own mostly: ``in mine.py, line 3``, or nothing."""
    import traceback

    places = [(as_seen_from_here(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    own = [(file, line) for file, line in places if not file.startswith((os.pardir, os.sep, "<")) and "site-packages" not in file]
    return f"in {own[-1][0]}, line {own[-1][1]}" if own else ""


def refuse_irregular(path: Path) -> None:
    """Raise a ValueError for what is there and no regular file: a FIFO or a device never ends."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path.name or path} is not a regular file")


def read_bytes(path: Path, limit: int) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; else a ValueError."""
    refuse_irregular(path)
    if (size := path.stat().st_size) > limit:
        raise ValueError(f"{path.name} has {size:,} bytes, more than {limit:,}")
    return path.read_bytes()


def read_text(path: Path, limit: int) -> str:
    """As ``read_bytes``, for UTF-8 (else a ValueError); with its line ends as ``\\n``."""
    return io.TextIOWrapper(io.BytesIO(read_bytes(path, limit)), encoding="utf-8").read()


def yaml_text(path: Path) -> str:
    """The text of a YAML file that can be loaded: aliases and nesting may make a machine's memory of a few lines.

    Raises a ValueError if it is no UTF-8, too large or too deep, and lets pass OSError and yaml.YAMLError.
    """
    text = read_text(path, YAML_BYTES)
    if "*" not in text and not _NESTED.search(text):
        return text
    sizes: dict[str, int] = {}  # values behind an anchor; they count as often as an alias stands for them
    within: list[tuple[str | None, int]] = []  # anchor, and values before it, of each open collection
    values = 0
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            within.append((event.anchor, values))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = within.pop()
            sizes |= {anchor: values - before} if anchor else {}
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in within):
                raise ValueError(f"{path.name} holds an alias of what it is a part of")
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            values += 1
        if values > YAML_VALUES:
            raise ValueError(f"{path.name} holds more than {YAML_VALUES:,} values, most of them through aliases")
        if len(within) > YAML_DEPTH:
            raise ValueError(f"{path.name} is nested more than {YAML_DEPTH} deep")
    return text


def storage_error(error: BaseException, path: Path | None = None) -> StorageError | None:
    """The sentence about a full disk or a place that cannot be written to, if that is what an error or one behind it is about.

    Libraries may have wrapped the system's error, or kept only its text (safetensors); ``path`` is what was being written, if it does not say.
    """
    for behind in chain(error):
        number = behind.errno if isinstance(behind, OSError) else int(match[1]) if (match := _OS_ERROR.search(str(behind))) else None
        named = getattr(behind, "filename2", None) or getattr(behind, "filename", None)  # of two the one that is written
        place = Path(_BESIDE.sub(r"\1\2", str(named))) if named else path
        if number in (errno.ENOSPC, errno.EDQUOT):
            details = f": {place} could not be written, {_left(place)} there" if place else ""
            return DiskFull(f"The disk is full{details}. Free some space (task=clean lists what can go), or {_ELSEWHERE}.")
        if number in (errno.EROFS, errno.EACCES, errno.EPERM):
            return StorageError(f"{place or 'A file'} cannot be accessed: {os.strerror(number)}. Change its permissions, or {_ELSEWHERE}.")
        if number in (errno.EIO, errno.ESTALE):
            return StorageError(f"{place or 'A file'} cannot be accessed: {os.strerror(number)}. Check the disk, or {_ELSEWHERE}.")
        if number in (errno.EMFILE, errno.ENFILE):
            return StorageError(
                f"{place or 'A file'} cannot be opened: {os.strerror(number)}. Raise the limit (ulimit -n), or end other programs."
            )
        if number in _UNWRITABLE or (place and number in _UNSUPPORTED):
            return StorageError(f"{place or 'A file'} cannot be written: {os.strerror(number)}. C{_ELSEWHERE[1:]}.")
        if number == errno.ENOENT and place and place.parent.is_dir() and not os.statvfs(place.parent).f_blocks:  # as in /proc
            return StorageError(f"{place} cannot be written: the file system there stores no files. C{_ELSEWHERE[1:]}.")
    return None


def free_disk(place: Path) -> int:
    """Bytes that are free where a path is, or will be."""
    return shutil.disk_usage(_there(place)).free


def _there(place: Path) -> Path:
    return next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.exists())


def _left(place: Path) -> str:
    """What is left on a full disk, in words: of some only the number of files is limited."""
    disk = os.statvfs(_there(place))
    return "no inode for another file is left" if disk.f_files and not disk.f_favail else f"{free_disk(place) / 2**20:,.1f} MiB are free"


@contextmanager
def storing(path: Path) -> Iterator[None]:
    """Raise what goes wrong with the disk as a ``StorageError`` that names the file."""
    try:
        yield
    except GptshakeError:
        raise
    except Exception as error:
        if found := storage_error(error, path):
            raise found from error
        raise


def fsync(path: Path) -> None:
    """Flush a file's content, or a folder's list of names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def package_folder(name: str) -> Path | None:
    """Where an installed package lies, found without importing it; None if it is not installed."""
    spec = importlib.util.find_spec(name)
    return Path(next(iter(spec.submodule_search_locations))) if spec and spec.submodule_search_locations else None


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace ``path`` by ``content`` (text as UTF-8, ``?`` for what that cannot say) so that a reader sees the old file or the new one, never a mixture."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    with storing(path):
        if path.exists() and not path.is_file():  # root could replace a device
            raise StorageError(f"{path} is no regular file, and nothing is written in its place: remove it, or choose another name.")
        try:
            beside.write_bytes(content.encode(errors="replace") if isinstance(content, str) else content)
            fsync(beside)
            beside.replace(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        fsync(path.parent)


def write_folder_atomic(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a new folder beside ``target`` with ``write`` and put it in the place of ``target``.

    What is there already is moved aside first and removed last, so a kill between the two leaves no target at all
    rather than a mixed one.
    """
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    new = [folder for folder in target.parents if not folder.exists()]
    with storing(target):
        beside.mkdir(parents=True)
        try:
            write(beside)
            _put(beside, target)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            with contextlib.suppress(OSError):  # others have put something there
                for folder in new:
                    folder.rmdir()
            raise


def _put(beside: Path, target: Path) -> None:
    """Flush a folder to the disk and let it take the place of ``target``."""
    for file in (*beside.rglob("*"), beside):
        fsync(file)
    old = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.old")
    if target.exists():
        target.replace(old)
    beside.replace(target)
    fsync(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def build_once(
    target: Path,
    valid: Callable[[Path], bool],
    build: Callable[[Path], None],
    waiting: Callable[[], None] = lambda: None,
    *,
    resumes: bool = False,
) -> bool:
    """Make the folder ``target`` with ``build`` unless a ``valid`` one is there; processes that start together build it once.

    Args:
        target: folder to make; its name should say its content (a hash), as it is never changed afterwards.
        valid: whether the folder at ``target`` can be trusted; a folder that is not is built anew.
        build: fills the folder it is given: an empty one or, with ``resumes``, what a killed or failed builder left of it.
        waiting: called once if another process is building it now.
        resumes: whether ``build`` goes on with what is there already.
    Returns:
        Whether it was built now.
    """
    if valid(target):
        return False
    with storing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = target.with_name(f".{target.name}.lock")
        try:
            held = lock_file(lock, 0.1)
        except BlockingIOError:
            waiting()
            held = lock_file(lock, inf)
        try:
            if valid(target):
                return False
            partial = target.with_name(f".{target.name}.partial")
            for folder in target.parent.glob(f".{target.name}.*"):  # of killed builders; nobody else writes here under the lock
                if folder.is_dir() and not (resumes and folder == partial):
                    shutil.rmtree(folder, ignore_errors=True)
            partial.mkdir(exist_ok=True)
            try:
                build(partial)
            except BaseException:
                if not resumes:
                    shutil.rmtree(partial, ignore_errors=True)
                raise
            _put(partial, target)
            return True
        finally:
            os.close(held)


def lock_file(path: Path, seconds: float = 0.0) -> int:
    """A descriptor that holds a file's lock until it is closed; the file is made if it is not there.

    Raises:
        BlockingIOError: another process holds it, for all these seconds.
        StorageError: its file system has no locks.
    """
    handle, until = os.open(path, os.O_RDWR | os.O_CREAT, 0o644), time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() >= until:
                os.close(handle)
                raise
            time.sleep(0.02)
        except OSError as error:
            os.close(handle)
            raise StorageError(f"{path} cannot be locked ({error.strerror}): put it on a file system that has flock.") from error


def is_locked(path: Path) -> bool:
    """Whether a process holds a file's lock; False if there is no such file."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two who ask at once do not see each other
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False  # its file system has no locks
    finally:
        os.close(handle)


def written(write: Callable[[], Iterable[Path]]) -> str:
    """Write files and name them, a line each; where they cannot be written, say so: what was printed is not lost by that."""
    try:
        return "\n".join(f"  {as_seen_from_here(file)}" for file in write())
    except StorageError as error:
        return f"  note: no file was written: {error}"
    except OSError as error:
        return f"  note: no file was written: {error.filename or 'the folder'}: {error.strerror or error}"


def sha256(*paths: Path) -> str:
    found = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: found)
    return found.hexdigest()


def sha256_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def checksums(path: Path) -> dict[str, Any]:
    """A file for a manifest: ``size`` in bytes, and ``sha256``, one for every ``PIECE`` bytes, hashed by all cores."""
    size = path.stat().st_size
    return {"size": size, "sha256": _hashed(path, range(-(-size // PIECE)))}


def damage(folder: Path, files: Mapping[str, Mapping[str, Any]], *, everything: bool) -> str | None:
    """What is wrong with the files of a folder (name -> its ``checksums``), in words; None if nothing was found.

    Reads everything, or else all up to ``CHEAP_BYTES`` together, and of more as much: the last piece of each file, where one that was
    cut off and filled up shows, and others drawn anew each time (a flipped byte in the rest is not seen).
    """
    last, others = list[tuple[str, int]](), list[tuple[str, int]]()
    for name, file in files.items():
        size = (folder / name).stat().st_size
        if size != file["size"]:
            return f"{name} has {size:,} bytes instead of {file['size']:,}"
        pieces = [(name, number) for number in range(-(-size // PIECE))]
        others, last = others + pieces[:-1], last + pieces[-1:]
    if not everything and sum(file["size"] for file in files.values()) > CHEAP_BYTES:
        others = random.Random().sample(others, min(len(others), max(0, CHEAP_BYTES // PIECE - len(last))))
    for name, file in files.items():
        numbers = sorted(number for of, number in last + others if of == name)
        if _hashed(folder / name, numbers) != [file["sha256"][number] for number in numbers]:
            return f"the content of {name} was changed"
    return None


def _hashed(path: Path, numbers: Iterable[int]) -> list[str]:
    """SHA-256 of the pieces with these numbers."""
    from concurrent.futures import ThreadPoolExecutor

    def one(number: int) -> str:
        with path.open("rb", buffering=0) as file:
            file.seek(number * PIECE)
            return hashlib.sha256(file.read(PIECE)).hexdigest()

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        return list(threads.map(one, numbers))
