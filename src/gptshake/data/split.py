"""Which text is for training, validation and test: pure functions of document ids and lengths.

By documents: each goes where the hash of its id says, so a corpus may grow without any document changing sides, and no
split is the tail of the alphabet. By rank, where that leaves a split without text: the documents in the order of their hashes,
cut. By position: the characters of all documents in a row are cut in two or three; the
way for a single text, and with fractions 0.1 and 0 exactly nanoGPT's split of a file.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

NAMES = ("train", "val", "test")
FEWEST_DOCUMENTS = 20  # below this, one document more or less would decide a split by hash
Spans = npt.NDArray[np.int64]  # shape (n, 3): document, first character, character after the last


def id_hash(document_id: str) -> int:
    """A number in [0, 2^64), from the first 8 bytes of the id's SHA-256."""
    return int.from_bytes(sha256(document_id.encode("utf-8", "surrogatepass")).digest()[:8], "big")


@dataclass(frozen=True)
class SplitRule:
    """How a text is divided: by ``documents`` (the hash of their ids; fewer than 20: by position) or by ``position``.

    The fractions are shares of the text; with 0 for the test there is no such split.
    """

    split: str
    val_fraction: float
    test_fraction: float


def by_documents(hashes: npt.NDArray[np.uint64], lengths: npt.NDArray[Any], val_fraction: float, test_fraction: float) -> dict[str, Spans]:
    """Whole documents by the hashes of their ids (``id_hash``): the first share of [0, 2^64) is validation, the next test, the rest training.

    Hashes and lengths, in characters, have the shape (n_documents,); gives the spans of each of ``NAMES``.
    """
    share = hashes / 2.0**64
    side = np.where(share < val_fraction, 1, np.where(share < val_fraction + test_fraction, 2, 0))
    return {name: whole(np.flatnonzero(side == number), lengths) for number, name in enumerate(NAMES)}


def whole(documents: npt.NDArray[np.int64], lengths: npt.NDArray[Any]) -> Spans:
    """Documents from their first character to the last."""
    return np.column_stack([documents, np.zeros_like(documents), lengths[documents].astype(np.int64)])


def has_text(spans: Spans) -> bool:
    """Whether a split has at least two characters, or documents: with one token there is nothing to predict."""
    return len(spans) > 1 or bool(len(spans) and spans[0, 2] - spans[0, 1] > 1)


def by_rank(hashes: npt.NDArray[np.uint64], lengths: npt.NDArray[Any], val_fraction: float, test_fraction: float) -> dict[str, Spans]:
    """Whole documents in the order of their hashes: the first are validation, the next test, the rest training.

    Arguments and result as in ``by_documents``, of at least eight documents. Each split gets its share of the documents, rounded, but
    at least one, or two of a single character. The longest is for training: a giant among short texts is no validation.
    """
    order = np.argsort(hashes, kind="stable")
    order = np.append(order[order != np.argmax(lengths)], np.argmax(lengths))

    def end(start: int, fraction: float, kept: int) -> int:
        count = max(round(len(order) * fraction), 1 if lengths[order[start]] > 1 else 2) if fraction else 0
        return min(start + count, len(order) - kept)

    after_val = end(0, val_fraction, kept=4)  # two for each of the other splits
    after_test = end(after_val, test_fraction, kept=2)
    sides = {"train": order[after_test:], "val": order[:after_val], "test": order[after_val:after_test]}
    return {name: whole(np.sort(side), lengths) for name, side in sides.items()}


def by_position(lengths: npt.NDArray[Any], val_fraction: float, test_fraction: float) -> dict[str, Spans]:
    """The characters of all documents in a row, cut into training, validation and test; arguments as in ``by_documents``.

    Training ends at character int(n (1 - (val + test))), validation at int(n (1 - test)).
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    starts = ends - lengths.astype(np.int64)
    n = int(ends[-1]) if len(ends) else 0
    cuts = (0, int(n * (1 - (val_fraction + test_fraction))), int(n * (1 - test_fraction)), n)
    spans = {}
    for number, name in enumerate(NAMES):
        first, last = np.maximum(starts, cuts[number]), np.minimum(ends, cuts[number + 1])
        kept = np.flatnonzero(first < last)
        spans[name] = np.column_stack([kept, (first - starts)[kept], (last - starts)[kept]])
    return spans
