"""Documents to flat files of ids, by one process or by one per core, and onward from where a killed build stopped.

The documents of all splits are cut into shards of about ``SHARD`` characters, whatever the number of processes. Each is encoded by itself
into a folder of its own, with its counts and checksums as the last file, and at the end the shards of a split are joined. So the bytes
are the same for any number of processes, memory stays flat, and a build that resumes encodes only the shards that are not whole.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.data.corpus import Corpus, Say, progress
from gptshake.data.split import Spans
from gptshake.errors import GptshakeError
from gptshake.files import sha256, write_atomic
from gptshake.hardware import logical_cores
from gptshake.processes import Child, ChildRunner, Spec
from gptshake.tokenizer.protocol import Tokenizer, boundary
from gptshake.tokenizer.unknown import hidden_characters, under_first_id

SHARD = 1 << 24  # characters: at most so many are lost by a kill for each process, and encoded within 2 s by most tokenizers
FEW_BYTES = 32 << 20  # up to so much text is done by one process: others would cost 0.1 s, a character tokenizer's own time
SHARDS = "parts"  # the folder of their folders; only a build that resumes needs it
_IDS, _STARTS, _COUNTS = "ids", "starts.npy", "part.json"


@dataclass(frozen=True)
class Counts:
    """What was encoded of a shard, or of a whole split."""

    n_tokens: int  # ids, end-of-text ids between documents included
    n_bytes: int  # UTF-8 bytes of text under all ids but the split's first one, which is no target
    n_characters: int
    n_unknown: int  # unknown tokens among the targets
    hidden: dict[str, int]  # characters under unknown tokens, and how often each is under a target
    files: dict[str, str]  # names of a shard's files and their SHA-256


@dataclass(frozen=True)
class Shard:
    """Documents that are encoded together."""

    split: str
    number: int  # within the split; between documents stands an end of text, and so before the first one of a shard but the first
    folder: Path
    spans: Spans

    def counts(self) -> Counts | None:
        """What was encoded of it; None if that is not whole."""
        try:
            counts = Counts(**json.loads((self.folder / _COUNTS).read_bytes()))
            return counts if all(sha256(self.folder / name) == digest for name, digest in counts.files.items()) else None
        except (OSError, ValueError, TypeError, AttributeError):
            return None


def encode(
    folder: Path, corpus: Corpus, cut: dict[str, Spans], tokenizer: Tokenizer, say: Say, *, processes: int | None = None
) -> dict[str, Counts]:
    """Write ``<split>.bin``, little-endian ids, and ``<split>.documents.npy``, the position of each document's first id; resumes a killed build.

    ``cut`` holds the spans of each split; None ``processes`` are one per core, or this one alone for a small corpus.

    Raises:
        GptshakeError: a process was killed or could not encode its shard; what is whole stays.
    """
    shards = [shard for name, spans in cut.items() for shard in shards_of(folder, name, spans)]
    found = {shard.folder: counts for shard in shards if (counts := shard.counts())}
    done = sum(counts.n_bytes for counts in found.values())
    if found:
        say(f"resuming the tokenization of an earlier process: {done / corpus.n_bytes:.0%}")
    processes = processes or (logical_cores() if corpus.n_bytes > FEW_BYTES else 1)
    with progress(say, "tokenizing", corpus.n_bytes, done=done) as show:
        for shard in _encoded([shard for shard in shards if shard.folder not in found], corpus, tokenizer, processes):
            counts = shard.counts()
            if counts is None:
                raise GptshakeError(f"{shard.folder} cannot be read back: is the disk full? The same command resumes there.")
            found[shard.folder] = counts
            done += counts.n_bytes
            show(done, f"{sum(counts.n_tokens for counts in found.values()) / 1e6:,.1f} million tokens")
    return {name: _join(folder, name, {shard.folder: found[shard.folder] for shard in shards if shard.split == name}) for name in cut}


def shards_of(folder: Path, split: str, spans: Spans) -> Iterator[Shard]:
    """A span belongs to the shard in which its first character falls."""
    lengths = spans[:, 2] - spans[:, 1]
    numbers = (np.cumsum(lengths) - lengths) // SHARD
    bounds = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(spans)]
    for number, (first, last) in enumerate(pairwise(bounds)):
        yield Shard(split, number, folder / SHARDS / f"{split}-{number}", spans[first:last])


def _encoded(shards: list[Shard], corpus: Corpus, tokenizer: Tokenizer, processes: int) -> Iterator[Shard]:
    """Encode the shards, each in a forked child of its own; gives each when it lies in its folder.

    The children do nothing but Python, numpy and the tokenizer, so a caller that has started torch's threads may be forked.
    """
    if processes == 1 or len(shards) < 2:
        for shard in shards:
            encode_shard(shard, corpus, tokenizer)
            yield shard
        return
    tokenizer.encode("a")  # what it prepares at its first use is inherited by all
    runner = ChildRunner(lambda number: encode_shard(shards[number], corpus, tokenizer), method="fork")
    alive: dict[Child, Shard] = {}
    begun = 0
    try:
        while begun < len(shards) or alive:
            while begun < len(shards) and len(alive) < processes:
                alive[runner.start(Spec(begun, shards[begun].folder))] = shards[begun]
                begun += 1
            for child in runner.wait(list(alive), 60.0):
                if child.outcome is None or child.outcome.status != "ok":
                    reason = child.outcome.reason.rstrip(".") if child.outcome else "it left no outcome"
                    raise GptshakeError(
                        f"A process that tokenizes ended early: {reason}. What is done is kept: the same command resumes there."
                    )
                yield alive.pop(child)
    finally:
        runner.close(grace=0.0)  # what is at work has nothing to save


def encode_shard(shard: Shard, corpus: Corpus, tokenizer: Tokenizer) -> None:
    shard.folder.mkdir(parents=True, exist_ok=True)
    dtype = tokenizer.encode("").dtype.newbyteorder("<")
    starts = np.zeros(len(shard.spans), "<u8")
    n_tokens = n_bytes = n_characters = n_unknown = begun = 0
    lost: Counter[str] = Counter()
    with (shard.folder / _IDS).open("wb", buffering=1 << 20) as file:
        for number, text in corpus.texts(shard.spans, boundary(tokenizer)):
            ids = tokenizer.encode(text)
            n_characters += len(text)
            n_bytes += len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
            n_unknown += int(np.count_nonzero(ids == tokenizer.unk_id)) if tokenizer.unk_id is not None else 0
            lost.update(hidden_characters(tokenizer, ids, text))
            if number == begun:  # the beginning of a document
                begun += 1
                if number or shard.number:
                    file.write(np.array([tokenizer.eot_id], dtype).tobytes())
                    n_tokens += 1
                else:  # the split's first token is no target
                    first, hidden = under_first_id(tokenizer, ids, text)
                    n_bytes, n_unknown = n_bytes - len(first), n_unknown - len(hidden)
                    lost.subtract(hidden)
                starts[number] = n_tokens
            file.write(ids.astype(dtype, copy=False).tobytes())
            n_tokens += len(ids)
    np.save(shard.folder / _STARTS, starts)
    files = {name: sha256(shard.folder / name) for name in (_IDS, _STARTS)}
    write_atomic(shard.folder / _COUNTS, json.dumps(asdict(Counts(n_tokens, n_bytes, n_characters, n_unknown, dict(lost), files))))


def _join(folder: Path, name: str, shards: dict[Path, Counts]) -> Counts:
    """Write the files of a split from those of its shards; gives the sums of their counts."""
    starts: list[npt.NDArray[Any]] = []
    lost: Counter[str] = Counter()
    n_tokens = 0
    with (folder / f"{name}.bin").open("wb") as file:
        for shard, counts in shards.items():
            with (shard / _IDS).open("rb") as ids:
                shutil.copyfileobj(ids, file, 1 << 20)
            starts.append(np.load(shard / _STARTS) + np.uint64(n_tokens))
            n_tokens += counts.n_tokens
            lost.update(counts.hidden)
    np.save(folder / f"{name}.documents.npy", np.concatenate(starts))
    sums = {key: sum(getattr(counts, key) for counts in shards.values()) for key in ("n_tokens", "n_bytes", "n_characters", "n_unknown")}
    return Counts(hidden=dict(lost), files={}, **sums)
