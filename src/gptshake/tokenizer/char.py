"""Characters as tokens: one id per Unicode code point, with a cap and an unknown token.

Ids: 0 is ``<|endoftext|>``, 1 is ``<|unk|>``, then the kept characters in the order of their code points, so that the
same set of characters always has the same ids. A character outside the vocabulary (it may first occur in validation)
becomes ``<|unk|>``, so encoding loses it; everything else, lone surrogates and NUL included, survives the round trip.
Encoding is one table look-up per character (several hundred MB/s); the table costs 2 MB of memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.config import CharConfig
from gptshake.tokenizer.protocol import ANYWHERE, Ids, Stored, checked, id_type

EOT, UNK, SPECIALS = 0, 1, 2
CODE_POINTS = 0x110000
CHUNK = 1 << 18  # characters handled at once: bounds the memory, and a chunk stays in the processor's cache


class CharTokenizer(Stored):
    """One id per character.

    Args:
        characters: distinct single characters in the order of their code points; character i has the id i + 2.
    Raises:
        DataError: if they are not that.
    """

    name = "char"
    eot_id = EOT
    unk_id = UNK
    boundary = ANYWHERE

    def __init__(self, characters: list[str]) -> None:
        if any(len(character) != 1 for character in characters) or any(a >= b for a, b in pairwise(characters)):
            raise DataError("A character vocabulary must be distinct single characters in the order of their code points.")
        self.characters = characters
        self.vocab_size = len(characters) + SPECIALS
        codes = np.array([ord(character) for character in characters], np.uint32)
        self._id_of: Ids = np.full(CODE_POINTS, UNK, id_type(self.vocab_size))
        self._id_of[codes] = np.arange(SPECIALS, self.vocab_size)
        self._code_of = np.concatenate([np.array([ord("\n"), 0xFFFD], np.uint32), codes])

    def encode(self, text: str) -> Ids:
        """Ids of the characters, shape (len(text),); unknown ones become ``unk_id``."""
        ids: Ids = np.empty(len(text), self._id_of.dtype)
        for start, codes in _code_chunks(text):
            np.take(self._id_of, codes, out=ids[start : start + len(codes)], mode="clip")  # clip: spares a copy, nothing is out of range
        return ids

    def decode(self, ids: npt.ArrayLike) -> str:
        """Text of ids, shape (n,), as every tokenizer gives it; the unknown as U+FFFD."""
        array = checked(ids, self.vocab_size)
        codes = np.repeat(self._code_of[array], np.where(array == EOT, 2, 1))
        return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def token_bytes(self, token_id: int) -> bytes:
        """The character as UTF-8; nothing for the two special ids."""
        return self.characters[token_id - SPECIALS].encode("utf-8", "surrogatepass") if token_id >= SPECIALS else b""

    def content(self) -> dict[str, Any]:
        # A list, not one string, or two lone surrogates side by side would be read back as one character.
        return {"kind": self.name, "characters": self.characters}


def load(data: dict[str, Any]) -> CharTokenizer:
    """The tokenizer that was saved as ``data``."""
    characters = data.get("characters")
    if not isinstance(characters, list) or not all(isinstance(character, str) for character in characters):
        raise DataError("A saved character tokenizer must hold a list of characters.")
    return CharTokenizer(characters)


@dataclass
class CharTrainer(CharConfig):
    """Chooses which characters get an id: the most frequent ones; of equally frequent ones the smaller code point.

    Args:
        vocab_size: number of ids, the two special ones included; or ``auto``: as many characters as cover ``coverage``
            of the text, but at least 256, so that small alphabets stay whole and Chinese keeps all but its rarest signs.
        coverage: share of the training text, in characters, which ``auto`` covers; 0 < coverage <= 1.
    Raises:
        ConfigError: if a value is none of these.
    """

    LEAST = 256
    boundary = ANYWHERE

    def __post_init__(self) -> None:
        size = self.vocab_size
        if size != "auto" and (not isinstance(size, int) or isinstance(size, bool) or size <= SPECIALS):
            raise ConfigError(
                f"tokenizer.vocab_size is {size!r}; it must be auto or a whole number above {SPECIALS} (two ids are special)."
            )
        if not 0 < self.coverage <= 1:
            raise ConfigError(f"tokenizer.coverage is {self.coverage}; it is a share of the text, above 0 and at most 1.")

    def settings(self) -> dict[str, Any]:
        return {"kind": "char", "vocab_size": self.vocab_size, "coverage": self.coverage}

    def train(self, documents: Iterable[str]) -> CharTokenizer:
        counts = _count(documents)
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        if isinstance(self.vocab_size, int):
            n = self.vocab_size - SPECIALS
        else:
            covered = np.cumsum(counts[order])
            n = max(self.LEAST, int(np.searchsorted(covered, self.coverage * covered[-1])) + 1) if len(covered) else 0
        return CharTokenizer([chr(code) for code in np.sort(order[:n])])


def _count(documents: Iterable[str]) -> npt.NDArray[np.int64]:
    """How often each code point occurs, shape (0x110000,). Short documents are counted together: a count costs up to its table's length."""
    counts = np.zeros(CODE_POINTS, np.int64)
    waiting: list[str] = []
    length = 0
    for document in chain(documents, [None]):
        if document is not None:
            waiting.append(document)
            length += len(document)
        if document is None or length >= CHUNK:
            for _, codes in _code_chunks("".join(waiting)):
                found = np.bincount(codes)
                counts[: len(found)] += found
            waiting, length = [], 0
    return counts


def _code_chunks(text: str) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Code points of a text in chunks, each with the position where it starts."""
    for start in range(0, len(text), CHUNK):
        yield start, np.frombuffer(text[start : start + CHUNK].encode("utf-32-le", "surrogatepass"), "<u4")
