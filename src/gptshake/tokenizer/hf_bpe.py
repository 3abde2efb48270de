"""Byte-pair encoding learned by the library tokenizers (Hugging Face): its BpeTrainer on bytes, its ids.

Its tie rule is ours, on ids of its own: the bytes in the order of GPT-2's characters for them. What it learned is
encoded by tiktoken like our own merges, to the same ids as the library's and several times as fast.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gptshake.tokenizer.bpe import BPETrainer, BytePairTokenizer
from gptshake.tokenizer.bpe import load as load
from gptshake.tokenizer.config import HFBPEConfig
from gptshake.tokenizer.exchange import from_hf, word_splitter
from gptshake.tokenizer.protocol import first_characters, well_formed

LONGEST = 20_000  # characters of a word; 0.3 s of learning
ENDLESS_RUN = re.compile(rf"\S{{{LONGEST}}}|\s{{{LONGEST}}}")
ENDLESS = re.compile(rf"\S{{1,{LONGEST}}}|\s{{1,{LONGEST}}}")


@dataclass
class HFBPETrainer(HFBPEConfig, BPETrainer):
    """Learns merges with the library tokenizers; arguments and errors as of ``BPETrainer``."""

    kind = "hf_bpe"
    boundary = None

    def train(self, documents: Iterable[str]) -> BytePairTokenizer:
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns of every process that is forked afterwards
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers

        learner = Tokenizer(models.BPE())
        learner.pre_tokenizer = word_splitter(self._regex)
        letters = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=self.vocab_size - 1, initial_alphabet=letters, show_progress=False)
        learner.train_from_iterator(_cut(first_characters(documents, self.max_characters)), trainer)
        return from_hf("hf_bpe", json.loads(learner.to_str()))


def _cut(documents: Iterable[str]) -> Iterator[str]:
    """The documents, with endless words cut: the library's time grows with the square of a word's length."""
    for document in map(well_formed, documents):
        yield from ENDLESS.findall(document) if len(document) > LONGEST and ENDLESS_RUN.search(document) else (document,)
