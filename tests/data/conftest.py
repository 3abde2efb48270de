"""Fixtures of the data tests: sources in memory, a place for caches, the excerpt if it is there."""

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.split import SplitRule
from gptshake.data.store import TokenStore, open_store
from gptshake.tokenizer.char import CharTrainer


@dataclass
class Memory:
    """A source in memory that counts how often it was read."""

    texts: dict[str, str]
    label: str = "memory"
    licence: str = "public domain"
    notes: tuple[str, ...] = ()
    reads: int = field(default=0, compare=False)

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "memory", "texts": {name: text.encode("utf-8", "surrogatepass").hex() for name, text in self.texts.items()}}

    def documents(self, start: Position = START) -> Iterator[Document]:
        self.reads += 1
        for name, text in islice(self.texts.items(), start.inside, None):
            yield Document(name, text)

    def resolved(self) -> dict[str, Any]:
        return {}


class Opener:
    """Opens stores in one cache and keeps the lines they said."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.said: list[str] = []

    def __call__(self, source: Any, trainer: Any = None, **options: Any) -> TokenStore:
        self.said = []
        options = {"split": "documents", "val_fraction": 0.1, "test_fraction": 0.0, "say": self.said.append} | options
        rule = SplitRule(*(options.pop(key) for key in ("split", "val_fraction", "test_fraction")))
        return open_store(source, trainer or CharTrainer(), rule, cache=self.cache, **options)


@pytest.fixture
def memory() -> type[Memory]:
    return Memory


@pytest.fixture
def opener(tmp_path: Path) -> Opener:
    return Opener(tmp_path / "cache")


@pytest.fixture(scope="session")
def excerpt_here() -> None:
    """Skips a test where the excerpt's carrier is not installed."""
    if importlib.util.find_spec("gensim") is None:
        pytest.skip("the excerpt comes with gensim, which is not installed")
