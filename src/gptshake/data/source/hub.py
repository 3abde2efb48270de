"""Any text data set of the Hugging Face hub, or of a local folder in its layout: streamed, pinned to a commit, never half the text.

Only what is read is downloaded, and the corpus keeps it. Takes the data set's name and a selection (limits and one of three orders);
gives its ``train`` split as documents. A document's position depends on the selection alone, and inside a shard on that shard alone, so
an interrupted download reads one shard again, not all of them; the cost: shuffle mixes the shards and, inside each, stretches of 10,000
documents, not everything with everything. Never falls back to another source: out of reach is one sentence, within ten seconds.
"""

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from gptshake.data.config import HubKeys, Selection
from gptshake.data.source.files import content_hash, is_hidden
from gptshake.data.source.formats import id_of, listed_names, text_of
from gptshake.data.source.protocol import START, Document, Position
from gptshake.errors import DataError, GptshakeError, Unreachable, first_line
from gptshake.files import expanded

TIMEOUT_SECONDS = 5.0
FEW_SHARDS = 16  # below, Parquet is divided further, by row groups, where the order is not the first
SPREAD_PARTS = 64  # that spread reads from at first, of however many
SHUFFLED, SHUFFLED_CHARACTERS = 10_000, 64 << 20  # documents that are shuffled together, and their length at most
Rows = Iterable[tuple[str, str]]  # ids and texts


