"""The cleaned documents of a source, written once: text in one file, lengths and hashes of ids in a small table.

Between the source and the token store, so that another tokenizer or another split neither parses nor downloads again.
Folder ``corpora/<key>`` (key: hash of the source's fingerprint): ``text.bin``, the documents one after the other as UTF-8;
``documents.npy``, one row each; ``ids.jsonl``; ``corpus.json``. Written in steps of 64 MB or 30 s, each safe on the disk: the files are
flushed, then ``state.json`` says how far they are good and where the source was, so that a build that was killed or cut off resumes
there, to the same bytes. Memory: a megabyte of text, or one document where a tokenizer must see it whole, and 24 bytes a document.
"""

import codecs
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from gptshake.console import Console, visible
from gptshake.data.source.protocol import START, Position, Source
from gptshake.data.split import Spans, id_hash
from gptshake.errors import DataError
from gptshake.estimate.formatting import counted, duration
from gptshake.files import build_once, fsync, sha256, sha256_text, write_atomic

FORMAT = 2
HASHED_BYTES = 64 << 20  # up to this size the SHA-256 is checked at every opening, above on request (0.5 s/GB); sizes always
LONG = 1 << 20  # characters from which a text is cut where it may be
LOOKAHEAD = 4  # characters that a boundary looks at, at most
COLUMNS = np.dtype([("end", "<u8"), ("characters", "<u8"), ("place", "<u8")])
STEP_BYTES, STEP_SECONDS = 64 << 20, 30.0
WARM_S = 2.0  # of a work, whose speed says little: what comes first takes longer
SPARE = (3, 1, 2)  # parts of a line of progress that are left out first if a terminal is narrow
_TEXT, _ROWS, _IDS, _STATE = "text.bin", "documents.bin", "ids.jsonl", "state.json"

Say = Callable[[str], None]


@contextmanager
def progress(say: Say, what: str, total: float | None = None, *, done: int = 0, every: float = 5.0) -> Iterator[Callable[..., None]]:
    """Show how far a work of many megabytes is, how fast, and how long still: one line that renews itself, or by ``say`` every few seconds.

    Gives a function of the bytes done in all (of which ``done`` were by an earlier process), of more text to show, and of a better ``total``.
    """
    console = Console()
    every = 0.2 if console.renews else every
    began = last = time.monotonic()

    def show(now_done: int, more: str = "", better: float | None = None) -> None:
        nonlocal last
        now, guess = time.monotonic(), better or total
        if now - last < every:
            return
        last = now
        speed = (now_done - done) / (now - began)
        digits = 2 if guess and guess < 1e7 else 0
        of = f" of {guess / 1e6:,.{digits}f}" if guess else ""
        left = f"{duration((guess - now_done) / speed)} left" if guess and speed > 0 and now - began >= WARM_S else ""
        parts = (f"  {what}: {now_done / 1e6:,.{digits}f}{of} MB", f"{speed / 1e6:.{1 + digits}f} MB/s", left, more)
        if console.renews:
            console.show(parts, SPARE)
        else:
            say(console.line(parts, SPARE))

    try:
        yield show
    finally:
        console.clear()


class Corpus:
    """A corpus on disk; its arrays have the shape (n_documents,)."""

    def __init__(self, folder: Path) -> None:
        table = np.load(folder / "documents.npy")
        self.n_documents = len(table)  # none of them empty
        self.characters = table["characters"]
        self.hashes = table["place"]  # ``split.id_hash`` of the ids, uint64
        self._ends = table["end"]
        self.n_bytes = int(self._ends[-1])  # as UTF-8
        self._text = folder / _TEXT

    def texts(self, spans: Spans, boundary: re.Pattern[str] | None = None) -> Iterator[tuple[int, str]]:
        """The texts of spans, each with the span's number; a long one is cut after matches of ``boundary`` (None: nowhere)."""
        with self._text.open("rb") as file:  # read, not mapped: what is mapped counts as memory of the process
            for first_row in range(0, len(spans), 1000):  # not all of the rows become lists at once
                for number, (document, first, last) in enumerate(spans[first_row : first_row + 1000].tolist(), first_row):
                    yield from ((number, text) for text in cut_after(self._read(file, document, first, last), boundary))

    def ids(self, spans: Spans) -> list[str]:
        """The ids of the documents of spans, which are in the corpus's order."""
        wanted = set(spans[:, 0].tolist())
        with (self._text.parent / _IDS).open("rb") as lines:
            return [str(json.loads(line)) for number, line in enumerate(lines) if number in wanted]

    def _read(self, file: BinaryIO, document: int, first: int, last: int) -> Iterator[str]:
        """Characters ``first`` to ``last - 1`` of a document, in chunks of at most ``LONG``."""
        begin, end = (int(self._ends[document - 1]) if document else 0), int(self._ends[document])
        passed = first if end - begin == int(self.characters[document]) else 0  # a byte for each character: skip what is before
        file.seek(begin + passed)
        left, decoder = end - begin - passed, codecs.getincrementaldecoder("utf-8")("surrogatepass")
        while left and passed < last:
            data = file.read(min(LONG, left))
            left -= len(data)
            text = decoder.decode(data)
            if found := text[max(0, first - passed) : last - passed]:
                yield found
            passed += len(text)


