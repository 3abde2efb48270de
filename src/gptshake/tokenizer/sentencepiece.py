"""SentencePiece (Kudo and Richardson 2018): a unigram model or merges over whole sentences, learned and encoded by its own library.

Set up so that every valid text survives the round trip: no normalisation, no blank put in front, blanks kept, characters
outside the vocabulary as bytes. Ids: 0 is unknown (never given), 1 the end of text, then 256 bytes, then the learned pieces.
The library cannot distinguish ``▁`` (U+2581) from a blank, so ``▁`` is always written as its three bytes.
Lone surrogates become U+FFFD. The result does not depend on how many cores there are, but on the order of the text.
"""

import base64
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptshake.errors import ConfigError, DataError
from gptshake.tokenizer.bpe import EOT as EOT_PIECE
from gptshake.tokenizer.bpe import check_size
from gptshake.tokenizer.config import SentencePieceConfig
from gptshake.tokenizer.protocol import ByteLevel, Ids, first_characters, id_type, well_formed

UNK, EOT, FIRST_BYTE = 0, 1, 2
BLANK = "\u2581"
LINE = 2048  # characters of a sentence; the library drops sentences of more than max_sentence_length bytes
THREADS = 4  # always, however many cores there are: its sums depend on it


class SentencePieceTokenizer(ByteLevel):
    """A trained model, as the library's file has it; DataError if it is none, or not laid out as above."""

    name = "sentencepiece"
    eot_id = EOT

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
        self.pieces = [self._piece(token) for token in range(self.vocab_size)]

    def _piece(self, token: int) -> bytes:
        if self._processor.is_control(token) or self._processor.is_unknown(token):
            return b""
        text = self._processor.id_to_piece(token)
        return bytes([token - FIRST_BYTE]) if self._processor.is_byte(token) else text.replace(BLANK, " ").encode()

    def encode(self, text: str) -> Ids:
        first, *others = well_formed(text).split(BLANK)
        ids: list[int] = self._processor.encode(first)
        for part in others:
            ids += [FIRST_BYTE + value for value in BLANK.encode()] + self._processor.encode(part)
        return np.array(ids, id_type(self.vocab_size))

    def content(self) -> dict[str, Any]:
        return {"kind": self.name, "model": base64.b64encode(self.model).decode()}


def load(data: dict[str, Any]) -> SentencePieceTokenizer:
    try:
        return SentencePieceTokenizer(base64.b64decode(data["model"], validate=True))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"A saved SentencePiece tokenizer must hold the library's model in base64 ({error}).") from error


@dataclass
class SentencePieceTrainer(SentencePieceConfig):
    """Trains a SentencePiece model on the lines of the training text.

    Args:
        vocab_size: number of ids, the 258 special and byte ones included; fewer if the text has no more pieces.
        model_type: ``unigram`` or ``bpe``.
        coverage: share of the text's characters that get an id of their own, the rest is bytes; 0.98 <= coverage <= 1.
        max_characters: of the training text, from its beginning; bounds time (unigram: about 3 s for a million) and memory; None: all.
    Raises:
        ConfigError: if a value is none of these.
    """

    kind = "sentencepiece"
    boundary = re.compile("\n")  # of what is learned: the library learns from lines; it encodes a text as one

    def __post_init__(self) -> None:
        check_size(self.vocab_size, FIRST_BYTE + 258, self.max_characters)
        if self.model_type not in ("unigram", "bpe"):
            raise ConfigError(f"tokenizer.model_type is {self.model_type!r}; it must be one of unigram, bpe.")
        if not 0.98 <= self.coverage <= 1:  # the library's own limits
            raise ConfigError(f"tokenizer.coverage is {self.coverage}; it must be a share of the text's characters, from 0.98 to 1.")

    def train(self, documents: Iterable[str]) -> SentencePieceTokenizer:
        """The tokenizer of these documents; DataError: the characters alone need more ids than there are."""
        import sentencepiece

        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=_lines(first_characters(documents, self.max_characters)),
                model_writer=model,
                model_type=self.model_type,
                vocab_size=self.vocab_size,
                hard_vocab_limit=False,
                character_coverage=self.coverage,
                byte_fallback=True,
                normalization_rule_name="identity",
                add_dummy_prefix=False,
                remove_extra_whitespaces=False,
                unk_id=UNK,
                eos_id=EOT,
                eos_piece=EOT_PIECE,
                bos_id=-1,
                pad_id=-1,
                max_sentence_length=4 * LINE,
                num_threads=THREADS,
                minloglevel=3,
            )
        except RuntimeError as error:
            raise DataError(
                f"SentencePiece cannot make {self.vocab_size} ids of this text: {str(error).rpartition('] ')[2]} "
                "The keys are tokenizer.vocab_size and tokenizer.coverage."
            ) from error
        return SentencePieceTokenizer(model.getvalue())


def _lines(documents: Iterable[str]) -> Iterator[str]:
    """What the library calls sentences: lines, long ones cut. The first is a blank, as it refuses a text without any."""
    yield " "
    for document in documents:
        for line in well_formed(document).split("\n"):
            yield from (line[start : start + LINE] for start in range(0, len(line), LINE))
