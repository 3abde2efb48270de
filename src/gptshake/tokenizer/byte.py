"""Bytes as tokens: 256 ids for the bytes of UTF-8, and one for the end of text. Nothing is learned, nothing is ever unknown.

For any language or file at the price of long sequences: 1 token per byte. Lone surrogates become U+FFFD; every other
text survives the round trip.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.tokenizer.protocol import ANYWHERE, Ids, Stored, checked
from gptshake.tokenizer.utf8 import text_of, well_formed

EOT = 256
PIECES = [*(bytes([value]) for value in range(EOT)), b""]


class ByteTokenizer(Stored):
    """One id per byte: the byte's value."""

    name = "byte"
    vocab_size = EOT + 1
    eot_id = EOT
    unk_id = None
    boundary = ANYWHERE

    def encode(self, text: str) -> Ids:
        """Ids of the bytes, shape (UTF-8 bytes of text,), uint16."""
        return np.frombuffer(well_formed(text).encode(), np.uint8).astype(np.uint16)

    def decode(self, ids: npt.ArrayLike) -> str:
        """Text of ids; DataError if an id is above 256."""
        return text_of(PIECES, checked(ids, self.vocab_size), EOT)

    def token_bytes(self, token_id: int) -> bytes:
        """The byte itself; nothing for the end of text."""
        return PIECES[token_id]

    def content(self) -> dict[str, Any]:
        """What is saved: there is nothing but the kind."""
        return {"kind": self.name}


def load(data: dict[str, Any]) -> ByteTokenizer:
    """The byte tokenizer, which is always the same."""
    del data
    return ByteTokenizer()


class ByteTrainer:
    """Gives the byte tokenizer for any text."""

    def settings(self) -> dict[str, Any]:
        """Its kind; there is nothing to set."""
        return {"kind": "byte"}

    def train(self, documents: Iterable[str]) -> ByteTokenizer:
        """The byte tokenizer; the documents are not read."""
        del documents
        return ByteTokenizer()