def cut_after(chunks: Iterator[str], boundary: re.Pattern[str] | None) -> Iterator[str]:
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


def open_corpus(source: Source, cache: Path, say: Say, verify: bool = False) -> Corpus:
    """The source's documents, read from it, and ``say`` called, only if they are not yet in ``cache`` or were damaged there.

    Raises:
        DataError: if the source has no text, or some that cannot be read.
        Unreachable: if it is on a hub that does not answer; what was read is kept, and the next call resumes there.
    """
    fingerprint = source.fingerprint()
    folder = cache / "corpora" / sha256_text(json.dumps([FORMAT, fingerprint], sort_keys=True))[:16]
    if folder.exists() and (reason := _problem(folder, verify)):
        say(f"reading {source.label} again: {reason}")
    build_once(
        folder,
        lambda path: _problem(path, verify) is None,
        lambda path: _write(path, source, fingerprint, say),
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


def _write(folder: Path, source: Source, fingerprint: dict[str, Any], say: Say) -> None:
    """Fill the folder with the source's documents; it is empty, or what an earlier call left when it was stopped."""
    for line in (f"the text of {source.label}: {source.licence}", *source.notes):
        say(line)
    try:
        state = _read_source(folder, source, say)
        if source.fingerprint() != fingerprint:
            raise DataError(f"The text of {source.label} was changed while it was read. Run the same command again.")
        some = ", ".join(visible(name) for name in state.empty) + (", ..." if state.n_empty > 3 else "")
        if not state.written:
            raise DataError(f"There is no text in {source.label}" + (f"; empty: {some}." if state.n_empty else "."))
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)  # there is nothing to resume from
        raise
    if state.n_empty:
        say(f"skipped as empty: {state.n_empty} of {state.written + state.n_empty} documents ({some})")
    table = np.fromfile(folder / _ROWS, COLUMNS)
    if repeated := _number_repeated(folder, table["place"]):
        say(f"{counted(repeated, 'document')} with an id that came before: numbered, as in id#2")
    np.save(folder / "documents.npy", table)
    digests = {_TEXT: state.digest, "documents.npy": sha256(folder / "documents.npy")}
    sizes = {name: (folder / name).stat().st_size for name in digests}
    manifest = {"format": FORMAT, "fingerprint": fingerprint, "sizes": sizes, "sha256": digests}
    (folder / "corpus.json").write_text(json.dumps(manifest, indent=1))
    for name in (_ROWS, _STATE):
        (folder / name).unlink()
    if repeated:
        (folder / f"{_IDS}.new").replace(folder / _IDS)  # after the state is gone, which knows the old file


@dataclass
class _State:
    """How far the files are good."""

    position: Position = START
    written: int = 0  # documents
    n_bytes: int = 0  # of text
    n_empty: int = 0
    empty: list[str] = field(default_factory=list)  # ids of the first three
    sizes: dict[str, int] = field(default_factory=lambda: {_TEXT: 0, _ROWS: 0, _IDS: 0})
    digest: str = new_sha256().hexdigest()  # of the text


