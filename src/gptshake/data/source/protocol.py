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
    """One article or file.

    Attributes:
        id: unique in its source and stable when the source grows; decides the document's split.
        text: readable text, cleaned of markup.
        part: file or shard of the source that it is in, counted from 0, never falling.
        share: of all input that was read by then, in [0, 1]; None if unknown. For progress alone.
        more: whether the text goes on in the next document of the same id: so a long one need not be in memory at once.
    """

    id: str
    text: str
    part: int = 0
    share: float | None = field(default=None, compare=False)
    more: bool = False


class Position(NamedTuple):
    """How far a source has been read.

    Attributes:
        part: the part that was being read.
        inside: documents of that part that are done.
        documents, n_bytes: documents of all parts before it, and UTF-8 bytes of their text.
    """

    part: int = 0
    inside: int = 0
    documents: int = 0
    n_bytes: int = 0


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
