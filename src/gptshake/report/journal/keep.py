"""One file, two authors: generated blocks between marks, and people's prose, which comes through byte for byte.

A block stands where people moved it. One that they deleted stays away, for the ids of all that were ever written are kept in a
comment at the end; one that they edited inside is theirs from then on, told by a sum in its first mark. Boxes are the exception:
they may be ticked anywhere. A new entry comes before the first block that is older. Marks that do not pair are refused.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from gptshake.errors import RecordError
from gptshake.files import sha256_text
from gptshake.report.journal.boxes import Box, box_line, boxes, listed, to_do
from gptshake.report.journal.escape import MARK

TO_DO, BROKEN = "~todo", "~broken"  # no id of an entry has a tilde
_MARK = re.compile(rf"^{MARK}[^\n]*$", re.MULTILINE)
_OPEN = re.compile(r"<!-- gptshake:begin (\S+)(?: (\d+))?(?: ([0-9a-f]{8}))? -->\r?")
_CLOSE = re.compile(r"<!-- gptshake:end (\S+) -->\r?")
_KNOWN = re.compile(r"<!-- gptshake:known\r?\n((?:[\w.-]+\r?\n)*)-->\r?$\n?", re.MULTILINE)
_TICK = re.compile(r"^- \[[ xX]\] ", re.MULTILINE)
START = """# Journal

<!-- gptshake task=journal writes the blocks between its marks anew. Write above, below and between them; tick boxes anywhere. -->

