"""Documents to flat files of ids, by one process or by one per core, and onward from where a killed build stopped.

The documents of all splits are cut into shards of about ``SHARD`` characters, whatever the number of processes, and each shard is
encoded by itself into a directory of its own; the finished ones are appended to their split's file in order. So the bytes are the
same for any number of processes, memory stays flat, and what is joined stays joined: a build that resumes checks it by a CRC
(after a power cut the disk may lack the last seconds) and begins with the first shard that is not whole.
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

from gptshake.data.corpus import Corpus, Progress, Say
from gptshake.data.split import Spans
from gptshake.errors import GptshakeError
from gptshake.hardware import logical_cores
from gptshake.processes import Child, ChildRunner, Spec
from gptshake.tokenizer.protocol import Tokenizer, boundary
from gptshake.tokenizer.unknown import hidden

SHARD = 1 << 24  # characters: at most so many are lost by a kill for each process, and encoded within 2 s by most tokenizers
FEW_BYTES = 32 << 20  # up to so much text is done by one process: others would cost 0.1 s, a character tokenizer's own time
_SHARDS, _IDS, _STARTS, _COUNTS = "parts", "ids", "starts.npy", "part.json"


@dataclass(frozen=True)
class Counts:
    """What was encoded of a shard, or of a whole split.

    Attributes:
        n_tokens: ids, end-of-text ids between documents included.
        n_bytes: UTF-8 bytes of text under all ids but the split's first one, which is no target.
        n_characters: of the text.
        n_unknown: unknown tokens among the targets.
        hidden: characters under unknown tokens, and how often each is under a target.
        size: bytes of the ids on the disk.
        crc: CRC-32 of those bytes, for a shard.
    """

    n_tokens: int
    n_bytes: int
    n_characters: int
    n_unknown: int
    hidden: dict[str, int]
    size: int
    crc: int = 0


@dataclass(frozen=True)
class Shard:
    """Documents that are encoded together."""

    split: str
    number: int  # within the split; between documents stands an end of text, and so before the first one of a shard but the first
    folder: Path
    spans: Spans

    @property
    def joined(self) -> Path:
        """The file of its split."""
        return self.folder.parents[1] / f"{self.split}.bin"

    def counts(self) -> Counts | None:
        """What was encoded of it; None if it is not finished."""
        try:
            return Counts(**json.loads((self.folder / _COUNTS).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None

    def encode(self, corpus: Corpus, tokenizer: Tokenizer) -> None:
        """Fill its folder; the counts come last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        dtype = tokenizer.encode("").dtype.newbyteorder("<")
        end_of_text = np.array([tokenizer.eot_id], dtype).tobytes()
        starts = np.zeros(len(self.spans), "<u8")
        size = n_bytes = n_characters = n_unknown = crc = begun = 0
        lost: Counter[str] = Counter()
        with (self.folder / _IDS).open("wb", buffering=1 << 20) as file:
            for number, text in corpus.texts(self.spans, boundary(tokenizer)):
                ids = tokenizer.encode(text)
                n_characters += len(text)
                n_unknown += int(np.count_nonzero(ids == tokenizer.unk_id))
                lost.update(hidden(tokenizer, ids, text))
                n_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
                data = ids.astype(dtype, copy=False).tobytes()
                if number == begun:  # the beginning of a document
                    begun += 1
                    if number or self.number:
                        data = end_of_text + data
                    elif len(ids) and ids[0] == tokenizer.unk_id:  # the split's first token is no target
                        n_bytes -= len(text[:1].encode("utf-8", "surrogatepass"))
                        n_unknown -= 1
                        lost[text[0]] -= 1
                    elif len(ids):
                        n_bytes -= len(tokenizer.token_bytes(int(ids[0])))
                    starts[number] = (size + len(data)) // dtype.itemsize - len(ids)
                file.write(data)
                crc = zlib.crc32(data, crc)
                size += len(data)
        np.save(self.folder / _STARTS, starts)
        counts = Counts(size // dtype.itemsize, n_bytes, n_characters, n_unknown, dict(lost), size, crc)
        (self.folder / _COUNTS).write_text(json.dumps(asdict(counts)))


def encode(
    folder: Path, corpus: Corpus, cut: dict[str, Spans], tokenizer: Tokenizer, say: Say, *, processes: int | None = None
) -> dict[str, Counts]:
    """Write ``<split>.bin``, little-endian ids, and ``<split>.documents.npy``, the position of each document's first id.

    Args:
        folder: gets the files; a build that was killed is resumed from what it left there.
        corpus: the documents.
        cut: split -> its spans.
        tokenizer: as it was saved.
        say: prints a line.
        processes: how many encode; None: one per core, or this one alone for a small corpus.
    Raises:
        GptshakeError: a process was killed or could not encode its shard; what is whole stays.
    """
    shards = [shard for name, spans in cut.items() for shard in _shards(folder, name, spans)]
    found = _resumed(folder, shards)
    done = sum(counts.n_bytes for counts in found)
    if found:
        say(f"resuming the tokenization of an earlier process: {done / corpus.n_bytes:.0%}")
    processes = processes or (logical_cores() if corpus.n_bytes > FEW_BYTES else 1)
    with Progress(say, "tokenizing", corpus.n_bytes, done=done) as progress:
        for shard in _encoded(shards[len(found) :], corpus, tokenizer, processes):
            found.append(_join(shard))
            done += found[-1].n_bytes
            progress(done, f"{sum(counts.n_tokens for counts in found) / 1e6:,.1f} million tokens")
    return {name: _close(folder, name, [pair for pair in zip(shards, found, strict=True) if pair[0].split == name]) for name in cut}


def remove_shards(folder: Path) -> None:
    """Remove what only a resumed build needs; to be called when everything else is written."""
    shutil.rmtree(folder / _SHARDS, ignore_errors=True)


def _shards(folder: Path, split: str, spans: Spans) -> Iterator[Shard]:
    """A span belongs to the shard in which its first character falls."""
    lengths = spans[:, 2] - spans[:, 1]
    numbers = (np.cumsum(lengths) - lengths) // SHARD
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(spans)]
    for number, (first, last) in enumerate(pairwise(bounds)):
        yield Shard(split, number, folder / _SHARDS / f"{split}-{number}", spans[first:last])


