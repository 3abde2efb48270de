"""The tokenizer that byte-pair merges make, however they were learned: ours (``bpe``), HF's (``hf_bpe``) or OpenAI's (``gpt2``).

Ids: the 256 single bytes, the merges in the order of learning, the end of text. Encoding is tiktoken's (20 to 30 MB/s on one
thread), with one detour: its pattern fails on a million blanks in a row, so a text with such a run is cut into words here.
Any valid text survives the round trip; lone surrogates become U+FFFD. Plain text never becomes the end of text.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.protocol import Ids, Stored, checked, id_type
from gptshake.tokenizer.utf8 import text_of, well_formed
from gptshake.tokenizer.words import BETWEEN_WORDS, PATTERNS, words

BYTES = 256
MAX_IDS = 1_000_000  # a symbol is one character while learning, and there are 1,114,112 of these
EOT = "<|endoftext|>"
LONG = 1 << 18  # characters; tiktoken can take back 1,000,000 steps of a pattern and no more; ours take back nothing but blanks
LONG_RUN = re.compile(rf"\s{{{LONG}}}")

Merge = tuple[int, int]


class BytePairTokenizer(Stored):
    """Byte-pair encoding with given merges.

    Args:
        name: the kind, such as ``bpe``.
        pattern: regular expression that cuts a text into words.
        merges: pairs (left id, right id); merge i makes the id 256 + i of ids below it.
        alphabet: the byte value of each of the ids 0 to 255.
    Raises:
        DataError: if they are not that.
    """

    unk_id = None

    def __init__(self, name: str, pattern: str, merges: Sequence[Merge], alphabet: Sequence[int] = range(BYTES)) -> None:
        if sorted(alphabet) != list(range(BYTES)):
            raise DataError("The first 256 tokens of byte-pair encoding must be the 256 single bytes.")
        self.name, self.pattern, self.merges, self.alphabet = name, pattern, list(merges), list(alphabet)
        self.pieces = [bytes([value]) for value in alphabet]
        for left, right in self.merges:
            if not (0 <= left < len(self.pieces) and 0 <= right < len(self.pieces)):
                raise DataError(f"The merge ({left}, {right}) for the id {len(self.pieces)} joins ids that do not exist yet.")
            self.pieces.append(self.pieces[left] + self.pieces[right])
        self.eot_id = len(self.pieces)
        self.pieces.append(b"")
        self.vocab_size = len(self.pieces)

    @property
    def boundary(self) -> re.Pattern[str] | None:
        """Where a text may be cut, with our patterns."""
        return BETWEEN_WORDS if self.pattern in PATTERNS.values() else None

    @cached_property
    def ranks(self) -> dict[bytes, int]:
        """The id of every token but the end of text, by its bytes; of two with equal bytes the first, as the other never arises."""
        return {piece: token for token, piece in reversed([*enumerate(self.pieces[:-1])])}

    @cached_property
    def encoding(self) -> Any:
        """tiktoken's object for this vocabulary."""
        import tiktoken

        return tiktoken.Encoding(self.name, pat_str=self.pattern, mergeable_ranks=self.ranks, special_tokens={EOT: self.eot_id})

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (n,)."""
        if len(text) > LONG and (self.pattern not in PATTERNS.values() or LONG_RUN.search(text)):
            ids = [token for word in words(well_formed(text), self.pattern) for token in self.encoding._encode_single_piece(word)]
            return np.array(ids, id_type(self.vocab_size))
        try:
            found: npt.NDArray[np.uint32] = self.encoding.encode_to_numpy(text, disallowed_special=())
        except UnicodeEncodeError:  # a lone surrogate
            found = self.encoding.encode_to_numpy(well_formed(text), disallowed_special=())
        return found.astype(id_type(self.vocab_size))

    def decode(self, ids: npt.ArrayLike) -> str:
        """Text of ids; DataError if an id is not of this vocabulary."""
        return text_of(self.pieces, checked(ids, self.vocab_size), self.eot_id)

    def token_bytes(self, token_id: int) -> bytes:
        """What a token stands for; nothing for the end of text."""
        return self.pieces[token_id]

    def content(self) -> dict[str, Any]:
        """What is saved: all that the constructor takes."""
        return {"kind": self.name, "pattern": self.pattern, "alphabet": self.alphabet, "merges": self.merges}


def load(data: dict[str, Any]) -> BytePairTokenizer:
    """The tokenizer that was saved as ``data``.

    Raises:
        DataError: if it is not one.
    """
    try:
        merges = [(int(left), int(right)) for left, right in data["merges"]]
        return BytePairTokenizer(str(data["kind"]), str(data["pattern"]), merges, [int(value) for value in data["alphabet"]])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"A saved byte-pair tokenizer must hold a pattern, an alphabet and merges ({error}).") from error


def check_size(vocab_size: Any, least: int, max_characters: Any) -> None:
    """Refuse a number of ids, or an amount of text to learn from, that cannot be had.

    Raises:
        ConfigError: with what can.
    """
    if not isinstance(vocab_size, int) or isinstance(vocab_size, bool) or not least <= vocab_size <= MAX_IDS:
        raise ConfigError(f"tokenizer.vocab_size is {vocab_size!r}; it must be a whole number from {least} to {MAX_IDS:,}.")
    if max_characters is not None and (not isinstance(max_characters, int) or isinstance(max_characters, bool) or max_characters < 1):
        raise ConfigError(f"tokenizer.max_characters is {max_characters!r}; it must be a whole number from 1 up, or null for all.")
