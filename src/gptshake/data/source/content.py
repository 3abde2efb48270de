"""Which text a set of files holds: one hash over their names and contents, quick also for files of many gigabytes.

Hashing runs at 2 GB/s, too slow to do at every start for a large corpus: above 64 MB a file's hash is remembered for as
long as its size, times, inode and device are the same. The time of the last change (ctime) is among them, which no
program can set: a file that is changed under its name, to the same size and with its old date, is noticed all the same.
A file touched within two seconds of being hashed is not remembered, since the clock of a file system is coarse.
"""

import json
import os
import time
from collections.abc import Mapping
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any

from gptshake.console import visible
from gptshake.errors import DataError
from gptshake.files import sha256, sha256_text, write_atomic

REMEMBERED_FROM = 64 << 20  # bytes of all files together
_SETTLED_NS = 2 * 10**9


def content_hash(files: Mapping[str, Path], cache: Path | None) -> str:
    """SHA-256 over names and contents.

    Args:
        files: by their names, which count; where they lie does not.
        cache: folder for what is remembered; None: everything is hashed.
    Raises:
        DataError: if a file cannot be read.
    """
    stats = {name: _stat(file) for name, file in files.items()}
    memory = None
    if cache is not None and sum(stat.st_size for stat in stats.values()) >= REMEMBERED_FROM:
        places = "\n".join(str(file.absolute()) for file in files.values())
        memory = cache / "hashes" / f"{sha256_text(places.encode(errors='surrogateescape').hex())[:16]}.json"
    known = _recall(memory)
    fresh: dict[str, list[Any]] = {}
    content = new_sha256()
    for name, file in files.items():
        stamp = _stamp(stats[name])
        *old, digest = known.get(name) or [None]
        if old != stamp:
            digest = _hash(file)
        if memory is not None and _settled(stats[name]) and _stamp(_stat(file)) == stamp:
            fresh[name] = [*stamp, digest]
        content.update(f"{name}\0{digest}\n".encode(errors="surrogatepass"))
    if memory is not None and fresh != known:
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(memory, json.dumps(fresh))
    return content.hexdigest()


def total_bytes(files: Mapping[str, Path]) -> int:
    """Sizes of all files together."""
    return sum(_stat(file).st_size for file in files.values())


def _recall(memory: Path | None) -> dict[str, list[Any]]:
    """What is remembered; a file that is missing or damaged costs time, nothing else."""
    try:
        known = json.loads(memory.read_bytes()) if memory is not None else {}
        return {str(name): list(entry) for name, entry in known.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}


def _stamp(stat: os.stat_result) -> list[int]:
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino, stat.st_dev]


def _settled(stat: os.stat_result) -> bool:
    return time.time_ns() - max(stat.st_mtime_ns, stat.st_ctime_ns) > _SETTLED_NS


def _stat(file: Path) -> os.stat_result:
    try:
        return file.stat()
    except OSError as error:
        raise DataError(f"{visible(str(file))} cannot be read: {error.strerror}.") from error


def _hash(file: Path) -> str:
    try:
        return sha256(file)
    except OSError as error:
        raise DataError(f"{visible(str(file))} cannot be read: {error.strerror}.") from error
