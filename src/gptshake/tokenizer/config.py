"""Schemas of the ``tokenizer`` group: the keys of its yaml files with their types and defaults. Imports nothing heavy.

A trainer inherits its schema, so that a default is written once. ``path``, a saved tokenizer in a trainer's place, is read in ``setup``.
"""

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(kw_only=True, init=False, repr=False, eq=False)
class TokenizerConfig:
    """What every option of the group has."""

    kind: ClassVar[str]
    _target_: str = ""
    path: str | None = None

    def settings(self) -> dict[str, Any]:
        """As every trainer gives them: its kind and its keys."""
        keys = {key.name for key in fields(self)} - {"_target_", "path"}
        return {"kind": self.kind, **{key: getattr(self, key) for key in sorted(keys)}}


@dataclass(init=False, repr=False, eq=False)
class CharConfig(TokenizerConfig):
    """``tokenizer=char``."""

    _target_: str = field(default="gptshake.tokenizer.char.CharTrainer", kw_only=True)
    vocab_size: Any = "auto"
    coverage: float = 0.9999


@dataclass(init=False, repr=False, eq=False)
class ByteConfig(TokenizerConfig):
    """``tokenizer=byte``."""

    _target_: str = field(default="gptshake.tokenizer.byte.ByteTrainer", kw_only=True)


@dataclass(init=False, repr=False, eq=False)
class BPEConfig(TokenizerConfig):
    """``tokenizer=bpe``."""

    _target_: str = field(default="gptshake.tokenizer.bpe.BPETrainer", kw_only=True)
    vocab_size: int = 4096
    pattern: str = "gpt4"
    max_characters: int | None = 100_000_000


@dataclass(init=False, repr=False, eq=False)
class HFBPEConfig(BPEConfig):
    """``tokenizer=hf_bpe``."""

    _target_: str = field(default="gptshake.tokenizer.hf_bpe.HFBPETrainer", kw_only=True)
    pattern: str = "gpt2"


@dataclass(init=False, repr=False, eq=False)
class SentencePieceConfig(TokenizerConfig):
    """``tokenizer=sentencepiece``."""

    _target_: str = field(default="gptshake.tokenizer.sentencepiece.SentencePieceTrainer", kw_only=True)
    vocab_size: int = 4096
    model_type: str = "unigram"
    coverage: float = 0.9995
    max_characters: int | None = 10_000_000


@dataclass(init=False, repr=False, eq=False)
class GPT2Config(TokenizerConfig):
    """``tokenizer=gpt2``."""

    _target_: str = field(default="gptshake.tokenizer.gpt2.GPT2Trainer", kw_only=True)
