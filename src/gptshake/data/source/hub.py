"""Any text data set of the Hugging Face hub, or of a local folder in its layout: streamed, pinned to a commit, never half the text.

Only what is read is downloaded, and the corpus keeps it. Takes the data set's name and what to select of it; gives its
``train`` split as documents in one of three orders. A shard is a part: an interrupted download goes on in the shard where
it stopped. Never falls back to another source: out of reach is one sentence, within ten seconds.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from gptshake.data.source.content import content_hash
from gptshake.data.source.find import is_hidden
from gptshake.data.source.formats import id_of, some_of, text_of
from gptshake.data.source.protocol import START, Document, Position
from gptshake.data.source.selection import Row, Selection
from gptshake.errors import DataError, GptshakeError, OutOfReach, first_line
from gptshake.files import expanded

REACH_SECONDS = 5.0
FEW_SHARDS = 16  # below, Parquet is divided further, by row groups, where the order is not the first
_COMMIT = re.compile(r"[0-9a-f]{40}")


class About(NamedTuple):
    """What the hub says of a data set."""

    commit: str
    licence: str


class Hub:
    """Documents of a data set.

    Args:
        dataset: its name on the hub, as ``user/name``, or a local folder in the same layout.
        config: which of its configs; None if it has only one.
        revision: commit, tag or branch; None: the newest. What it means is asked for once and kept in the record.
        text_key: column of the text. A column ``id`` gives the ids, if there is one.
        n_documents, max_bytes, order, order_seed: which of the documents, as in ``Selection``; shards are its parts, or row groups of
            Parquet if there are few shards.
        cache: folder for remembered hashes, of a local folder.
    Raises:
        ConfigError: for limits below 1 or another order.
        DataError: if no data set is named.
    """

    notes: tuple[str, ...] = ()

    def __init__(
        self,
        dataset: str | None,
        config: str | None = None,
        revision: str | None = None,
        text_key: str = "text",
        n_documents: int | None = None,
        max_bytes: int | None = None,
        order: str = "first",
        order_seed: int = 0,
        cache: str | None = None,
    ) -> None:
        if not dataset:
            raise DataError("Which data set? Give its name on the hub, or a local folder, with data.dataset=…")
        self._local = expanded(dataset).is_dir()
        self._dataset = str(expanded(dataset)) if self._local else dataset
        self._config, self._revision, self._text_key = config, revision, text_key
        self.selection = Selection(n_documents, max_bytes, order, order_seed)
        self._cache = expanded(cache) if cache else None
        self.label = "-".join([re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(dataset).name).strip("-.") or "hub", *self.selection.words()])

    @property
    def licence(self) -> str:
        """What the card of the data set says."""
        licence = _local_licence(Path(self._dataset)) if self._local else self._about().licence
        return f"{self._dataset}, {licence}"

    def fingerprint(self) -> dict[str, Any]:
        """The commit stands for the content; of a local folder, the content itself."""
        return {
            "source": "hub",
            "dataset": "" if self._local else self._dataset,
            "config": self._config,
            "revision": self._content() if self._local else self._commit(),
            "text_key": self._text_key,
            "n_documents": self.selection.n_documents,
            "max_bytes": self.selection.max_bytes,
            "order": " ".join([self.selection.order, *([str(self.selection.seed)] if self.selection.order == "shuffle" else [])]),
        }

    def documents(self, start: Position = START) -> Iterator[Document]:
        """The documents; ids are the column ``id``, else shard and row.

        Raises:
            OutOfReach: if the hub does not answer or breaks off.
            DataError: if there is no such data set, config, revision or column, or no right to read it.
        """
        name = f"{self._dataset}{f' ({self._config})' if self._config else ''}"
        try:  # httpx, fsspec, datasets and the hub's client each have an error tree of their own
            rows = self._open()
        except GptshakeError:
            raise
        except Exception as error:
            raise _told(error, name) from error
        try:
            split = (rows.info.splits or {}).get("train")
            total = split.num_examples if split else None
            yield from self.selection.take(lambda shard: self._read(rows, shard), rows.num_shards, start, total)
        except GptshakeError:
            raise
        except Exception as error:
            raise (
                DataError(f"{name} could not be read: {first_line(error)[:300]}.") if self._local else _out_of_reach(error, name)
            ) from error

    def resolved(self) -> dict[str, Any]:
        """The commit that ``data.revision`` meant."""
        return {} if self._local else {"revision": self._commit()}

    def _read(self, rows: Any, shard: int) -> Iterator[Row]:
        """Ids and texts of one shard."""
        for number, row in enumerate(rows.shard(rows.num_shards, shard)):
            if self._text_key not in row:
                raise DataError(f"{self._dataset} has no column {self._text_key}, but {some_of(row)}. Name the text's: data.text_key=…")
            place = f"{shard}:{number}"
            yield id_of(row, place), text_of(row[self._text_key], f"{self._dataset}, row {place},", self._text_key)

    def _open(self) -> Any:
        """The data set, open for streaming."""
        commit = None if self._local else self._about().commit  # also finds out quickly whether the hub is there
        import datasets  # 0.75 s: only when documents are really fetched

        datasets.config.STREAMING_READ_MAX_RETRIES = 3  # of 20, five seconds apart
        datasets.config.STREAMING_READ_RETRY_INTERVAL = 1
        rows: Any = datasets.load_dataset(self._dataset, self._config, revision=commit, split="train", streaming=True)
        rows = rows.reshard() if self.selection.order != "first" and rows.num_shards < FEW_SHARDS else rows
        if self.selection.order == "spread" and self.selection.limited and rows.num_shards == 1:
            raise DataError(
                f"data.order=spread needs several shards or row groups; {self._dataset} is in one piece. Take data.order=shuffle."
            )
        return rows

    def _commit(self) -> str:
        return self._revision if self._revision and _COMMIT.fullmatch(self._revision) else self._about().commit

    def _about(self) -> About:
        try:
            return about(self._dataset, self._revision)
        except Exception as error:
            raise _told(error, self._dataset) from error

    def _content(self) -> str:
        folder = Path(self._dataset)
        files = {
            file.relative_to(folder).as_posix(): file
            for file in sorted(folder.rglob("*"))
            if file.is_file() and not is_hidden(file, folder)
        }
        return content_hash(files, self._cache)


@lru_cache
def about(dataset: str, revision: str | None) -> About:
    """Ask the hub for the data set, once and briefly: its own clients try for minutes when a network swallows packets."""
    from huggingface_hub import HfApi

    info = HfApi().dataset_info(dataset, revision=revision, timeout=REACH_SECONDS)
    if info.sha is None:
        raise ConnectionError("the hub did not say which commit this is")
    return About(info.sha, _licence(dict(vars(info.card_data)) if info.card_data else {}))


def _local_licence(folder: Path) -> str:
    from huggingface_hub.repocard import metadata_load

    card = folder / "README.md"
    return _licence((metadata_load(card) if card.is_file() else None) or {})


def _licence(card: dict[str, Any]) -> str:
    licence = card.get("license_name") or card.get("license")
    names = ", ".join(str(name) for name in licence) if isinstance(licence, list) else licence
    return f"licence {names}" if names else "licence not stated on its card"


def _told(error: Exception, name: str) -> GptshakeError:
    """The sentence for an error of the hub's libraries."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return DataError(f"{name} is gated: accept its terms on its page of the hub, then log in with `hf auth login` or set HF_TOKEN.")
    if isinstance(error, RevisionNotFoundError):
        return DataError(f"{name} has no such revision on the hub. Check data.revision, or leave it out for the newest.")
    if isinstance(error, RepositoryNotFoundError):
        return DataError(f"There is no data set {name} on the hub, or it is private: check data.dataset, or log in with `hf auth login`.")
    if isinstance(error, (ValueError, FileNotFoundError)):
        return DataError(f"{name} could not be read as asked: {first_line(error)[:300]}. Check data.dataset and data.config.")
    return _out_of_reach(error, name)


def _out_of_reach(error: Exception, name: str) -> OutOfReach:
    return OutOfReach(
        f"{name} could not be read from the hub ({type(error).__name__}: {first_line(error)[:300]}). Check the network; what was downloaded "
        "is kept, and the same command goes on there."
    )
