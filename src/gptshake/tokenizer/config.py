"""Schemas of the ``tokenizer`` group: the keys of its yaml files with their types and defaults. Imports nothing heavy.

The meaning of each key, its unit and range stand in the yaml. A trainer with settings inherits its schema, so that the defaults are
written once; ``path``, a saved tokenizer instead of one that is made from the text, is read in ``setup``.
"""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class CharConfig:
    """``tokenizer=char``."""

    _target_: str = field(default="gptshake.tokenizer.char.CharTrainer", kw_only=True)
    vocab_size: Any = "auto"
    coverage: float = 0.9999
    path: str | None = field(default=None, kw_only=True)


@dataclass
class ByteConfig:
    """``tokenizer=byte``."""

    _target_: str = "gptshake.tokenizer.byte.ByteTrainer"
    path: str | None = None


@dataclass
class BPEConfig:
    """``tokenizer=bpe``."""

    _target_: str = field(default="gptshake.tokenizer.bpe.BPETrainer", kw_only=True)
    vocab_size: int = 4096
    pattern: str = "gpt4"
    max_characters: int | None = 100_000_000
    path: str | None = field(default=None, kw_only=True)


@dataclass
class HFBPEConfig:
    """``tokenizer=hf_bpe``."""

    _target_: str = field(default="gptshake.tokenizer.hf_bpe.HFBPETrainer", kw_only=True)
    vocab_size: int = 4096
    pattern: str = "gpt2"
    max_characters: int | None = 100_000_000
    path: str | None = field(default=None, kw_only=True)


@dataclass
class SentencePieceConfig:
    """``tokenizer=sentencepiece``."""

    _target_: str = field(default="gptshake.tokenizer.sentencepiece.SentencePieceTrainer", kw_only=True)
    vocab_size: int = 4096
    model_type: str = "unigram"
    coverage: float = 0.9995
    max_characters: int | None = 10_000_000
    path: str | None = field(default=None, kw_only=True)


@dataclass
class GPT2Config:
    """``tokenizer=gpt2``."""

    _target_: str = "gptshake.tokenizer.gpt2.GPT2Trainer"
    path: str | None = None
