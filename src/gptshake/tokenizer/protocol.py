"""What a tokenizer is to the rest of the house, and how a saved one is found again.

A tokenizer turns text into ids and back; a trainer makes one from the documents of the training split. A new kind is one
module ``gptshake.tokenizer.<kind>`` with these two and a function ``load(data)``: the saved file names its kind, so
nothing here has to know it.
"""

import importlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gptshake.errors import DataError

Ids = npt.NDArray[np.unsignedinteger[Any]]
FILE_NAME = "tokenizer.json"


class Tokenizer(Protocol):
    """Text to ids and back. Immutable; ids are stable for ever once saved."""

    @property
    def name(self) -> str:
        """One word for run names and tables, such as ``char``."""

    @property
    def vocab_size(self) -> int:
        """Number of ids, special ones included; every id is below it."""

    @property
    def eot_id(self) -> int:
        """The id that stands between two documents."""

    @property
    def unk_id(self) -> int | None:
        """The id of what the vocabulary does not have; None if nothing can be missing."""

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes that ``save`` writes."""

    def encode(self, text: str) -> Ids:
        """Ids of any text, shape (n,), uint16 or (above 65,536 ids) uint32. Never fails."""

    def decode(self, ids: npt.ArrayLike) -> str:
        """Text of a sequence of ids, shape (n,)."""

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes that an id stands for, perhaps a part of a character only; none for special ids."""

    def save(self, folder: Path) -> None:
        """Write ``folder/tokenizer.json``, from which ``load_tokenizer`` makes an equal tokenizer."""


class TokenizerTrainer(Protocol):
    """Makes a tokenizer from text; its settings are part of a token store's key."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the outcome besides the text, as JSON-able values."""

    def train(self, documents: Iterable[str]) -> Tokenizer:
        """A tokenizer of these documents, read once, in order."""


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer that was saved in ``folder``.

    Raises:
        DataError: if the file is missing, unreadable or of a kind that this version does not have.
    """
    path = folder / FILE_NAME
    try:
        data = json.loads(path.read_bytes())
        kind = data["kind"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a saved tokenizer ({type(error).__name__}: {error}).") from error
    # The kind comes from a file: only a plain word of our own package is ever imported.
    if not isinstance(kind, str) or not re.fullmatch("[a-z_]+", kind):
        raise DataError(f"{path} names the tokenizer kind {kind!r}, which is not a word.")
    try:
        load = importlib.import_module(f"gptshake.tokenizer.{kind}").load
    except (ModuleNotFoundError, AttributeError) as error:
        raise DataError(f"{path} is of the kind {kind!r}, which this version of gptshake does not have.") from error
    tokenizer: Tokenizer = load(data)
    return tokenizer
