"""Documents to flat files of ids, by one process or by one per core, and onward from where a killed build stopped.

The documents of all splits are cut into parts of about ``PART`` characters, whatever the number of processes, and each part is
encoded by itself into a folder of its own; the finished ones are appended to their split's file in order. So the bytes are the
same for any number of processes, memory stays flat, and what is joined stays joined: a build that goes on checks it by a CRC
(after a power cut the disk may lack the last seconds) and begins with the first part that is not whole.
"""

import json
import shutil
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.corpus import Corpus
from gptshake.data.progress import Progress, Say
from gptshake.data.split import Pieces
from gptshake.errors import GptshakeError
from gptshake.hardware import logical_cores
from gptshake.processes import Child, ForkServer, Spec
from gptshake.tokenizer.protocol import Tokenizer, boundary
from gptshake.tokenizer.unknown import hidden

PART = 1 << 24  # characters: at most so many are lost by a kill for each process, and encoded within 2 s by most tokenizers
FEW_BYTES = 32 << 20  # up to so much text is done by one process: others would cost 0.1 s, a character tokenizer's own time
_PARTS, _IDS, _STARTS, _PART = "parts", "ids", "starts.npy", "part.json"


@dataclass(frozen=True)
class Part:
    """Documents that are encoded together: rows ``first`` to ``last - 1`` of a split's pieces."""

    split: str
    number: int  # within the split; between documents stands an end of text, and so before the first one of a part but the first
    folder: Path
    pieces: Pieces


@dataclass(frozen=True)
class Encoded:
    """What a part became, or a whole split.

    Attributes:
        n_tokens: ids, end-of-text ids between documents included.
        n_bytes: UTF-8 bytes of text under all ids but the split's first one, which is no target.
        n_characters: of the text.
        n_unknown: unknown tokens among the targets.
        hidden: characters under unknown tokens, and how often each is under a target.
        size: bytes of the ids on the disk.
        crc: CRC-32 of those bytes, for a part.
    """

    n_tokens: int
    n_bytes: int
    n_characters: int
    n_unknown: int
    hidden: dict[str, int]
    size: int
    crc: int = 0


def encode(
    folder: Path, corpus: Corpus, cut: dict[str, Pieces], tokenizer: Tokenizer, say: Say, *, processes: int | None = None
) -> dict[str, Encoded]:
    """Write ``<split>.bin``, little-endian ids, and ``<split>.documents.npy``, the position of each document's first id.

    Args:
        folder: gets the files; what a killed process left of them there is gone on with.
        corpus: the documents.
        cut: split -> its pieces, shape (n, 3).
        tokenizer: as it was saved.
        say: prints a line.
        processes: how many encode; None: one per core, or this one alone for a small corpus.
    Raises:
        GptshakeError: a process was killed or could not do its part; what is whole stays.
    """
    parts = [part for name, pieces in cut.items() for part in _parts(folder, name, pieces)]
    found = _taken_over(folder, parts)
    done = sum(encoded.n_bytes for encoded in found)
    if found:
        say(f"resuming the tokenization of an earlier process: {done / corpus.n_bytes:.0%}")
    processes = processes or (logical_cores() if corpus.n_bytes > FEW_BYTES else 1)
    with Progress(say, "tokenizing", corpus.n_bytes, done=done) as progress:
        for part in _ready(parts[len(found) :], corpus, tokenizer, processes):
            found.append(_join(folder, part))
            done += found[-1].n_bytes
            progress(done, f"{sum(encoded.n_tokens for encoded in found) / 1e6:,.1f} million tokens")
    return {name: _close(folder, name, [pair for pair in zip(parts, found, strict=True) if pair[0].split == name]) for name in cut}


def remove_folders(folder: Path) -> None:
    """Remove what only a build that goes on needs; to be called when everything else is written."""
    shutil.rmtree(folder / _PARTS, ignore_errors=True)


def _parts(folder: Path, split: str, pieces: Pieces) -> Iterator[Part]:
    """A piece belongs to the part in which its first character falls."""
    lengths = pieces[:, 2] - pieces[:, 1]
    numbers = (np.cumsum(lengths) - lengths) // PART
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(pieces)]
    for number, (first, last) in enumerate(pairwise(bounds)):
        yield Part(split, number, folder / _PARTS / f"{split}-{number}", pieces[first:last])


def _taken_over(folder: Path, parts: list[Part]) -> list[Encoded]:
    """What the first parts became that an earlier process joined and that are whole; all the rest it left is removed."""
    found: list[Encoded] = []
    sizes = dict.fromkeys((part.split for part in parts), 0)
    for part in parts:
        encoded = _read(part)
        if encoded is None or (part.folder / _IDS).exists() or _crc(_bin(folder, part), sizes[part.split], encoded.size) != encoded.crc:
            break
        found.append(encoded)
        sizes[part.split] += encoded.size
    for part in parts[len(found) :]:
        shutil.rmtree(part.folder, ignore_errors=True)
    for name, size in sizes.items():
        with (folder / f"{name}.bin").open("ab") as file:
            file.truncate(size)
    return found


def _ready(parts: list[Part], corpus: Corpus, tokenizer: Tokenizer, processes: int) -> Iterator[Part]:
    """Encode the parts; gives each when it lies in its folder, in order."""

    def work(number: int) -> None:
        _encode(parts[number], corpus, tokenizer)

    if processes == 1 or len(parts) < 2:
        for number, part in enumerate(parts):
            work(number)
            yield part
    else:
        tokenizer.encode("a")  # what it prepares at its first use is inherited by all
        yield from _by_processes(parts, work, min(processes, len(parts)))


