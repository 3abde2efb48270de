"""Wikipedia from the Hugging Face hub: any language, up to all of its articles, already plain text.

Streams the first ``n_documents`` articles at a pinned revision; only what is read is downloaded, and the token store
keeps it, so that the next run needs no network. The first articles are the oldest pages of that Wikipedia. Never falls
back to another source: out of reach is one sentence, within ten seconds.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from gptshake.data.source.protocol import Document
from gptshake.errors import ConfigError, OutOfReach

DATASET = "wikimedia/wikipedia"
CONFIG = "20231101.en"
REVISION = "b04c8d1ceb2f5cd4588862100d08de323dccfbaa"
REACH_SECONDS = 5.0


class Hub:
    """Articles of one Wikipedia.

    Args:
        n_documents: how many, from the start; None: all (6.4 million in English).
        config: dump date and language, as ``20231101.en``.
        revision: commit of the dataset's repository.
        dataset: the dataset's name on the hub, or a local folder in the same layout.
    Raises:
        ConfigError: if ``n_documents`` is not positive.
    """

    licence = "Wikipedia authors, CC BY-SA 3.0 and GFDL"

    def __init__(self, n_documents: int | None, config: str = CONFIG, revision: str = REVISION, dataset: str = DATASET) -> None:
        if n_documents is not None and n_documents < 1:
            raise ConfigError(f"data.n_documents={n_documents}; it must be at least 1, or null for all articles.")
        self._n, self._config, self._revision, self._dataset = n_documents, config, revision, dataset
        language = re.sub(r"[^A-Za-z0-9_-]", "-", config.rpartition(".")[2])
        self.label = f"hub{_short(n_documents)}" + ("" if config == CONFIG else f"-{language}")

    def fingerprint(self) -> dict[str, Any]:
        """The pinned revision stands for the content."""
        return {
            "source": "hub",
            "dataset": self._dataset,
            "config": self._config,
            "revision": self._revision,
            "n_documents": self._n,
        }

    def documents(self) -> Iterator[Document]:
        """The articles in the hub's order; ids are Wikipedia's page ids.

        Raises:
            OutOfReach: if the hub does not answer, has no such config or revision, or breaks off.
        """
        try:
            for row in self._rows():
                yield Document(str(row["id"]), row["text"])
        except Exception as error:  # httpx, fsspec, datasets and the hub's client each have an error tree of their own
            raise OutOfReach(
                f"{self._dataset} ({self._config}) could not be read from the hub ({type(error).__name__}: {_first_line(error)}). "
                "Check the network and data.config, or train on the excerpt: data.source=excerpt data.n_documents=null."
            ) from error

    def resolved(self) -> dict[str, Any]:
        """``data.source`` as chosen."""
        return {"source": "hub"}

    def _rows(self) -> Iterable[Mapping[str, Any]]:
        import datasets  # 0.75 s: only when articles are really fetched

        if not Path(self._dataset).is_dir():
            _reach(self._dataset, self._revision)
        datasets.config.STREAMING_READ_MAX_RETRIES = 3  # of 20, five seconds apart
        datasets.config.STREAMING_READ_RETRY_INTERVAL = 1
        rows: Any = datasets.load_dataset(self._dataset, self._config, revision=self._revision, split="train", streaming=True)
        return rows if self._n is None else rows.take(self._n)  # type: ignore[no-any-return]


def _reach(dataset: str, revision: str) -> None:
    """Ask the hub for the dataset once, briefly: its own clients try for minutes when a network swallows packets."""
    from huggingface_hub import HfApi

    HfApi().dataset_info(dataset, revision=revision, timeout=REACH_SECONDS)


def _short(number: int | None) -> str:
    """10000 as ``10k``, 2000000 as ``2m``, others in digits."""
    if number is None:
        return ""
    for size, letter in ((1_000_000, "m"), (1_000, "k")):
        if number % size == 0:
            return f"{number // size}{letter}"
    return str(number)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:200]
