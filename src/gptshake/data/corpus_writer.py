"""Writes a corpus in steps, each safe on the disk, so that a build that was killed or cut off goes on where it was.

Takes a source and the folder that an earlier process may have begun; fills it as ``corpus.py`` describes. Every 64 MB or 30 s
the files are flushed, then ``state.json`` says how far they are good and where the source was; what a killed process wrote
after that is cut off again. The text that is kept is checked against its hash first, and hashing it also gives the hash to go
on with, so the result is the same bytes as without a stop.
"""

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from hashlib import sha256 as new_sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.console import visible
from gptshake.data.progress import Progress, Say
from gptshake.data.source.protocol import START, Document, Position, Source
from gptshake.data.split import place
from gptshake.errors import DataError
from gptshake.estimate.words import counted
from gptshake.files import fsync, sha256, write_atomic

COLUMNS = np.dtype([("end", "<u8"), ("characters", "<u8"), ("place", "<u8")])
STEP_BYTES, STEP_SECONDS = 64 << 20, 30.0
_TEXT, _ROWS, _IDS, _STATE = "text.bin", "documents.bin", "ids.jsonl", "state.json"


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

    def take(self, document: Document, size: int) -> None:
        """Count one more document."""
        part, inside, documents, n_bytes = self.position
        if document.part != part:
            part, inside, documents, n_bytes = document.part, 0, self.written + self.n_empty, self.n_bytes
        self.position = Position(part, inside + 1, documents, n_bytes)
        self.written += size > 0
        self.n_empty += size == 0
        self.n_bytes += size
        if not size and len(self.empty) < 3:
            self.empty.append(document.id)


def write_corpus(folder: Path, source: Source, fingerprint: dict[str, Any], format: int, say: Say) -> None:
    """Fill the folder with the source's documents; it is empty, or what an earlier call left when it was stopped.

    Raises:
        DataError: if the source has no text, or has text that cannot be read; nothing is left for the next time then.
    """
    for line in (f"the text of {source.label}: {source.licence}", *source.notes):
        say(line)
    try:
        state = _Writer(folder, source.label, say).write(source)
        if source.fingerprint() != fingerprint:
            raise DataError(f"The text of {source.label} was changed while it was read. Run the same command again.")
        _say_empty(state, source.label, say)
    except DataError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    table = np.fromfile(folder / _ROWS, COLUMNS)
    if repeated := _numbered(folder, table["place"]):
        say(f"{counted(repeated, 'document')} with an id that came before: numbered, as in id#2")
    np.save(folder / "documents.npy", table)
    digests = {_TEXT: state.digest, "documents.npy": sha256(folder / "documents.npy")}
    sizes = {name: (folder / name).stat().st_size for name in digests}
    manifest = {"format": format, "fingerprint": fingerprint, "sizes": sizes, "sha256": digests}
    (folder / "corpus.json").write_text(json.dumps(manifest, indent=1))
    for name in (_ROWS, _STATE):
        (folder / name).unlink()
    if repeated:
        (folder / f"{_IDS}.new").replace(folder / _IDS)  # after the state is gone, which knows the old file


