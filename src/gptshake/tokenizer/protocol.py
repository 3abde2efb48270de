"""What a tokenizer is to the other packages, and how a saved one is found again.

A tokenizer turns text into ids and back; a trainer makes one from the documents of the training split. A new kind is one
module with these two and a function ``load(data)``: ``gptshake.tokenizer.<kind>``, which a saved file names, or a user's own,
which the config names; nothing here has to know it. What several kinds share of that is here too.
"""

import importlib
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gptshake.errors import DataError
from gptshake.files import read_bytes, write_atomic

Ids = npt.NDArray[np.unsignedinteger[Any]]
FILE_NAME = "tokenizer.json"
MOST_BYTES = 1 << 30  # of a saved tokenizer
ANYWHERE = re.compile("")
WINDOW = 64  # ids that are decoded again with each new one, as some tokenizers look at neighbours
_SURROGATE = re.compile("[\ud800-\udfff]")


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
        """Ids of any text, shape (n,), uint16 or (above 65,536 ids) uint32. Never fails, and never gives ``eot_id``."""

    def decode(self, ids: npt.ArrayLike) -> str:
        r"""Text of any sequence of ids, shape (n,); the end of text as a blank line (``\n\n``), bytes that are not UTF-8 as U+FFFD.

        Raises:
            DataError: if an id is not of this vocabulary.
        """

    def token_bytes(self, token_id: int) -> bytes:
        """The UTF-8 bytes that an id stands for, perhaps a part of a character; none for the end of text and the unknown."""

    def save(self, folder: Path) -> None:
        """Write ``folder/tokenizer.json``, from which ``load_tokenizer`` makes an equal tokenizer."""


class TokenizerTrainer(Protocol):
    """Makes a tokenizer from text; its settings are part of a token store's key."""

    def settings(self) -> dict[str, Any]:
        """Everything that decides the outcome besides the text, as JSON-able values; ``kind``, the tokenizer's name, among them."""

    def train(self, documents: Iterable[str]) -> Tokenizer:
        """A tokenizer of these documents, read once, in order."""


class Stored(ABC):
    """The half of a tokenizer that is about its file: ``content`` as JSON; the hash of the file is the tokenizer's identity."""

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """What is saved: ``kind``, and all that ``load`` of this kind needs."""

    @cached_property
    def digest(self) -> str:
        return sha256(self._file()).hexdigest()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / FILE_NAME, self._file())

    def _file(self) -> bytes:
        return (json.dumps(self.content()) + "\n").encode()


class ByteLevel(Stored):
    """A tokenizer whose ids stand for bytes of UTF-8, so nothing is unknown; ``pieces`` has those of every id, none for the end of text."""

    pieces: Sequence[bytes]
    vocab_size: int
    eot_id: int
    unk_id = None

    def decode(self, ids: npt.ArrayLike) -> str:
        parts = (b"\n\n" if token == self.eot_id else self.pieces[token] for token in checked(ids, self.vocab_size))
        return b"".join(parts).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        return self.pieces[token_id]


def well_formed(text: str) -> str:
    """The text with each lone surrogate, which UTF-8 cannot write, replaced by U+FFFD; any other text as it is."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def boundary(user: Tokenizer | TokenizerTrainer) -> re.Pattern[str] | None:
    """The attribute ``boundary`` that a tokenizer or a trainer may have: after its matches a long text may be cut.

    The ids of the parts, one after the other, or what is learned from them, are then those of the whole text. None: it needs each text
    whole, in memory.
    """
    found: re.Pattern[str] | None = getattr(user, "boundary", None)
    return found


def id_type(vocab_size: int) -> np.dtype[np.unsignedinteger[Any]]:
    """The smallest type that holds every id: uint16 up to 65,536 ids, else uint32."""
    return np.dtype(np.uint16) if vocab_size <= 1 << 16 else np.dtype(np.uint32)


def checked(ids: npt.ArrayLike, vocab_size: int) -> npt.NDArray[np.int64]:
    """The ids, flat, if all of them are in a vocabulary of that size.

    Raises:
        DataError: if one is not, or is no whole number.
    """
    array = np.asarray(ids).reshape(-1)
    if array.size and array.dtype.kind not in "iu":
        raise DataError(f"Ids are whole numbers from 0 to {vocab_size - 1}, not {array.dtype}.")
    if array.size and (array.min() < 0 or array.max() >= vocab_size):
        raise DataError(f"Ids from {array.min()} to {array.max()} do not belong to a vocabulary of {vocab_size}.")
    return array.astype(np.int64)


def first_characters(documents: Iterable[str], max_characters: int | None) -> Iterator[str]:
    """The first ``max_characters`` characters of the documents; None: all."""
    left = sys.maxsize if max_characters is None else max_characters
    for document in documents:
        yield document[:left]
        left -= len(document)
        if left <= 0:
            return


def decode_stream(tokenizer: Tokenizer, ids: Iterable[int]) -> Iterator[str]:
    """Text of ids that arrive one by one, as soon as it is certain: together ``tokenizer.decode(ids)``; no part is empty or cuts a character."""
    window: list[int] = []
    shown = 0
    for token in ids:
        window.append(token)
        text = tokenizer.decode(window)
        certain = len(text.rstrip("\ufffd"))  # the beginning of a character looks like this
        if certain > shown:
            yield text[shown:certain]
            shown = certain
        if certain == len(text) and len(window) >= WINDOW:
            window, shown = [], 0
    if rest := tokenizer.decode(window)[shown:]:
        yield rest


def load_tokenizer(place: Path, trainer: TokenizerTrainer | None = None) -> Tokenizer:
    """The tokenizer that was saved in the folder ``place``, or in the file of that name.

    Args:
        place: folder or file.
        trainer: as the config names it; a file of its kind is read by the ``load`` beside it, any other by that of ours.
    Raises:
        DataError: if the file is missing, unreadable, of a kind that is not here, or another one than its ``load`` makes of it.
    """
    path = place / FILE_NAME if place.is_dir() else place
    try:
        content = read_bytes(path, MOST_BYTES)
        data = json.loads(content)
        kind = str(data["kind"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error if isinstance(error, ValueError) else "it names no kind"
        raise DataError(f"{path} is not a saved tokenizer: {why}.") from error
    tokenizer: Tokenizer
    if trainer is not None and kind == trainer.settings()["kind"]:
        # A trainer that stands for another one, its ``origin``, has the ``load`` of that one's module.
        load = getattr(sys.modules[type(getattr(trainer, "origin", trainer)).__module__], "load", None)
        if load is not None:
            tokenizer = load(data)
            if tokenizer.digest != sha256(content).hexdigest():
                raise DataError(
                    f"{load.__module__}.load makes another tokenizer of {path} than was saved there: content() must hold all that it needs."
                )
            return tokenizer
    try:
        if not kind.isidentifier():  # it comes from a file: only a module of our own package is ever imported
            raise ModuleNotFoundError(kind)
        load = importlib.import_module(f"gptshake.tokenizer.{kind}").load
    except (ModuleNotFoundError, AttributeError) as error:
        raise DataError(
            f"{path} is of the kind {kind!r}, which this version of gptshake does not have. One of your own is read by the function load(data) "
            "in the file of its trainer, and is found by its option: tokenizer=<name>."
        ) from error
    tokenizer = load(data)
    return tokenizer