def _read_source(folder: Path, source: Source, say: Say) -> _State:
    """Write what the source has after the documents that a stopped process left; what that wrote after its last step is cut off."""
    state, digest = _kept(folder, source.label, say)
    for file in folder.iterdir():
        if file.name not in (*state.sizes, _STATE):
            file.unlink()  # half of a state, or what is made at the end
    for name, size in state.sizes.items():
        with (folder / name).open("ab") as stream:
            stream.truncate(size)

    with (
        progress(say, f"reading {source.label}", done=state.n_bytes) as show,
        (folder / _TEXT).open("ab") as text,
        (folder / _ROWS).open("ab") as rows,
        (folder / _IDS).open("ab") as ids,
    ):

        def save() -> None:
            for file in (text, rows, ids):
                file.flush()
                os.fsync(file.fileno())
                state.sizes[Path(file.name).name] = file.tell()
            state.digest = digest.hexdigest()
            fsync(folder)
            write_atomic(folder / _STATE, json.dumps(asdict(state)))

        saved_bytes, saved_at = state.n_bytes, time.monotonic()
        size = characters = 0  # of the document's text so far
        for document in source.documents(state.position):
            data = document.text.encode("utf-8", "surrogatepass")
            text.write(data)
            digest.update(data)
            size, characters = size + len(data), characters + len(document.text)
            read = state.n_bytes + size
            show(read, counted(state.written, "document"), read / document.share if document.share else None)
            if document.more:
                continue
            part, inside, documents, n_bytes = state.position
            if document.part != part:
                inside, documents, n_bytes = 0, state.written + state.n_empty, state.n_bytes
            state.position = Position(document.part, inside + 1, documents, n_bytes)
            state.n_bytes = read
            if size:
                state.written += 1
                rows.write(np.array([state.n_bytes, characters, id_hash(document.id)], "<u8").tobytes())
                ids.write(json.dumps(document.id).encode() + b"\n")
            else:
                state.n_empty += 1
                state.empty = [*state.empty, document.id][:3]
            size = characters = 0
            if state.n_bytes - saved_bytes >= STEP_BYTES or time.monotonic() - saved_at >= STEP_SECONDS:
                save()
                saved_bytes, saved_at = state.n_bytes, time.monotonic()
        save()
    return state


def _kept(folder: Path, label: str, say: Say) -> tuple[_State, Any]:
    """The state that an earlier process left, if the text has the hash that it names, and that hash to continue; else the beginning."""
    try:
        saved = json.loads((folder / _STATE).read_bytes())
        state = _State(**saved | {"position": Position(*saved["position"])})
        digest, left = new_sha256(), state.sizes[_TEXT]
        with (folder / _TEXT).open("rb") as stream:
            while left > 0 and (data := stream.read(min(left, 1 << 20))):
                digest.update(data)
                left -= len(data)
        good = all((folder / name).stat().st_size >= size for name, size in state.sizes.items())
        if good and digest.hexdigest() == state.digest:
            say(f"resuming {label} after {counted(state.written, 'document')}")
            return state, digest
        say(f"reading {label} from the start: the partial corpus of a stopped process was changed")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        say(f"reading {label} from the start: the partial corpus of a stopped process is damaged ({type(error).__name__})")
    return _State(), new_sha256()


def _number_repeated(folder: Path, hashes: npt.NDArray[np.uint64]) -> int:
    """Give a document whose id was that of an earlier one an id of its own, ``id#2`` and so on: else all of them would be in one split.

    Ids are compared by their hashes, which are changed in place; new ids are in ``ids.jsonl.new``. Returns how many there are.
    """
    order = np.argsort(hashes, kind="stable")
    known = hashes[order]
    first = np.flatnonzero(np.append(True, known[1:] != known[:-1]))  # of each run of equal ones
    if len(first) == len(hashes):
        return 0
    earlier = np.empty(len(hashes), np.int64)  # documents with the same id before each
    earlier[order] = np.arange(len(hashes)) - np.repeat(first, np.diff(np.append(first, len(hashes))))
    with (folder / _IDS).open("rb") as lines, (folder / f"{_IDS}.new").open("wb") as file:
        for row, (line, before) in enumerate(zip(lines, earlier, strict=True)):
            if before:
                id, number = json.loads(line), int(before) + 1
                while known[np.searchsorted(known, new := np.uint64(id_hash(f"{id}#{number}"))) % len(known)] == new:
                    number += len(hashes)  # there is such an id already
                hashes[row], line = new, json.dumps(f"{id}#{number}").encode() + b"\n"
            file.write(line)
    return len(hashes) - len(first)
