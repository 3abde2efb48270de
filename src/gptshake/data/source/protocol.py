"""What a source of text is: it yields documents, and says cheaply which text this is.

The fingerprint stands for the documents: two sources with equal fingerprints yield equal documents, so a corpus that
was read once is found again without parsing or downloading. A source is a row of parts (files, shards), so that an
interrupted reader resumes in the part where it stopped.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Document:
    """One article or file, or a stretch of one."""

    id: str  # unique in its source and stable when the source grows; decides the document's split
    text: str  # readable, cleaned of markup
    part: int = 0  # file or shard of the source that it is in, counted from 0, never falling
    share: float | None = field(default=None, compare=False)  # of all input that was read by then; None: unknown. For progress alone
    more: bool = False  # whether the text goes on in the next document of the same id: so a long one need not be in memory at once


class Position(NamedTuple):
    """How far a source has been read."""

    part: int = 0  # that was being read
    inside: int = 0  # documents of that part that are done
    documents: int = 0  # of all parts before it
    n_bytes: int = 0  # UTF-8 bytes of their text


START = Position()


class Source(Protocol):
    """Where documents come from."""

    @property
    def label(self) -> str:
        """Short name for run names and plot titles, of ``[A-Za-z0-9_.-]`` only, such as ``excerpt106``."""

    @property
    def licence(self) -> str:
        """Under which licence the text is, in one line; may ask a hub."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines to print when it is read for the first time, such as files that are left out."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able values that identify the documents, cleaning included; cheap next to reading them."""

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The documents after ``start``, in a fixed order, one at a time."""

    def resolved(self) -> dict[str, Any]:
        """The ``data`` keys that were ``auto``, with what they became; frozen into the run's record."""
