"""What a source of text is: it yields documents, and says cheaply which text this is.

The fingerprint stands for the documents: two sources with equal fingerprints yield equal documents, so a corpus that
was read once is found again without parsing or downloading.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Document:
    """One article or file.

    Attributes:
        id: unique in its source and stable when the source grows; decides the document's split.
        text: readable text, cleaned of markup.
    """

    id: str
    text: str


class Source(Protocol):
    """Where documents come from."""

    @property
    def label(self) -> str:
        """Short name for run names and plot titles, of ``[A-Za-z0-9_.-]`` only, such as ``excerpt106``."""

    @property
    def licence(self) -> str:
        """Under which licence the text is, in one line."""

    def fingerprint(self) -> dict[str, Any]:
        """JSON-able values that identify the documents, cleaning included; cheap next to reading them."""

    def documents(self) -> Iterator[Document]:
        """The documents, in a fixed order, one at a time."""

    def resolved(self) -> dict[str, Any]:
        """The ``data`` keys that were ``auto``, with what they became; frozen into the run's record."""
