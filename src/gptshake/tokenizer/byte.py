"""Bytes as tokens: 256 ids for the bytes of UTF-8, and one for the end of text. For any language, at one token per byte.

Nothing is learned and nothing is unknown; lone surrogates become U+FFFD, every other text survives the round trip.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptshake.tokenizer.config import ByteConfig
from gptshake.tokenizer.protocol import ANYWHERE, ByteLevel, Ids, well_formed


class ByteTokenizer(ByteLevel):
    """One id per byte: the byte's value."""

    name = "byte"
    vocab_size = 257
    eot_id = 256
    boundary = ANYWHERE
    pieces = (*(bytes([value]) for value in range(256)), b"")

    def encode(self, text: str) -> Ids:
        return np.frombuffer(well_formed(text).encode(), np.uint8).astype(np.uint16)

    def content(self) -> dict[str, Any]:
        return {"kind": self.name}


def load(_: dict[str, Any]) -> ByteTokenizer:
    return ByteTokenizer()


@dataclass
class ByteTrainer(ByteConfig):
    """Gives the byte tokenizer for any text; there is nothing to set."""

    kind = "byte"

    def train(self, documents: Iterable[str]) -> ByteTokenizer:
        del documents
        return ByteTokenizer()
