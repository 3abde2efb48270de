"""The cleaned documents of a source, written once: text in one file, lengths and places in a small table.

Between the source and the token store, so that another tokenizer or another split neither parses nor downloads again.
Folder ``corpora/<key>`` (key: hash of the source's fingerprint): ``text.bin``, the documents one after the other as UTF-8;
``documents.npy``, one row each; ``ids.jsonl``; ``corpus.json``. Memory: a megabyte of text, or one document where a tokenizer
must see it whole, and 24 bytes for each document. When it is opened its sizes are checked, and its SHA-256 up to 64 MB or on request.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from gptshake.data.corpus_writer import write_corpus
from gptshake.data.progress import Say
from gptshake.data.source.protocol import Source
from gptshake.data.split import Pieces
from gptshake.files import build_once, sha256, sha256_text

FORMAT = 2
HASHED_BYTES = 64 << 20
LONG = 1 << 20  # characters from which a text is cut where it may be
LOOKAHEAD = 4  # characters that a boundary looks at, at most


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
        self._text = folder / "text.bin"

    def texts(self, pieces: Pieces, boundary: re.Pattern[str] | None = None) -> Iterator[str]:
        """The texts of pieces as ``parts`` gives them, without their numbers."""
        return (text for _, text in self.parts(pieces, boundary))

    def parts(self, pieces: Pieces, boundary: re.Pattern[str] | None = None) -> Iterator[tuple[int, str]]:
        """The texts of pieces, each with the piece's number; a long one in parts, so that memory holds about ``LONG`` characters.

        Args:
            pieces: rows of document, first character, character after the last.
            boundary: after its matches a text may be cut; None: nowhere, each piece is one text.
        """
        with self._text.open("rb") as file:  # read, not mapped: what is mapped counts as memory of the process
            for first_row in range(0, len(pieces), 1000):  # not all of the rows are made lists at once
                for number, (document, first, last) in enumerate(pieces[first_row : first_row + 1000].tolist(), first_row):
                    yield from ((number, text) for text in cut(self._read(file, document, first, last), boundary))

    def _read(self, file: BinaryIO, document: int, first: int, last: int) -> Iterator[str]:
        """Characters ``first`` to ``last - 1`` of a document, in chunks of at most ``LONG``."""
        begin, end = (int(self._ends[document - 1]) if document else 0), int(self._ends[document])
        passed = 0
        if end - begin == int(self.characters[document]):  # a byte for each character: no need to read what is before
            passed = first
        file.seek(begin + passed)
        left, rest = end - begin - passed, b""
        while left and passed < last:
            data = rest + file.read(min(LONG, left))
            left -= len(data) - len(rest)
            whole = len(data) if not left else _whole(data)
            text, rest = data[:whole].decode("utf-8", "surrogatepass"), data[whole:]
            if wanted := text[max(0, first - passed) : last - passed]:
                yield wanted
            passed += len(text)


def cut(chunks: Iterator[str], boundary: re.Pattern[str] | None) -> Iterator[str]:
    """A text that comes in chunks, as texts of at least ``LONG`` characters that end after a match of ``boundary``; None: as one text."""
    if boundary is None:
        yield "".join(chunks)
        return
    held, searched = "", LONG
    for chunk in chunks:
        held += chunk
        while len(held) > searched and (found := boundary.search(held, searched)):
            yield held[: found.end()]
            held, searched = held[found.end() :], LONG
        searched = max(LONG, len(held) - LOOKAHEAD)
    yield held


def _whole(data: bytes) -> int:
    """How many of these bytes of UTF-8 come before the last character, which may be cut."""
    last = len(data) - 1
    while last > 0 and data[last] & 0xC0 == 0x80:
        last -= 1
    return last


def open_corpus(source: Source, cache: Path, say: Say, verify: bool = False) -> Corpus:
    """The source's documents, read from it only if they are not yet in ``cache`` or were damaged there.

    Args:
        source: where the documents come from.
        cache: folder of all stores and corpora.
        say: prints a line; called while reading the source, never for a corpus that is there.
        verify: whether to check the SHA-256 of a large corpus too (0.5 s/GB).
    Raises:
        DataError: if the source has no text, or some that cannot be read.
        OutOfReach: if it is on a hub that does not answer; what was read is kept, and the next call goes on there.
    """
    fingerprint = source.fingerprint()
    folder = cache / "corpora" / sha256_text(json.dumps([FORMAT, fingerprint], sort_keys=True))[:16]
    if folder.exists():
        reason = _problem(folder, verify)
        if reason is None:
            return Corpus(folder)
        say(f"reading {source.label} again: {reason}")
    build_once(
        folder,
        lambda path: _problem(path, verify) is None,
        lambda path: write_corpus(path, source, fingerprint, FORMAT, say),
        waiting=lambda: say(f"another process is reading {source.label}; waiting for it ..."),
        resumes=True,
    )
    return Corpus(folder)


def _problem(folder: Path, verify: bool) -> str | None:
    """Why the folder cannot be used; None if it can."""
    try:
        manifest = json.loads((folder / "corpus.json").read_bytes())
        sizes = {name: (folder / name).stat().st_size for name in manifest["sha256"]}
        for name, size in sizes.items():
            if size != manifest["sizes"][name]:
                return f"{name} has {size:,} bytes instead of {manifest['sizes'][name]:,}"
        hashed = sizes if verify or sum(sizes.values()) <= HASHED_BYTES else {}
        changed = [name for name in hashed if sha256(folder / name) != manifest["sha256"][name]]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        return f"its folder is damaged ({type(error).__name__})"
    return f"{changed[0]} was changed" if changed else None
