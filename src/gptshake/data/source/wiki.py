"""Wikipedia, from where the keys of ``data=wiki`` say: the packaged excerpt, or the hub in any language.

``source=auto`` is the excerpt, or the hub if a number of documents or bytes is asked for. An explicit choice is kept,
whatever happens. On the hub the first articles are the oldest pages of that Wikipedia; ``order`` takes others.
"""

from collections.abc import Iterator
from typing import Any

from gptshake.data.clean import CLEANING_VERSION
from gptshake.data.source.excerpt import Excerpt
from gptshake.data.source.hub import Hub
from gptshake.data.source.protocol import START, Document, Position, Source
from gptshake.errors import ConfigError, OutOfReach

DATASET = "wikimedia/wikipedia"
CONFIG = "20231101.en"
REVISION = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"


class Wiki:
    """Wikipedia articles.

    Args:
        source: ``auto``, ``excerpt`` or ``hub``.
        n_documents: how many articles; None: all that the source has.
        config: hub only: dump date and language.
        revision: hub only: commit of the data set; None: the newest.
        max_bytes, order, order_seed: hub only: as in ``Hub``.
        cleaning: excerpt only: version of the cleaning.
    Raises:
        ConfigError: for another source, or a selection that it has not.
    """

    def __init__(
        self,
        source: str = "auto",
        n_documents: int | None = None,
        config: str = CONFIG,
        revision: str | None = REVISION,
        max_bytes: int | None = None,
        order: str = "first",
        order_seed: int = 0,
        cleaning: int = CLEANING_VERSION,
    ) -> None:
        if source not in ("auto", "excerpt", "hub"):
            raise ConfigError(f"data.source={source} is none of auto, excerpt and hub.")
        self._is_hub = source == "hub" or (source == "auto" and (n_documents is not None or max_bytes is not None))
        self._chosen: Source
        if self._is_hub:
            hub = Hub(DATASET, config, revision, "text", n_documents, max_bytes, order, order_seed)
            much, language = hub.selection.words(), config.rpartition(".")[2]
            self.label = "-".join([*["hub" + "-".join(much[:1])], *much[1:], *([] if config == CONFIG else [language])])
            self._chosen, self.licence = hub, "Wikipedia authors, CC BY-SA 3.0 and GFDL"
        elif max_bytes is not None or order != "first":
            raise ConfigError(
                "data.max_bytes and data.order choose among the articles of the hub; the excerpt knows data.n_documents alone."
            )
        else:
            self._chosen = Excerpt(n_documents, cleaning)
            self.label, self.licence = self._chosen.label, self._chosen.licence
        self.notes = self._chosen.notes

    def fingerprint(self) -> dict[str, Any]:
        """The chosen source's."""
        return self._chosen.fingerprint()

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The chosen source's."""
        try:
            yield from self._chosen.documents(start)
        except OutOfReach as error:
            raise OutOfReach(f"{error} Or train on the excerpt: data.source=excerpt data.n_documents=null.") from error

    def resolved(self) -> dict[str, Any]:
        """``source`` as chosen, never ``auto``; the commit of a revision that was none."""
        return {"source": "hub" if self._is_hub else "excerpt", **(self._chosen.resolved() if self._is_hub else {})}
