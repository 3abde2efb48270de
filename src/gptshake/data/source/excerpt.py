"""The excerpt: 106 articles of the English Wikipedia that come with the gensim package.

A small real corpus (2.8 million characters) which needs no download beyond pip: a MediaWiki dump that lies as a test
resource in gensim's wheel. Its file is found without importing gensim (which costs 1 s) and its SHA-256 is checked, so
every machine trains on the same text. An unpacked wheel on the path serves as well as an installed one.
"""

import importlib.util
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from gptshake.data.clean import CLEANING_VERSION, cleaning_version
from gptshake.data.source.mediawiki import Site, articles, prose
from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.source.streams import opened
from gptshake.errors import ConfigError, DataError
from gptshake.files import sha256

FILE = "test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
SHA256 = "a53f4648dec40467ebdcbc7a1307eddb51fe6e28e9309f6ebde81ba0d04bea2d"
N_ARTICLES = 106


class Excerpt:
    """The first ``n_documents`` articles of the excerpt; None: all 106.

    Args:
        n_documents: how many.
        cleaning: its version; a run that goes on keeps its own.
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
        with opened(_file(), ".bz2") as (stream, _):
            site = Site(self._cleaning)
            for id, text in prose(islice(articles(stream, site=site), self._n), start.inside, parallel=False, site=site):
                yield Document(id, text)

    def resolved(self) -> dict[str, Any]:
        """``data.source`` as chosen."""
        return {"source": "excerpt"}


def _file() -> Path:
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