"""


@dataclass(frozen=True)
class Block:
    """A generated piece of the file."""

    id: str
    body: str  # Markdown without its marks, without blank lines at its ends
    started: int = 0  # seconds since 1970; the order in which blocks come
    seal: str = ""  # sum of the body that was generated, as its mark says

    @property
    def edited(self) -> bool:
        """Whether people changed it inside."""
        return self.seal not in ("", _sum(self.body))

    @property
    def is_entry(self) -> bool:
        """Whether it tells of an experiment; else it is one of the two lists."""
        return not self.id.startswith("~")

    def __str__(self) -> str:
        words = f" {self.started} {self.seal or _sum(self.body)}" if self.is_entry else ""
        return f"<!-- gptshake:begin {self.id}{words} -->\n\n{self.body}\n\n<!-- gptshake:end {self.id} -->\n"


@dataclass(frozen=True)
class Kept:
    """A journal brought up to date."""

    text: str
    added: list[str]  # ids of entries
    changed: list[str]
    edited: list[str]  # left as people edited them


class Page:
    """A journal's file as pieces in order: prose as text, blocks as ``Block``.

    Args:
        text: the file; empty for a new one.
        name: of the file, for errors.
    Raises:
        RecordError: a mark lacks its partner, is damaged, or comes twice; names the line.
    """

    def __init__(self, text: str, name: str = "JOURNAL.md") -> None:
        self._newline = "\r\n" if 0 < text.count("\n") == text.count("\r\n") else "\n"
        self.known: set[str] = set()
        self.pieces: list[str | Block] = []
        for piece in _pieces(text.replace(self._newline, "\n") or START, name):
            if isinstance(piece, set):
                self.known |= piece
            else:
                self.pieces.append(piece)
        self.blocks = {piece.id: piece for piece in self.pieces if isinstance(piece, Block)}

    def wants(self, id: str) -> bool:
        """Whether an entry is to be written: not where people deleted it, or made it theirs."""
        return not self.blocks[id].edited if id in self.blocks else id not in self.known

    def merged(self, fresh: Iterable[Block], broken: str) -> Kept:
        """The file with these entries in it.

        Args:
            fresh: entries as they are now, in any order; those that are in the file alone stay as they are.
            broken: Markdown about records that cannot be read; empty if there are none.
        """
        entries = {block.id: block for block in fresh}
        done, own = self._ticked()
        pieces: list[str | Block] = []
        for piece in self.pieces:
            pieces.append(piece if isinstance(piece, str) or piece.edited else _ticked(entries.get(piece.id, piece), done))
        added = sorted(entries.keys() - self.blocks.keys() - self.known, key=lambda id: (entries[id].started, id))
        for id in added:
            _insert(pieces, entries[id])
        if broken or BROKEN in self.blocks:
            _place(pieces, Block(BROKEN, broken or "All records can be read."), _after_entries(pieces))
        found = list(_boxes(pieces))
        if own or TO_DO in self.blocks or any(not box.ticked and box.owner for box in found):
            _place(pieces, Block(TO_DO, to_do(found, done, own)), _first_entry(pieces))
        written = {piece.id: piece for piece in pieces if isinstance(piece, Block)}
        changed = [id for id, block in self.blocks.items() if id in entries and written[id].body != block.body]
        edited = [id for id, block in self.blocks.items() if block.edited]
        known = self.known | {id for id, block in written.items() if block.is_entry}
        return Kept(self._text(pieces, known), added, changed, edited)

    def _ticked(self) -> tuple[set[tuple[str, str]], list[str]]:
        """Owner and text of every box that is ticked in an entry or in the list, and what people wrote into the list."""
        carried, own = listed(self.blocks[TO_DO].body) if TO_DO in self.blocks else ([], [])
        inside = [box for id, block in self.blocks.items() for box in boxes(block.body, id) if block.is_entry]
        return {(box.owner, box.text) for box in [*carried, *inside] if box.ticked}, own

    def _text(self, pieces: Iterable[str | Block], known: set[str]) -> str:
        text = "".join(map(str, pieces))
        if known:
            text += "\n".join(["<!-- gptshake:known", *sorted(known), "-->", ""])
        return text.replace("\n", self._newline)


def _pieces(text: str, name: str) -> Iterator[str | Block | set[str]]:
    """Prose, blocks and the ids that are known, in order."""
    marks, at, seen = iter(_MARK.finditer(text)), 0, set[str]()

    def refusal(mark: re.Match[str], why: str) -> RecordError:
        line = text.count("\n", 0, mark.start()) + 1
        return RecordError(f"{name}, line {line}: {why}. Nothing was written; mend the mark, or delete its block from mark to mark.")

    for mark in marks:
        if prose := text[at : mark.start()]:
            yield prose
        known, begun = _KNOWN.match(text, mark.start()), _OPEN.fullmatch(mark[0])
        if known:
            yield set(known[1].split())
            at = known.end()
            continue
        if begun is None:
            raise refusal(mark, f"{mark[0].strip()} {'ends a block that has not begun' if _CLOSE.fullmatch(mark[0]) else 'is damaged'}")
        end = next(marks, None)
        closed = _CLOSE.fullmatch(end[0]) if end else None
        if end is None or closed is None or closed[1] != begun[1]:
            raise refusal(mark, f"the block {begun[1]} that begins here has no end" + (f" before {end[0].strip()}" if end else ""))
        if begun[1] in seen:
            raise refusal(mark, f"the block {begun[1]} comes a second time")
        seen.add(begun[1])
        body = text[mark.end() : end.start()].replace("\r\n", "\n").strip("\n")
        yield Block(begun[1], body, int(begun[2] or 0), begun[3] or "")
        at = min(end.end() + 1, len(text))
    if prose := text[at:]:
        yield prose if prose.endswith("\n") else prose + "\n"


def _sum(body: str) -> str:
    """Tells whether people edited a block; ticks are no edits."""
    return sha256_text(_TICK.sub("- [ ] ", body))[:8]


def _ticked(block: Block, done: set[tuple[str, str]]) -> Block:
    """The block with those of its boxes ticked that people have ticked."""
    if not block.is_entry:
        return block
    ticks = {box_line(box.text, False): box_line(box.text, True) for box in boxes(block.body, block.id) if (box.owner, box.text) in done}
    return replace(block, body="\n".join(ticks.get(line, line) for line in block.body.split("\n"))) if ticks else block


def _boxes(pieces: Iterable[str | Block]) -> Iterator[Box]:
    """All boxes but those of the list; prose belongs to the entry above it."""
    owner = ""
    for piece in pieces:
        if isinstance(piece, str):
            yield from boxes(piece, owner)
        elif piece.is_entry:
            owner = piece.id
            yield from boxes(piece.body, owner)


def _insert(pieces: list[str | Block], block: Block) -> None:
    """Put an entry before the first older one, or after all entries."""
    older = (n for n, piece in enumerate(pieces) if isinstance(piece, Block) and piece.is_entry and piece.started < block.started)
    _put(pieces, next(older, _after_entries(pieces)), block)


def _first_entry(pieces: list[str | Block]) -> int:
    return next((n for n, piece in enumerate(pieces) if isinstance(piece, Block)), len(pieces))


def _after_entries(pieces: list[str | Block]) -> int:
    """Behind the last entry and the prose below it."""
    return next((n for n, piece in enumerate(pieces) if isinstance(piece, Block) and piece.id == BROKEN), len(pieces))


def _place(pieces: list[str | Block], block: Block, where: int) -> None:
    """Put one of our two lists into its place: where it is already, else ``where``."""
    at = next((n for n, piece in enumerate(pieces) if isinstance(piece, Block) and piece.id == block.id), None)
    if at is None:
        _put(pieces, where, block)
    else:
        pieces[at] = block


def _put(pieces: list[str | Block], at: int, block: Block) -> None:
    """A block with a blank line around it."""
    before = pieces[at - 1] if at else ""
    if isinstance(before, Block) or (before and not before.endswith("\n\n") and before != "\n"):
        pieces.insert(at, "\n")
        at += 1
    pieces[at:at] = [block, "\n"]
