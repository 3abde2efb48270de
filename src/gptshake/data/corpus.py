"""The cleaned documents of a source, written once: text in one file, lengths and places in a small table.

Between the source and the token store, so that another tokenizer or another split neither parses nor downloads again.
Folder ``corpora/<key>`` (key: hash of the source's fingerprint): ``text.bin``, the documents one after the other as UTF-8;
``documents.npy``, one row each; ``ids.jsonl``; ``corpus.json``. Memory: one document, and 24 bytes for each.
"""

import json
import mmap
from array import array
from collections.abc import Iterable, Iterator
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any

import numpy as np

from gptshake.data.progress import Progress, Say
from gptshake.data.source.protocol import Document, Source
from gptshake.data.split import Pieces, place
from gptshake.errors import DataError
from gptshake.files import build_once, sha256, sha256_text

FORMAT = 1
_COLUMNS = np.dtype([("end", "<u8"), ("characters", "<u8"), ("place", "<u8")])


class Corpus:
    """A corpus on disk.

    Attributes:
        n_documents: number of documents, none of them empty.
        n_bytes: UTF-8 bytes of all of them.
        characters: their lengths, shape (n_documents,).
        places: from ``split.place``, shape (n_documents,).
    """

    def __init__(self, folder: Path) -> None:
        table = np.load(folder / "documents.npy")
        self.n_documents = len(table)
        self.characters = table["characters"]
        self.places = table["place"]
        self._ends = table["end"]
        self.n_bytes = int(self._ends[-1])
        with (folder / "text.bin").open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def texts(self, pieces: Pieces) -> Iterator[str]:
        """The texts of pieces (rows: document, first character, character after the last), one at a time."""
        for document, first, last in pieces.tolist():
            begin = int(self._ends[document - 1]) if document else 0
            text = self._bytes[begin : int(self._ends[document])].decode("utf-8", "surrogatepass")
            yield text if last - first == len(text) else text[first:last]


def open_corpus(source: Source, cache: Path, say: Say) -> Corpus:
    """The source's documents, read from it only if they are not yet in ``cache`` or were damaged there.

    Raises:
        DataError: if the source has no text.
    """
    fingerprint = source.fingerprint()
    folder = cache / "corpora" / sha256_text(json.dumps([FORMAT, fingerprint], sort_keys=True))[:16]
    if folder.exists():
        reason = _problem(folder)
        if reason is None:
            return Corpus(folder)
        say(f"reading {source.label} again: {reason}")
    build_once(
        folder,
        lambda path: _problem(path) is None,
        lambda path: _write(path, source, fingerprint, say),
        waiting=lambda: say(f"another process is reading {source.label}; waiting for it ..."),
    )
    return Corpus(folder)


def _problem(folder: Path) -> str | None:
    """Why the folder cannot be used; None if it can. Reads all of the text, as a store is built from it right afterwards."""
    try:
        manifest = json.loads((folder / "corpus.json").read_bytes())
        changed = [name for name, digest in manifest["sha256"].items() if sha256(folder / name) != digest]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"its folder is damaged ({type(error).__name__})"
    return f"{changed[0]} was changed" if changed else None


def _write(folder: Path, source: Source, fingerprint: dict[str, Any], say: Say) -> None:
    say(f"the text of {source.label}: {source.licence}")
    rows, empty, digest = _write_text(folder, source.documents(), Progress(say, f"reading {source.label}"))
    some = ", ".join(empty[:3]) + (", ..." if len(empty) > 3 else "")
    if not len(rows):
        raise DataError(f"There is no text in {source.label}" + (f": {some} is empty." if empty else "."))
    if empty:
        say(f"skipped as empty: {len(empty)} of {len(rows) + len(empty)} documents ({some})")
    np.save(folder / "documents.npy", rows)
    digests = {"text.bin": digest, "documents.npy": sha256(folder / "documents.npy")}
    (folder / "corpus.json").write_text(json.dumps({"format": FORMAT, "fingerprint": fingerprint, "sha256": digests}, indent=1))


def _write_text(folder: Path, documents: Iterable[Document], progress: Progress) -> tuple[np.ndarray[Any, Any], list[str], str]:
    """Write text and ids; gives the table of the documents, the ids of empty ones, and the text's SHA-256."""
    columns, empty, digest, end = array("Q"), [], new_sha256(), 0
    with (folder / "text.bin").open("wb") as text, (folder / "ids.jsonl").open("w") as ids:
        for document in documents:
            data = document.text.encode("utf-8", "surrogatepass")
            if not data:
                empty.append(document.id)
                continue
            text.write(data)
            digest.update(data)
            end += len(data)
            columns.extend((end, len(document.text), place(document.id)))
            ids.write(json.dumps(document.id) + "\n")
            progress(end, f"{len(columns) // 3:,} documents")
    return np.array(columns, "<u8").view(_COLUMNS), empty, digest.hexdigest()