class _Writer:
    """The files of a corpus at work, and the state they are in."""

    def __init__(self, folder: Path, label: str, say: Say) -> None:
        self._folder, self._label, self._say = folder, label, say
        self._state, self._digest = self._kept()
        for file in folder.iterdir():
            if file.name not in (*self._state.sizes, _STATE):
                file.unlink()  # half of a state, or what is made at the end
        for name, size in self._state.sizes.items():
            with (folder / name).open("ab") as stream:
                stream.truncate(size)

    def write(self, source: Source) -> _State:
        """Append what the source has after the state's position; gives the final state."""
        state = self._state
        saved_bytes, saved_at = state.n_bytes, time.monotonic()
        with (
            Progress(self._say, f"reading {self._label}", done=state.n_bytes) as progress,
            (self._folder / _TEXT).open("ab") as text,
            (self._folder / _ROWS).open("ab") as rows,
            (self._folder / _IDS).open("ab") as ids,
        ):
            size = characters = 0  # of the document's text so far
            for document in source.documents(state.position):
                data = document.text.encode("utf-8", "surrogatepass")
                text.write(data)
                self._digest.update(data)
                size, characters = size + len(data), characters + len(document.text)
                read = state.n_bytes + size
                progress(read, counted(state.written, "document"), read / document.share if document.share else None)
                if document.more:
                    continue
                state.take(document, size)
                if size:
                    rows.write(np.array([state.n_bytes, characters, place(document.id)], "<u8").tobytes())
                    ids.write(json.dumps(document.id).encode() + b"\n")
                size = characters = 0
                if state.n_bytes - saved_bytes >= STEP_BYTES or time.monotonic() - saved_at >= STEP_SECONDS:
                    self._save(text, rows, ids)
                    saved_bytes, saved_at = state.n_bytes, time.monotonic()
            self._save(text, rows, ids)
        return state

    def _save(self, *files: Any) -> None:
        for file in files:
            file.flush()
            os.fsync(file.fileno())
            self._state.sizes[Path(file.name).name] = file.tell()
        self._state.digest = self._digest.hexdigest()
        fsync(self._folder)
        write_atomic(self._folder / _STATE, json.dumps(asdict(self._state)))

    def _kept(self) -> tuple[_State, Any]:
        """The state that an earlier process left, and the hash of its text; the beginning if there is none to be trusted."""
        try:
            saved = json.loads((self._folder / _STATE).read_bytes())
            state = _State(**saved | {"position": Position(*saved["position"])})
            digest = _hash_of_first(self._folder / _TEXT, state.sizes[_TEXT])
            good = all((self._folder / name).stat().st_size >= size for name, size in state.sizes.items())
            if good and digest.hexdigest() == state.digest:
                self._say(f"resuming {self._label} after {counted(state.written, 'document')}")
                return state, digest
            self._say(f"reading {self._label} from the start: what a stopped process left of it was changed")
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            self._say(f"reading {self._label} from the start: what a stopped process left of it is damaged ({type(error).__name__})")
        return _State(), new_sha256()


def _numbered(folder: Path, places: npt.NDArray[np.uint64]) -> int:
    """Give a document whose id was that of an earlier one an id of its own, ``id#2`` and so on: else all of them would be in one split.

    Ids are compared by their places, which are hashes of them: memory is some 8-byte numbers for each document, no ids.

    Args:
        folder: ``ids.jsonl`` is read, and if an id occurs twice ``ids.jsonl.new`` written.
        places: of all documents, shape (n_documents,); changed in place.
    Returns:
        How many have a new id.
    """
    order = np.argsort(places, kind="stable")
    known = places[order]
    first = np.flatnonzero(np.append(True, known[1:] != known[:-1]))  # of each run of equal ones
    if len(first) == len(places):
        return 0
    earlier = np.empty(len(places), np.int64)  # documents with the same id before each
    earlier[order] = np.arange(len(places)) - np.repeat(first, np.diff(np.append(first, len(places))))
    with (folder / _IDS).open("rb") as lines, (folder / f"{_IDS}.new").open("wb") as file:
        for row, (line, before) in enumerate(zip(lines, earlier, strict=True)):
            if before:
                id, number = json.loads(line), int(before) + 1
                while known[np.searchsorted(known, where := np.uint64(place(f"{id}#{number}"))) % len(known)] == where:
                    number += len(places)  # there is such an id already
                places[row], line = where, json.dumps(f"{id}#{number}").encode() + b"\n"
            file.write(line)
    return len(places) - len(first)


def _hash_of_first(file: Path, size: int) -> Any:
    digest = new_sha256()
    with file.open("rb") as stream:
        while size > 0 and (data := stream.read(min(size, 1 << 20))):
            digest.update(data)
            size -= len(data)
    return digest


def _say_empty(state: _State, label: str, say: Say) -> None:
    some = ", ".join(visible(name) for name in state.empty) + (", ..." if state.n_empty > 3 else "")
    if not state.written:
        raise DataError(f"There is no text in {label}" + (f": {some} is empty." if state.n_empty else "."))
    if state.n_empty:
        say(f"skipped as empty: {state.n_empty} of {state.written + state.n_empty} documents ({some})")