def select(
    chosen: Selection, read: Callable[[int], Rows], n_parts: int, start: Position = START, total: int | None = None
) -> Iterator[Document]:
    """The documents of a selection after ``start``.

    Args:
        chosen: how many documents and UTF-8 bytes at most (whole documents, at least one), and in which order. ``first``: from the
            start. ``spread``: the limits shared by all parts (by 64 of them, if there are more), the first documents of each.
            ``shuffle``: parts in random order, and in each the documents, 10,000 at a time.
        read: gives a part's ids and texts, by its number.
        start: where to resume; documents' parts are counted in the order of reading.
        total: documents in all parts, if known; for their ``share``.
    """
    order, n_sharing = list(range(n_parts)), 0  # parts in the order of reading, and how many of the first share the limits evenly
    if chosen.order == "shuffle":
        order = random.Random(chosen.order_seed).sample(order, n_parts)
    elif chosen.order == "spread" and (chosen.n_documents is not None or chosen.max_bytes is not None):
        sharing_parts = list(dict.fromkeys(number * n_parts // SPREAD_PARTS for number in range(SPREAD_PARTS)))
        order, n_sharing = sharing_parts + sorted({*order} - {*sharing_parts}), len(sharing_parts)
    expected = min((n for n in (chosen.n_documents, total) if n), default=None)
    documents, n_bytes = start.documents, start.n_bytes
    for part in range(start.part, n_parts):
        sharing = max(n_sharing - part, 1)  # shards that share what is left of the limits
        most = None if chosen.n_documents is None else -(-(chosen.n_documents - documents) // sharing)
        left = None if chosen.max_bytes is None else chosen.max_bytes - n_bytes
        if most == 0 or (left is not None and left <= 0):
            return
        count, size, full = 0, 0, False
        rows = read(order[part])
        if chosen.order == "shuffle":
            rows = chain.from_iterable(_stretches(rows, f"{chosen.order_seed}/{order[part]}"))
        for id, text in rows:
            length = len(text.encode("utf-8", "surrogatepass")) if left is not None else 0
            full = left is not None and size + length > left // sharing and documents + count > 0
            if full:
                break
            count, size = count + 1, size + length
            if part > start.part or count > start.inside:
                shares = [(documents + count) / expected] if expected else []
                shares += [(n_bytes + size) / chosen.max_bytes] if chosen.max_bytes else []
                yield Document(id, text, part, min(1.0, max(shares)) if shares else None)
            if count == most:
                break
        documents, n_bytes = documents + count, n_bytes + size
        if full and sharing == 1:
            return


def _stretches(rows: Rows, seed: str) -> Iterator[list[tuple[str, str]]]:
    """The rows in stretches, each in random order, by a seed of its shard."""
    draw = random.Random(seed)
    stretch, length = list[tuple[str, str]](), 0
    for row in rows:
        stretch.append(row)
        length += len(row[1])
        if len(stretch) == SHUFFLED or length >= SHUFFLED_CHARACTERS:
            draw.shuffle(stretch)
            yield stretch
            stretch, length = [], 0
    draw.shuffle(stretch)
    yield stretch


def _short(number: int) -> str:
    """10000 as ``10k``, 2000000 as ``2m``, others in digits."""
    for size, letter in ((1_000_000, "m"), (1_000, "k")):
        if number % size == 0:
            return f"{number // size}{letter}"
    return str(number)


class DatasetInfo(NamedTuple):
    """What the hub says of a data set."""

    commit: str
    licence: str


@dataclass
class Hub(HubKeys):
    """Documents of a data set; what a revision means is asked for once and kept in the record. DataError if no data set is named.

    The selection is that of ``select``, whose parts are shards, or row groups of Parquet if there are few shards.
    """

    cache: str | None = None  # folder for remembered hashes, of a local folder
    notes = ()

    def __post_init__(self) -> None:
        if not self.dataset:
            raise DataError("Which data set? Give its name on the hub, or a local folder, with data.dataset=…")
        self._local = expanded(self.dataset).is_dir()
        self._name = str(expanded(self.dataset)) if self._local else self.dataset
        self.label = "-".join([re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(self.dataset).name).strip("-.") or "hub", *self.short_words()])

    def short_words(self) -> list[str]:
        """The selection for labels: how much, and in which order if not the first; ``["10k", "spread"]``."""
        much = [_short(self.n_documents)] if self.n_documents else []
        return much + ([f"{_short(self.max_bytes)}b"] if self.max_bytes else []) + ([self.order] if self.order != "first" else [])

    @property
    def licence(self) -> str:
        if not self._local:
            return f"{self._name}, {self._info().licence}"
        from huggingface_hub.repocard import metadata_load

        card = Path(self._name) / "README.md"
        return f"{self._name}, {_licence((metadata_load(card) if card.is_file() else None) or {})}"

    def fingerprint(self) -> dict[str, Any]:
        """The commit stands for the content; of a local folder, the content itself."""
        return {
            "source": "hub",
            "dataset": "" if self._local else self._name,
            "config": self.config,
            "revision": self._content() if self._local else self._commit(),
            "text_key": self.text_key,
            "n_documents": self.n_documents,
            "max_bytes": self.max_bytes,
            "order": f"{self.order} {self.order_seed}" if self.order == "shuffle" else self.order,
        }

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The documents; ids are the column ``id``, else shard and row. Unreachable if the hub breaks off, DataError if there is no such data."""
        name = f"{self._name}{f' ({self.config})' if self.config else ''}"
        rows: Any = None
        try:
            rows = self._open()
            split = (rows.info.splits or {}).get("train")
            yield from select(self, lambda shard: self._read(rows, shard), rows.num_shards, start, split.num_examples if split else None)
        except GptshakeError:
            raise
        except Exception as error:  # httpx, fsspec, datasets and the hub's client each have an error tree of their own
            if rows is None:
                raise _as_sentence(error, name) from error
            if self._local:
                raise DataError(f"{name} could not be read: {first_line(error)[:300]}.") from error
            raise _unreachable(error, name) from error

    def resolved(self) -> dict[str, Any]:
        """The commit that ``data.revision`` meant."""
        return {} if self._local else {"revision": self._commit()}

    def _read(self, rows: Any, shard: int) -> Rows:
        for number, row in enumerate(rows.shard(rows.num_shards, shard)):
            if self.text_key not in row:
                raise DataError(f"{self._name} has no column {self.text_key}, but {listed_names(row)}. Name the text's: data.text_key=…")
            row_id = f"{shard}:{number}"
            yield id_of(row, row_id), text_of(row[self.text_key], f"{self._name}, row {row_id},", self.text_key)

    def _open(self) -> Any:
        commit = None if self._local else self._info().commit  # also finds out quickly whether the hub is there
        import datasets  # 0.75 s: only when documents are really fetched

        datasets.config.STREAMING_READ_MAX_RETRIES = 3  # of 20, five seconds apart
        datasets.config.STREAMING_READ_RETRY_INTERVAL = 1
        rows: Any = datasets.load_dataset(self._name, self.config, revision=commit, split="train", streaming=True)
        rows = rows.reshard() if self.order != "first" and rows.num_shards < FEW_SHARDS else rows
        if self.order == "spread" and rows.num_shards == 1 and (self.n_documents or self.max_bytes):
            raise DataError(f"data.order=spread needs several shards or row groups; {self._name} is in one piece. Take data.order=shuffle.")
        return rows

    def _commit(self) -> str:
        return self.revision if self.revision and re.fullmatch("[0-9a-f]{40}", self.revision) else self._info().commit

    def _info(self) -> DatasetInfo:
        try:
            return dataset_info(self._name, self.revision)
        except Exception as error:
            raise _as_sentence(error, self._name) from error

    def _content(self) -> str:
        folder = Path(self._name)
        files = [file for file in sorted(folder.rglob("*")) if file.is_file() and not is_hidden(file, folder)]
        return content_hash({file.relative_to(folder).as_posix(): file for file in files}, expanded(self.cache) if self.cache else None)


@lru_cache
def dataset_info(dataset: str, revision: str | None) -> DatasetInfo:
    """Ask the hub for the data set, once and briefly: its own clients try for minutes when a network swallows packets."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(dataset, revision=revision, timeout=TIMEOUT_SECONDS)
    if info.sha is None:
        raise ConnectionError("the hub did not say which commit this is")
    return DatasetInfo(info.sha, _licence(dict(vars(info.card_data)) if info.card_data else {}))


def _licence(card: dict[str, Any]) -> str:
    licence = card.get("license_name") or card.get("license")
    names = ", ".join(str(name) for name in licence) if isinstance(licence, list) else licence
    return f"licence {names}" if names else "licence not stated on its card"


def _as_sentence(error: Exception, name: str) -> GptshakeError:
    """The sentence for an error of the hub's libraries."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return DataError(f"{name} is gated: accept its terms on its page of the hub, then log in with `hf auth login` or set HF_TOKEN.")
    if isinstance(error, RevisionNotFoundError):
        return DataError(f"{name} has no such revision on the hub. Check data.revision, or leave it out for the newest.")
    if isinstance(error, RepositoryNotFoundError):
        return DataError(f"There is no data set {name} on the hub, or it is private: check data.dataset, or log in with `hf auth login`.")
    if isinstance(error, (ValueError, FileNotFoundError)):
        return DataError(f"{name} could not be read as asked: {first_line(error)[:300]}. Check data.dataset and data.config.")
    return _unreachable(error, name)


def _unreachable(error: Exception, name: str) -> Unreachable:
    return Unreachable(
        f"{name} could not be read from the hub ({type(error).__name__}: {first_line(error)[:300]}). Check the network; what was downloaded "
        "is kept, and the same command resumes there."
    )
