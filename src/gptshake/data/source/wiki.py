"""Wikipedia, from where the keys of ``data=wiki`` say: an excerpt that comes with the package gensim, or the hub in any language.

``source=auto`` is the excerpt, or the hub if a number of documents or bytes is asked for. An explicit choice is kept,
whatever happens. On the hub the first articles are the oldest pages of that Wikipedia; ``order`` takes others. The excerpt is a small
real corpus (106 articles, 2.8 million characters) that needs no download beyond pip: a MediaWiki dump that lies as a test resource in
gensim's wheel. Its file is found without importing gensim (which costs 1 s) and its SHA-256 is checked, so every machine trains on the
same text. An unpacked wheel on the path serves as well as an installed one.
"""

import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gptshake.data.clean import CLEANING_VERSION, cleaning_version
from gptshake.data.source.hub import Hub
from gptshake.data.source.mediawiki import Site, articles, prose
from gptshake.data.source.protocol import START, Document, Position, Source
from gptshake.data.source.streams import opened
from gptshake.errors import ConfigError, DataError, OutOfReach
from gptshake.files import sha256

DATASET = "wikimedia/wikipedia"
CONFIG = "20231101.en"
REVISION = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
FILE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
N_ARTICLES = 106


class Excerpt:
    """The first ``n_documents`` articles of the excerpt; None: all 106.

    Args:
        n_documents: how many.
        cleaning: its version; a resumed run keeps its own.
    Raises:
        ConfigError: if it has not that many, or there is no such version.
    """

    licence = "Wikipedia authors, CC BY-SA 3.0"
    notes: tuple[str, ...] = ()

    def __init__(self, n_documents: int | None = None, cleaning: int = CLEANING_VERSION) -> None:
        if n_documents is not None and not 1 <= n_documents <= N_ARTICLES:
            raise ConfigError(
                f"data.n_documents={n_documents}, but the excerpt has 1 to {N_ARTICLES} documents; data.source=hub has 6.4 million."
            )
        self._n, self._cleaning = n_documents or N_ARTICLES, cleaning_version(cleaning)
        self.label = f"excerpt{self._n}"

    def fingerprint(self) -> dict[str, Any]:
        """Known without the file, as its hash is fixed: a corpus read once does not need gensim again."""
        return {"source": "excerpt", "sha256": SHA256, "n_documents": self._n, "cleaning": self._cleaning}

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The cleaned articles; their ids are Wikipedia's page ids."""
        with opened(_excerpt_file(), ".bz2") as (stream, _):
            site = Site(self._cleaning)
            for id, text in prose(islice(articles(stream, site=site), self._n), start.inside, parallel=False, site=site):
                yield Document(id, text)

    def resolved(self) -> dict[str, Any]:
        return {"source": "excerpt"}


def _excerpt_file() -> Path:
    spec = importlib.util.find_spec("gensim")
    path = Path(next(iter(spec.submodule_search_locations))) / FILE if spec and spec.submodule_search_locations else None
    if path is None or not path.is_file():
        raise DataError(
            "The Wikipedia excerpt comes with the package gensim, which is not installed: pip install 'gptshake[excerpt]', "
            "or take articles from the hub with data.source=hub data.n_documents=1000."
        )
    if sha256(path) != SHA256:
        raise DataError(f"{path} is not the excerpt this version was written for (its SHA-256 differs): pip install gensim==4.4.0.")
    return path


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
            much, language = hub.selection.short_words(), config.rpartition(".")[2]
            self.label = "-".join([*["hub" + "-".join(much[:1])], *much[1:], *([] if config == CONFIG else [language])])
            self._chosen, self.licence = hub, "Wikipedia authors, CC BY-SA 3.0 and GFDL"
        elif max_bytes is not None or order != "first":
            raise ConfigError(
                "data.max_bytes and data.order choose among the articles of the hub; the excerpt supports only data.n_documents."
            )
        else:
            self._chosen = Excerpt(n_documents, cleaning)
            self.label, self.licence = self._chosen.label, self._chosen.licence
        self.notes = self._chosen.notes

    def fingerprint(self) -> dict[str, Any]:
        return self._chosen.fingerprint()

    def documents(self, start: Position = START) -> Iterator[Document]:
        try:
            yield from self._chosen.documents(start)
        except OutOfReach as error:
            raise OutOfReach(f"{error} Or train on the excerpt: data.source=excerpt data.n_documents=null.") from error

    def resolved(self) -> dict[str, Any]:
        """``source`` as chosen, never ``auto``; the commit of a revision that was none."""
        return {"source": "hub" if self._is_hub else "excerpt", **(self._chosen.resolved() if self._is_hub else {})}
