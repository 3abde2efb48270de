"""Schemas of the ``data`` group: the keys of its yaml files with their types and defaults. Imports nothing heavy.

The meaning of each key, its unit and range stand in the yaml. A source inherits its keys, so that a default is written once;
``documents`` is the node of the source.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(init=False, repr=False, eq=False)
class DataConfig:
    """What all texts have in common: the split and the batches."""

    _target_: str = "gptshake.data.module.TokenDataModule"
    documents: Any = None
    split: str = "documents"
    val_fraction: float = 0.05
    test_fraction: float = 0.05
    batch_size: Any = 32
    batch_tokens: int | None = None
    micro_batch_size: Any = "auto"
    offset: str = "none"
    limit_blocks: int | None = None
    workers: Any = "auto"
    verify: bool = False


@dataclass(kw_only=True, repr=False, eq=False)
class Selection:
    """Which documents of a data set of the hub."""

    n_documents: int | None = None
    max_bytes: int | None = None
    order: str = "first"
    order_seed: int = 0


@dataclass(init=False, repr=False, eq=False)
class WikiKeys(Selection):
    """Keys of the source ``Wiki``."""

    source: str = "auto"
    config: str = "20231101.en"
    revision: str | None = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
    cleaning: int = 2


@dataclass(init=False, repr=False, eq=False)
class WikiConfig(WikiKeys, DataConfig):
    """``data=wiki``: Wikipedia, from the packaged excerpt or the hub."""


@dataclass(init=False, repr=False, eq=False)
class ShakespeareConfig(DataConfig):
    """``data=shakespeare``: the plays."""

    path: Any = None


@dataclass(init=False, repr=False, eq=False)
class TextKeys:
    """Keys of the source ``TextFiles``."""

    path: Any = None
    encoding: str = "utf-8"
    text_key: str = "text"
    cleaning: int = 3


@dataclass(init=False, repr=False, eq=False)
class TextConfig(TextKeys, DataConfig):
    """``data=text``: the user's own files."""


@dataclass(init=False, repr=False, eq=False)
class HubKeys(Selection):
    """Keys of the source ``Hub``."""

    dataset: str | None = None
    config: str | None = None
    revision: str | None = None
    text_key: str = "text"


@dataclass(init=False, repr=False, eq=False)
class HubConfig(HubKeys, DataConfig):
    """``data=hf``: any text data set of the hub."""
