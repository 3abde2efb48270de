"""Schemas of the ``tokenizer`` group: the keys of its yaml files with their types. Imports nothing heavy.

``path`` is read in ``setup``: a saved tokenizer instead of one that is made from the text.
"""

from dataclasses import dataclass
from typing import Any


@dataclass
class CharConfig:
    """``tokenizer=char``; the meaning of the keys is told by ``gptshake.tokenizer.char.CharTrainer``."""

    _target_: str = "gptshake.tokenizer.char.CharTrainer"
    vocab_size: Any = "auto"
    coverage: float = 0.9999
    path: str | None = None


@dataclass
class ByteConfig:
    """``tokenizer=byte``; the meaning of the keys is told by ``gptshake.tokenizer.byte.ByteTrainer``."""

    _target_: str = "gptshake.tokenizer.byte.ByteTrainer"
    path: str | None = None


@dataclass
class BPEConfig:
    """``tokenizer=bpe``; the meaning of the keys is told by ``gptshake.tokenizer.bpe.BPETrainer``."""

    _target_: str = "gptshake.tokenizer.bpe.BPETrainer"
    vocab_size: int = 4096
    pattern: str = "gpt4"
    max_characters: int | None = 100_000_000
    path: str | None = None


@dataclass
class HFBPEConfig:
    """``tokenizer=hf_bpe``; the meaning of the keys is told by ``gptshake.tokenizer.hf_bpe.HFBPETrainer``."""

    _target_: str = "gptshake.tokenizer.hf_bpe.HFBPETrainer"
    vocab_size: int = 4096
    pattern: str = "gpt2"
    max_characters: int | None = 100_000_000
    path: str | None = None


@dataclass
class SentencePieceConfig:
    """``tokenizer=sentencepiece``; the meaning of the keys is told by ``gptshake.tokenizer.sentencepiece.SentencePieceTrainer``."""

    _target_: str = "gptshake.tokenizer.sentencepiece.SentencePieceTrainer"
    vocab_size: int = 4096
    model_type: str = "unigram"
    coverage: float = 0.9995
    max_characters: int | None = 10_000_000
    path: str | None = None


@dataclass
class GPT2Config:
    """``tokenizer=gpt2``; the meaning of the keys is told by ``gptshake.tokenizer.gpt2.GPT2Trainer``."""

    _target_: str = "gptshake.tokenizer.gpt2.GPT2Trainer"
    path: str | None = None
