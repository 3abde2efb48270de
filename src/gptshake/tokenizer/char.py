"""Characters as tokens: one id per Unicode code point, with a cap and an unknown token.

Ids: 0 is ``<|endoftext|>``, 1 is ``<|unk|>``, then the kept characters in the order of their code points, so that the same set of
characters always has the same ids. A character outside the vocabulary becomes ``<|unk|>``; everything else, lone surrogates and NUL
included, survives the round trip. Encoding is one table look-up per character (several hundred MB/s); the table costs 2 MB.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.config import CharConfig
from gptshake.tokenizer.protocol import ANYWHERE, Ids, Stored, checked, id_type

EOT, UNK, SPECIALS = 0, 1, 2
CODE_POINTS = 0x110000
CHUNK = 1 << 18  # characters handled at once: bounds the memory, and a chunk stays in the processor's cache
LEAST = 256  # characters that ``auto`` keeps: small alphabets stay whole


class CharTokenizer(Stored):
    """One id per character: of distinct ones in the order of their code points character i has the id i + 2."""

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
        ids: Ids = np.empty(len(text), self._id_of.dtype)
        for start, codes in _code_chunks(text):
            np.take(self._id_of, codes, out=ids[start : start + len(codes)], mode="clip")  # clip: spares a copy, nothing is out of range
        return ids

    def decode(self, ids: npt.ArrayLike) -> str:
        array = checked(ids, self.vocab_size)
        codes = np.repeat(self._code_of[array], np.where(array == EOT, 2, 1))
        return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def token_bytes(self, token_id: int) -> bytes:
        return self.characters[token_id - SPECIALS].encode("utf-8", "surrogatepass") if token_id >= SPECIALS else b""

    def content(self) -> dict[str, Any]:
        # A list, not one string, or two lone surrogates side by side would be read back as one character.
        return {"kind": self.name, "characters": self.characters}


def load(data: dict[str, Any]) -> CharTokenizer:
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

    kind = "char"
    boundary = ANYWHERE

    def __post_init__(self) -> None:
        if self.vocab_size != "auto" and (type(self.vocab_size) is not int or self.vocab_size <= SPECIALS):
            raise ConfigError(
                f"tokenizer.vocab_size is {self.vocab_size!r}; it must be auto or a whole number above {SPECIALS} (two ids are special)."
            )
        if not 0 < self.coverage <= 1:
            raise ConfigError(f"tokenizer.coverage is {self.coverage}; it must be a share of the text, above 0 and at most 1.")

    def train(self, documents: Iterable[str]) -> CharTokenizer:
        counts = _count(documents)
        order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
        if self.vocab_size == "auto":
            covered = np.cumsum(counts[order])
            n = max(LEAST, int(np.searchsorted(covered, self.coverage * covered[-1])) + 1) if len(covered) else 0
        else:
            n = self.vocab_size - SPECIALS
        return CharTokenizer([chr(code) for code in np.sort(order[:n])])


def _count(documents: Iterable[str]) -> npt.NDArray[np.int64]:
    """How often each code point occurs, shape (0x110000,). Short documents are counted together: a count costs up to its table's length."""
    counts = np.zeros(CODE_POINTS, np.int64)

    def add(text: str) -> None:
        for _, codes in _code_chunks(text):
            found = np.bincount(codes)
            counts[: len(found)] += found

    waiting: list[str] = []
    length = 0
    for document in documents:
        waiting.append(document)
        length += len(document)
        if length >= CHUNK:
            add("".join(waiting))
            waiting, length = [], 0
    add("".join(waiting))
    return counts


def _code_chunks(text: str) -> Iterator[tuple[int, npt.NDArray[np.uint32]]]:
    """Code points of a text in chunks, each with the position where it starts."""
    for start in range(0, len(text), CHUNK):
        yield start, np.frombuffer(text[start : start + CHUNK].encode("utf-32-le", "surrogatepass"), "<u4")