def _by_processes(parts: list[Part], work: Callable[[int], None], processes: int) -> Iterator[Part]:
    """One forked child for each part, a few at a time, and never far ahead of the part that is to be joined next.

    The children do nothing but Python, numpy and the tokenizer, so a caller that has started torch's threads may be forked.
    """
    server = ForkServer(work)
    alive: dict[int, Child] = {}
    begun = finished = 0
    ended: set[int] = set()
    try:
        while finished < len(parts):
            while begun < min(len(parts), finished + 2 * processes) and len(alive) < processes:
                alive[begun] = server.start(Spec(begun, parts[begun].folder))
                begun += 1
            if finished in ended:
                yield parts[finished]
                finished += 1
                continue
            gone = server.wait(list(alive.values()), 60.0)
            ended |= {_whole(number, child) for number, child in alive.items() if child in gone}
            alive = {number: child for number, child in alive.items() if child not in gone}
    finally:
        server.close(grace=0.0)  # what is at work has nothing to save


def _whole(number: int, child: Child) -> int:
    """The number of a part whose child did it.

    Raises:
        GptshakeError: it did not.
    """
    if child.outcome is None or child.outcome.status != "ok":
        reason = child.outcome.reason.rstrip(".") if child.outcome else "no word of it"
        raise GptshakeError(f"A process that tokenizes ended early: {reason}. What is done is kept: the same command goes on from there.")
    return number


def _encode(part: Part, corpus: Corpus, tokenizer: Tokenizer) -> None:
    """Fill the folder of a part; ``part.json`` comes last."""
    part.folder.mkdir(parents=True, exist_ok=True)
    dtype = tokenizer.encode("").dtype.newbyteorder("<")
    end_of_text = np.array([tokenizer.eot_id], dtype).tobytes()
    starts = np.zeros(len(part.pieces), "<u8")
    size = n_bytes = n_characters = n_unknown = crc = begun = 0
    lost: Counter[str] = Counter()
    with (part.folder / _IDS).open("wb", buffering=1 << 20) as file:
        for number, text in corpus.parts(part.pieces, boundary(tokenizer)):
            ids = tokenizer.encode(text)
            n_characters += len(text)
            n_unknown += int(np.count_nonzero(ids == tokenizer.unk_id))
            lost.update(hidden(tokenizer, ids, text))
            n_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            data = ids.astype(dtype, copy=False).tobytes()
            if number == begun:  # the beginning of a document
                begun += 1
                if number or part.number:
                    data = end_of_text + data
                else:
                    n_bytes -= _first_bytes(tokenizer, ids, text)
                    if len(ids) and ids[0] == tokenizer.unk_id:
                        n_unknown -= 1
                        lost[text[0]] -= 1
                starts[number] = (size + len(data)) // dtype.itemsize - len(ids)
            file.write(data)
            crc = zlib.crc32(data, crc)
            size += len(data)
    np.save(part.folder / _STARTS, starts)
    encoded = Encoded(size // dtype.itemsize, n_bytes, n_characters, n_unknown, dict(lost), size, crc)
    (part.folder / _PART).write_text(json.dumps(asdict(encoded)))


def _first_bytes(tokenizer: Tokenizer, ids: npt.NDArray[Any], text: str) -> int:
    """UTF-8 bytes of the text under the first token, which is no target."""
    if not len(ids):
        return 0
    if ids[0] == tokenizer.unk_id:
        return len(text[:1].encode("utf-8", "surrogatepass"))
    return len(tokenizer.token_bytes(int(ids[0])))


def _join(folder: Path, part: Part) -> Encoded:
    """Append a part to its split's file. Its ids are removed last: where they are, it is not joined."""
    encoded = _read(part)
    if encoded is None:
        raise GptshakeError(f"{part.folder / _PART} cannot be read back: is the disk full? The same command goes on from there.")
    with (part.folder / _IDS).open("rb") as ids, _bin(folder, part).open("ab") as file:
        shutil.copyfileobj(ids, file, 1 << 20)
    (part.folder / _IDS).unlink()
    return encoded


def _read(part: Part) -> Encoded | None:
    try:
        return Encoded(**json.loads((part.folder / _PART).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def _bin(folder: Path, part: Part) -> Path:
    return folder / f"{part.split}.bin"


def _crc(path: Path, start: int, size: int) -> int | None:
    """CRC-32 of a range of a file; None if the file is not there or ends before it."""
    crc = 0
    try:
        with path.open("rb") as file:
            file.seek(start)
            while size and (data := file.read(min(size, 1 << 20))):
                crc, size = zlib.crc32(data, crc), size - len(data)
    except FileNotFoundError:
        return None
    return None if size else crc


def _close(folder: Path, name: str, parts: list[tuple[Part, Encoded]]) -> Encoded:
    """Write the positions of a split's documents, from those within its parts; gives the sums of the parts."""
    firsts = np.cumsum([0, *(encoded.n_tokens for _, encoded in parts)], dtype=np.uint64)
    starts = [np.load(part.folder / _STARTS) + first for (part, _), first in zip(parts, firsts[:-1], strict=True)]
    np.save(folder / f"{name}.documents.npy", np.concatenate(starts))
    sums = ("n_tokens", "n_bytes", "n_characters", "n_unknown", "size")
    lost: Counter[str] = Counter()
    for _, encoded in parts:
        lost.update(encoded.hidden)
    return Encoded(hidden=dict(lost), **{key: sum(getattr(encoded, key) for _, encoded in parts) for key in sums})
