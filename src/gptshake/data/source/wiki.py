"""Wikipedia, from where the keys of ``data=wiki`` say: the packaged excerpt or the hub.

``source=auto`` is the excerpt, or the hub if a number of documents is asked for. An explicit choice is kept, whatever
happens.
"""

from collections.abc import Iterator
from typing import Any

from gptshake.data.source.excerpt import Excerpt
from gptshake.data.source.hub import CONFIG, REVISION, Hub
from gptshake.data.source.protocol import Document, Source
from gptshake.errors import ConfigError


class Wiki:
    """Wikipedia articles.

    Args:
        source: ``auto``, ``excerpt`` or ``hub``.
        n_documents: how many articles; None: all that the source has.
        config: hub only: dump date and language.
        revision: hub only: commit of the dataset's repository.
    Raises:
        ConfigError: for another source, or a number of documents that it has not.
    """

    def __init__(self, source: str = "auto", n_documents: int | None = None, config: str = CONFIG, revision: str = REVISION) -> None:
        if source not in ("auto", "excerpt", "hub"):
            raise ConfigError(f"data.source={source} is none of auto, excerpt and hub.")
        from_hub = source == "hub" or (source == "auto" and n_documents is not None)
        self._chosen: Source = Hub(n_documents, config, revision) if from_hub else Excerpt(n_documents)
        self.label = self._chosen.label
        self.licence = self._chosen.licence

    def fingerprint(self) -> dict[str, Any]:
        """The chosen source's."""
        return self._chosen.fingerprint()

    def documents(self) -> Iterator[Document]:
        """The chosen source's."""
        return self._chosen.documents()

    def resolved(self) -> dict[str, Any]:
        """``source`` as chosen, never ``auto``."""
        return self._chosen.resolved()
