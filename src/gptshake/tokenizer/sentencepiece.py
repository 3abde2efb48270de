"""SentencePiece (Kudo and Richardson 2018): a unigram model or merges over whole sentences, learned and encoded by its own library.

Set up so that every valid text survives the round trip: no normalisation, no blank put in front, blanks kept, characters
outside the vocabulary as bytes. Ids: 0 is unknown (never given), 1 the end of text, then 256 bytes, then the learned pieces.
One thing the library cannot tell apart, ``▁`` (U+2581) and a blank, so ``▁`` is always written as its three bytes.
Lone surrogates become U+FFFD. The result does not depend on how many cores there are, but on the order of the text.
"""

import base64
import io
import re
from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.byte_pairs import check_size
from gptshake.tokenizer.protocol import Ids, Stored, beginning, checked, id_type
from gptshake.tokenizer.utf8 import text_of, well_formed

UNK, EOT, FIRST_BYTE = 0, 1, 2
BLANK = "\u2581"
LEAST = FIRST_BYTE + 256 + 2
LINE = 2048  # characters of a sentence; the library drops sentences of more than max_sentence_length bytes
THREADS = 4  # always, however many cores there are: its sums depend on it
TYPES = ("unigram", "bpe")


class SentencePieceTokenizer(Stored):
    """A trained SentencePiece model.

    Args:
        model: the library's model file.
    Raises:
        DataError: if it is none, or not laid out as above.
    """

    name = "sentencepiece"
    eot_id = EOT
    unk_id = None  # what is not in the vocabulary is written as bytes

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise DataError(f"This is not a model of SentencePiece ({error}).") from error
        if self._processor.eos_id() != EOT or not self._processor.is_byte(FIRST_BYTE):
            raise DataError("This model of SentencePiece has no end of text with the id 1, or no tokens for single bytes.")
        self.vocab_size = int(self._processor.get_piece_size())

    @cached_property
    def pieces(self) -> list[bytes]:
        """The bytes of every id."""
        return [self._piece(token) for token in range(self.vocab_size)]

    def _piece(self, token: int) -> bytes:
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return b""
        text = self._processor.id_to_piece(token)
        return bytes([token - FIRST_BYTE]) if self._processor.is_byte(token) else text.replace(BLANK, " ").encode()

    def encode(self, text: str) -> Ids:
        """Ids of a text, shape (n,)."""
        first, *others = well_formed(text).split(BLANK)
        ids: list[int] = self._processor.encode(first)
        for part in others:
            ids += [FIRST_BYTE + value for value in BLANK.encode()] + self._processor.encode(part)
        return np.array(ids, id_type(self.vocab_size))

    def decode(self, ids: npt.ArrayLike) -> str:
        """Text of ids; DataError if an id is not of this vocabulary."""
        return text_of(self.pieces, checked(ids, self.vocab_size), EOT)

    def token_bytes(self, token_id: int) -> bytes:
        """What a piece stands for; nothing for the end of text."""
        return self.pieces[token_id]

    def content(self) -> dict[str, Any]:
        """What is saved: the library's model file."""
        return {"kind": self.name, "model": base64.b64encode(self.model).decode()}


def load(data: dict[str, Any]) -> SentencePieceTokenizer:
    """The tokenizer that was saved as ``data``.

    Raises:
        DataError: if it is not one.
    """
    try:
        return SentencePieceTokenizer(base64.b64decode(data["model"], validate=True))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"A saved SentencePiece tokenizer must hold the library's model in base64 ({error}).") from error


class SentencePieceTrainer:
    """Trains a SentencePiece model on the lines of the training text.

    Args:
        vocab_size: number of ids, the 258 special and byte ones included; fewer if the text has no more pieces.
        model_type: ``unigram`` or ``bpe``.
        coverage: share of the text's characters that get an id of their own, the rest is bytes; 0.98 <= coverage <= 1.
        max_characters: of the training text, from its beginning; bounds time (unigram: about 3 s for a million) and memory; None: all.
    Raises:
        ConfigError: if a value is none of these.
    """

    boundary = re.compile("\n")  # of what is learned: the library learns from lines; it encodes a text as one

    def __init__(
        self, vocab_size: int = 4096, model_type: str = "unigram", coverage: float = 0.9995, max_characters: int | None = 10_000_000
    ) -> None:
        check_size(vocab_size, LEAST, max_characters)
        if model_type not in TYPES:
            raise ConfigError(f"tokenizer.model_type is {model_type!r}; it must be one of {', '.join(TYPES)}.")
        if not 0.98 <= coverage <= 1:  # the library's own limits
            raise ConfigError(f"tokenizer.coverage is {coverage}; it is a share of the text's characters, from 0.98 to 1.")
        self._options: dict[str, Any] = {
            "vocab_size": vocab_size,
            "model_type": model_type,
            "coverage": coverage,
            "max_characters": max_characters,
        }

    def settings(self) -> dict[str, Any]:
        """What decides the model besides the text."""
        return {"kind": "sentencepiece", **self._options}

    def train(self, documents: Iterable[str]) -> SentencePieceTokenizer:
        """The tokenizer that these documents teach.

        Raises:
            DataError: if the characters alone need more ids than there are.
        """
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(beginning(documents, self._options["max_characters"])),
                model_writer=model,
                model_type=self._options["model_type"],
                vocab_size=self._options["vocab_size"],
                hard_vocab_limit=False,
                character_coverage=self._options["coverage"],
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                unk_id=UNK,
                eos_id=EOT,
                eos_piece="<|endoftext|>",
                bos_id=-1,
                pad_id=-1,
                max_sentence_length=4 * LINE,
                num_threads=THREADS,
                minloglevel=3,
            )
        except RuntimeError as error:
            raise DataError(
                f"SentencePiece cannot make {self._options['vocab_size']} ids of this text: {str(error).rpartition('] ')[2]} "
                "The keys are tokenizer.vocab_size and tokenizer.coverage."
            ) from error
        return SentencePieceTokenizer(model.getvalue())


def _lines(documents: Iterable[str]) -> Iterator[str]:
    """What the library calls sentences: lines, long ones cut. The first is a blank, as it refuses a text without any."""
    yield " "
    for document in documents:
        for line in well_formed(document).split("\n"):
            yield from (line[start : start + LINE] for start in range(0, len(line), LINE))
