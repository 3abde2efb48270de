"""Wikipedia, from where the keys of ``data=wiki`` say: an excerpt that comes with the package gensim, or the hub in any language.

``source=auto`` is the excerpt, or the hub if a number of documents or bytes is asked for. An explicit choice is kept,
whatever happens. On the hub the first articles are the oldest pages of that Wikipedia; ``order`` takes others. The excerpt is a small
real corpus (106 articles, 2.8 million characters) that needs no download beyond pip: a MediaWiki dump that lies as a test resource in
gensim's wheel. Its file is found without importing gensim (which costs 1 s) and its SHA-256 is checked, so every machine trains on the
same text. An unpacked wheel on the path serves as well as an installed one.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from gptshake.data.clean import cleaning_version
from gptshake.data.config import WikiKeys
from gptshake.data.source.hub import Hub
from gptshake.data.source.mediawiki import Site, articles, prose
from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.source.streams import open_stream
from gptshake.errors import ConfigError, DataError, Unreachable
from gptshake.files import package_folder, sha256

FILE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
N_ARTICLES = 106


class Excerpt:
    """The first ``n_documents`` articles of the excerpt; None: all 106. ConfigError if it has not that many, or no such ``cleaning``."""

    licence = "Wikipedia authors, CC BY-SA 3.0"
    notes: tuple[str, ...] = ()

    def __init__(self, n_documents: int | None = None, cleaning: int = WikiKeys.cleaning) -> None:
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
        folder = package_folder("gensim")
        if folder is None or not (folder / FILE).is_file():
            raise DataError(
                "The Wikipedia excerpt comes with the package gensim, which is not installed: pip install 'gptshake[excerpt]', "
                "or take articles from the hub with data.source=hub data.n_documents=1000."
            )
        if sha256(folder / FILE) != SHA256:
            raise DataError(
                f"{folder / FILE} is not the excerpt this version was written for (its SHA-256 differs): pip install gensim==4.4.0."
            )
        with open_stream(folder / FILE, ".bz2") as (stream, _):
            site = Site(self._cleaning)
            for id, text in prose(islice(articles(stream, site=site), self._n), start.inside, parallel=False, site=site):
                yield Document(id, text)

    def resolved(self) -> dict[str, Any]:
        return {"source": "excerpt"}


@dataclass
class Wiki(WikiKeys):
    """Wikipedia articles; ConfigError for a selection that the source has not."""

    def __post_init__(self) -> None:
        limited = self.n_documents is not None or self.max_bytes is not None
        self._chosen: Hub | Excerpt
        if self.source == "hub" or (self.source == "auto" and limited):
            selection = {key: getattr(self, key) for key in ("n_documents", "max_bytes", "order", "order_seed")}
            self._chosen = hub = Hub("wikimedia/wikipedia", self.config, self.revision, **selection)
            amount, *order = hub.short_words() or [""]
            language = [] if self.config == WikiKeys.config else [self.config.rpartition(".")[2]]
            self.label = "-".join([f"hub{amount}", *order, *language])  # hub10k-spread-de
            self.licence = "Wikipedia authors, CC BY-SA 3.0 and GFDL"
        elif self.max_bytes is not None or self.order != "first":
            raise ConfigError(
                "data.max_bytes and data.order choose among the articles of the hub; the excerpt supports only data.n_documents."
            )
        else:
            self._chosen = Excerpt(self.n_documents, self.cleaning)
            self.label, self.licence = self._chosen.label, self._chosen.licence
        self.notes = self._chosen.notes

    def fingerprint(self) -> dict[str, Any]:
        return self._chosen.fingerprint()

    def documents(self, start: Position = START) -> Iterator[Document]:
        try:
            yield from self._chosen.documents(start)
        except Unreachable as error:
            raise Unreachable(f"{error} Or train on the excerpt: data.source=excerpt data.n_documents=null.") from error

    def resolved(self) -> dict[str, Any]:
        """``source`` as chosen, never ``auto``; the commit of a revision that was none."""
        return {"source": "hub"} | self._chosen.resolved()
