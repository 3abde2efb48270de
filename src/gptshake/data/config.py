"""Schemas of the ``data`` group: the keys of its yaml files with their types. Imports nothing heavy.

The meaning of each key, its unit and range stand in the yaml; ``documents`` is the node of the source.
"""

from dataclasses import dataclass
from typing import Any


@dataclass
class WikiConfig:
    """``data=wiki``: Wikipedia, from the packaged excerpt or the hub."""

    _target_: str = "gptshake.data.module.TokenDataModule"
    documents: Any = None
    source: str = "auto"
    n_documents: int | None = None
    config: str = "20231101.en"
    revision: str = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
    split: str = "documents"
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    batch_size: Any = 32
    batch_tokens: int | None = None
    micro_batch_size: Any = "auto"
    offset: str = "none"
    workers: Any = "auto"
    verify: bool = False


@dataclass
class TextConfig:
    """``data=text``: the user's own files."""

    _target_: str = "gptshake.data.module.TokenDataModule"
    documents: Any = None
    path: str | None = None
    encoding: str = "utf-8"
    split: str = "documents"
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    batch_size: Any = 32
    batch_tokens: int | None = None
    micro_batch_size: Any = "auto"
    offset: str = "none"
    workers: Any = "auto"
    verify: bool = False
