"""Which documents of a large data set are taken, and in which order: limits, spread and shuffle as pure functions of its parts.

Takes the parts (shards) as functions that read them; gives documents. Whatever the order, a document's place depends on the
selection alone, and inside a part on that part alone, so a reader that was interrupted reads one part again, not all of them.
The price: shuffle mixes the parts and, inside each, stretches of 10,000 documents, not everything with everything.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from gptshake.data.source.protocol import START, Document, Position
from gptshake.errors import ConfigError

ORDERS = ("first", "spread", "shuffle")
SPREAD_PARTS = 64  # that spread reads from at first, of however many
SHUFFLED, SHUFFLED_CHARACTERS = 10_000, 64 << 20  # documents that are shuffled together, and their length at most
Row = tuple[str, str]  # id, text


@dataclass(frozen=True)
class Selection:
    """A choice of documents.

    Attributes:
        n_documents: how many at most; None: all.
        max_bytes: UTF-8 bytes of text at most, in whole documents but at least one; None: all.
        order: ``first``: from the start. ``spread``: the limits shared by all parts (by 64 of them, if there are more), the first
            documents of each. ``shuffle``: parts in random order, and in each the documents, 10,000 at a time.
        seed: of ``shuffle``.
    Raises:
        ConfigError: for limits below 1 or another order.
    """

    n_documents: int | None = None
    max_bytes: int | None = None
    order: str = "first"
    seed: int = 0

    def __post_init__(self) -> None:
        for key, limit in (("n_documents", self.n_documents), ("max_bytes", self.max_bytes)):
            if limit is not None and limit < 1:
                raise ConfigError(f"data.{key}={limit}; it must be at least 1, or null for all of them.")
        if self.order not in ORDERS:
            raise ConfigError(f"data.order={self.order} is none of {', '.join(ORDERS)}.")

    @property
    def limited(self) -> bool:
        """Whether it leaves anything out."""
        return self.n_documents is not None or self.max_bytes is not None

    def words(self) -> list[str]:
        """The choice in short words, for labels: how much, and in which order if not the first; ``["10k", "spread"]``."""
        much = [_short(self.n_documents)] if self.n_documents else []
        return much + ([f"{_short(self.max_bytes)}b"] if self.max_bytes else []) + ([self.order] if self.order != "first" else [])

    def take(
        self, read: Callable[[int], Iterable[Row]], n_parts: int, start: Position = START, total: int | None = None
    ) -> Iterator[Document]:
        """The documents after ``start``.

        Args:
            read: gives a part's ids and texts, by its number.
            n_parts: how many parts there are.
            start: where to go on; documents' parts are counted in the order of reading.
            total: documents in all parts, if known; for their ``share``.
        """
        order, n_sharing = self._parts(n_parts)
        documents, n_bytes = start.documents, start.n_bytes
        for place in range(start.part, n_parts):
            sharing = max(n_sharing - place, 1)  # parts that share what is left of the limits
            most = None if self.n_documents is None else -(-(self.n_documents - documents) // sharing)
            left = None if self.max_bytes is None else self.max_bytes - n_bytes
            if most == 0 or (left is not None and left <= 0):
                return
            count, size, full = 0, 0, False
            for id, text in self._shuffled(read(order[place]), order[place]):
                length = len(text.encode("utf-8", "surrogatepass")) if left is not None else 0
                full = left is not None and size + length > left // sharing and documents + count > 0
                if full:
                    break
                count, size = count + 1, size + length
                if place > start.part or count > start.inside:
                    yield Document(id, text, place, self._share(documents + count, n_bytes + size, total))
                if count == most:
                    break
            documents, n_bytes = documents + count, n_bytes + size
            if full and sharing == 1:
                return

    def _parts(self, n: int) -> tuple[list[int], int]:
        """The parts in the order of reading, and how many of the first of them share the limits evenly."""
        if self.order == "shuffle":
            return random.Random(self.seed).sample(range(n), n), 0
        if self.order == "first" or not self.limited:
            return list(range(n)), 0
        sharing = list(dict.fromkeys(place * n // SPREAD_PARTS for place in range(SPREAD_PARTS)))
        return sharing + sorted({*range(n)} - {*sharing}), len(sharing)

    def _shuffled(self, rows: Iterable[Row], part: int) -> Iterable[Row]:
        return chain.from_iterable(_stretches(rows, f"{self.seed}/{part}")) if self.order == "shuffle" else rows

    def _share(self, documents: int, n_bytes: int, total: int | None) -> float | None:
        expected = min((n for n in (self.n_documents, total) if n), default=None)
        shares = [documents / expected] if expected else []
        shares += [n_bytes / self.max_bytes] if self.max_bytes else []
        return min(1.0, max(shares)) if shares else None


def _stretches(rows: Iterable[Row], seed: str) -> Iterator[list[Row]]:
    """The rows in stretches, each in random order."""
    draw = random.Random(seed)
    stretch: list[Row] = []
    length = 0
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
