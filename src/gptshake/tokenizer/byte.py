"""Bytes as tokens: 256 ids for the bytes of UTF-8, and one for the end of text. Nothing is learned, nothing is ever unknown.

For any language or file, at the cost of long sequences: 1 token per byte. Lone surrogates become U+FFFD; every other
text survives the round trip.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from gptshake.tokenizer.protocol import ANYWHERE, ByteLevel, Ids, well_formed

EOT = 256


class ByteTokenizer(ByteLevel):
    """One id per byte: the byte's value."""

    name = "byte"
    vocab_size = EOT + 1
    eot_id = EOT
    boundary = ANYWHERE
    pieces = (*(bytes([value]) for value in range(EOT)), b"")

    def encode(self, text: str) -> Ids:
        """Ids of the bytes, shape (UTF-8 bytes of text,), uint16."""
        return np.frombuffer(well_formed(text).encode(), np.uint8).astype(np.uint16)

    def content(self) -> dict[str, Any]:
        return {"kind": self.name}


def load(_: dict[str, Any]) -> ByteTokenizer:
    """The byte tokenizer, which is always the same."""
    return ByteTokenizer()


class ByteTrainer:
    """Gives the byte tokenizer for any text; there is nothing to set."""

    def settings(self) -> dict[str, Any]:
        return {"kind": "byte"}

    def train(self, documents: Iterable[str]) -> ByteTokenizer:
        del documents
        return ByteTokenizer()
