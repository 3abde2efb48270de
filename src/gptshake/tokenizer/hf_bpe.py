"""Byte-pair encoding learned by the library tokenizers (Hugging Face): its BpeTrainer on bytes, its ids.

Its tie rule is ours, on ids of its own: the bytes in the order of GPT-2's letters for them. What it learned is
encoded by tiktoken like our own merges, to the same ids as the library's and several times as fast.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

from gptshake.tokenizer import byte_pairs
from gptshake.tokenizer.byte_pairs import BYTES, BytePairTokenizer, check_size
from gptshake.tokenizer.exchange import from_hf
from gptshake.tokenizer.protocol import beginning
from gptshake.tokenizer.utf8 import well_formed
from gptshake.tokenizer.words import pattern_of

load = byte_pairs.load
LONGEST = 20_000  # characters of a word; 0.3 s of learning
ENDLESS_RUN = re.compile(rf"\S{{{LONGEST}}}|\s{{{LONGEST}}}")
ENDLESS = re.compile(rf"\S{{1,{LONGEST}}}|\s{{1,{LONGEST}}}")


class HFBPETrainer:
    """Learns merges with the library tokenizers.

    Args:
        vocab_size: number of ids: 256 bytes, the merges, and the end of text; fewer if the text has no more pairs.
        pattern: how a text is cut into words: ``gpt4`` or ``gpt2``.
        max_characters: of the training text, from its beginning; bounds time and memory; None: all.
    Raises:
        ConfigError: if a value is none of these.
    """

    def __init__(self, vocab_size: int = 4096, pattern: str = "gpt2", max_characters: int | None = 100_000_000) -> None:
        check_size(vocab_size, BYTES + 1, max_characters)
        self._regex = pattern_of(pattern)
        self._vocab_size, self._pattern, self._max_characters = vocab_size, pattern, max_characters

    def settings(self) -> dict[str, Any]:
        """What decides the merges besides the text."""
        return {"kind": "hf_bpe", "vocab_size": self._vocab_size, "pattern": self._pattern, "max_characters": self._max_characters}

    def train(self, documents: Iterable[str]) -> BytePairTokenizer:
        """The tokenizer that these documents teach."""
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns of every process that is forked afterwards
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        learner = Tokenizer(models.BPE())
        split = pre_tokenizers.Split(Regex(self._regex), "isolated")
        learner.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=self._vocab_size - 1, initial_alphabet=letters, show_progress=False)
        learner.train_from_iterator(_cut(beginning(documents, self._max_characters)), trainer)
        return from_hf("hf_bpe", json.loads(learner.to_str()))


def _cut(documents: Iterable[str]) -> Iterator[str]:
    """The documents, with endless words cut: the library's time grows with the square of a word's length."""
    for document in map(well_formed, documents):
        yield from ENDLESS.findall(document) if len(document) > LONGEST and ENDLESS_RUN.search(document) else (document,)