def _resumed(folder: Path, shards: list[Shard]) -> list[Counts]:
    """Counts of the first shards that an earlier process joined and that are whole; all the rest that it left is removed."""
    found: list[Counts] = []
    sizes = dict.fromkeys((shard.split for shard in shards), 0)
    for shard in shards:
        counts = shard.counts()
        if counts is None or (shard.folder / _IDS).exists() or _crc(shard.joined, sizes[shard.split], counts.size) != counts.crc:
            break
        found.append(counts)
        sizes[shard.split] += counts.size
    for shard in shards[len(found) :]:
        shutil.rmtree(shard.folder, ignore_errors=True)
    for name, size in sizes.items():
        with (folder / f"{name}.bin").open("ab") as file:
            file.truncate(size)
    return found


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


def _encoded(shards: list[Shard], corpus: Corpus, tokenizer: Tokenizer, processes: int) -> Iterator[Shard]:
    """Encode the shards; gives each when it lies in its folder, in order."""

    def work(number: int) -> None:
        shards[number].encode(corpus, tokenizer)

    if processes == 1 or len(shards) < 2:
        for number, shard in enumerate(shards):
            work(number)
            yield shard
    else:
        tokenizer.encode("a")  # what it prepares at its first use is inherited by all
        yield from _by_processes(shards, work, min(processes, len(shards)))


def _by_processes(shards: list[Shard], work: Callable[[int], None], processes: int) -> Iterator[Shard]:
    """One forked child for each shard, a few at a time, and never far ahead of the shard that is to be joined next.

    The children do nothing but Python, numpy and the tokenizer, so a caller that has started torch's threads may be forked.
    """
    runner = ChildRunner(work, method="fork")  # the corpus and the tokenizer are not copied
    alive: dict[int, Child] = {}
    begun = finished = 0
    ended: set[int] = set()
    try:
        while finished < len(shards):
            while begun < min(len(shards), finished + 2 * processes) and len(alive) < processes:
                alive[begun] = runner.start(Spec(begun, shards[begun].folder))
                begun += 1
            if finished in ended:
                yield shards[finished]
                finished += 1
                continue
            gone = runner.wait(list(alive.values()), 60.0)
            for number, child in [(number, child) for number, child in alive.items() if child in gone]:
                del alive[number]
                ended.add(number)
                if child.outcome is None or child.outcome.status != "ok":
                    reason = child.outcome.reason.rstrip(".") if child.outcome else "it left no outcome"
                    raise GptshakeError(
                        f"A process that tokenizes ended early: {reason}. What is done is kept: the same command resumes there."
                    )
    finally:
        runner.close(grace=0.0)  # what is at work has nothing to save


def _join(shard: Shard) -> Counts:
    """Append a shard to its split's file. Its ids are removed last: where they are, it is not joined."""
    counts = shard.counts()
    if counts is None:
        raise GptshakeError(f"{shard.folder / _COUNTS} cannot be read back: is the disk full? The same command resumes there.")
    with (shard.folder / _IDS).open("rb") as ids, shard.joined.open("ab") as file:
        shutil.copyfileobj(ids, file, 1 << 20)
    (shard.folder / _IDS).unlink()
    return counts


def _close(folder: Path, name: str, shards: list[tuple[Shard, Counts]]) -> Counts:
    """Write the positions of a split's documents, from those within its shards; gives the sums of the shards."""
    firsts = np.cumsum([0, *(counts.n_tokens for _, counts in shards)], dtype=np.uint64)
    starts: list[npt.NDArray[Any]] = [
        np.load(shard.folder / _STARTS) + first for (shard, _), first in zip(shards, firsts[:-1], strict=True)
    ]
    np.save(folder / f"{name}.documents.npy", np.concatenate(starts))
    sums = ("n_tokens", "n_bytes", "n_characters", "n_unknown", "size")
    lost: Counter[str] = Counter()
    for _, counts in shards:
        lost.update(counts.hidden)
    return Counts(hidden=dict(lost), **{key: sum(getattr(counts, key) for _, counts in shards) for key in sums})
