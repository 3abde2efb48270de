"""Schemas of the ``tokenizer`` group: the keys of its yaml files with their types. Imports nothing heavy."""

from dataclasses import dataclass
from typing import Any


@dataclass
class CharConfig:
    """``tokenizer=char``; the meaning of the keys is told by ``gptshake.tokenizer.char.CharTrainer``."""

    _target_: str = "gptshake.tokenizer.char.CharTrainer"
    vocab_size: Any = "auto"
    coverage: float = 0.9999
