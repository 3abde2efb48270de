"""Checksums of large files, piece by piece: all cores hash at once, and a few pieces can be checked without reading the rest.

Takes files; gives one SHA-256 for every ``PIECE`` bytes. Hashing a store of 10 GB takes seconds instead of tens of seconds, and
its cheap check at every opening reads at most ``CHEAP_BYTES``. What the cheap check cannot see is a flipped byte in a piece that
it did not draw; the full check sees everything.
"""

import random
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

from gptshake.files import sha256_text
from gptshake.hardware import logical_cores

PIECE = 16 << 20
CHEAP_BYTES = 64 << 20  # 0.07 s


def described(path: Path) -> dict[str, Any]:
    """A file for a manifest: ``size`` in bytes, and ``sha256``, the checksum of every piece."""
    size = path.stat().st_size
    return {"size": size, "sha256": _hashed(path, range(_pieces(size)))}


def fingerprint(files: Iterable[dict[str, Any]]) -> str:
    """One hash for the contents of described files, in this order."""
    return sha256_text(" ".join(digest for file in files for digest in file["sha256"]))


def damage(folder: Path, files: dict[str, dict[str, Any]], *, everything: bool) -> str | None:
    """What is wrong with the files of a folder, in words; None if nothing was found.

    Args:
        folder: where they lie.
        files: name -> what ``described`` said of it.
        everything: read all of them; else all up to ``CHEAP_BYTES`` together, and of more as much: the last piece of each
            file, where one that was cut off and filled up shows, and others drawn anew each time.
    Raises:
        OSError: a file is missing or cannot be read.
    """
    for name, file in files.items():
        size = (folder / name).stat().st_size
        if size != file["size"]:
            return f"{name} has {size:,} bytes instead of {file['size']:,}"
    pieces = {name: range(_pieces(file["size"])) for name, file in files.items()}
    whole = everything or sum(file["size"] for file in files.values()) <= CHEAP_BYTES
    for name, numbers in pieces.items() if whole else _some(pieces).items():
        if _hashed(folder / name, numbers) != [files[name]["sha256"][number] for number in numbers]:
            return f"the content of {name} was changed"
    return None


def _some(pieces: dict[str, range]) -> dict[str, list[int]]:
    """Numbers of a few pieces, by file: the last ones first, then any."""
    last = [(name, numbers[-1]) for name, numbers in pieces.items() if numbers]
    others = [(name, number) for name, numbers in pieces.items() for number in numbers[:-1]]
    drawn = random.Random().sample(others, min(len(others), max(0, CHEAP_BYTES // PIECE - len(last))))
    return {name: sorted(number for file, number in last + drawn if file == name) for name in pieces}


def _pieces(size: int) -> int:
    return -(-size // PIECE)


def _hashed(path: Path, numbers: Iterable[int]) -> list[str]:
    def one(number: int) -> str:
        with path.open("rb", buffering=0) as file:
            file.seek(number * PIECE)
            return sha256(file.read(PIECE)).hexdigest()

    wanted = list(numbers)
    if len(wanted) < 2:
        return [one(number) for number in wanted]
    with ThreadPoolExecutor(logical_cores()) as threads:
        return list(threads.map(one, wanted))
