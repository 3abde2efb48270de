"""JOURNAL.md brought up to date with all runs: generated blocks between markers, and people's prose, which comes through byte for byte.

A block stays where people moved it, and one that they deleted stays away, for the ids of all that were ever written are in a comment at
the end. Earlier versions sealed their blocks: what people edited in one of those, and their list of to-dos, becomes prose.
"""

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gptshake.errors import RecordError
from gptshake.files import sha256_text, write_atomic
from gptshake.markdown import code, prose
from gptshake.record.index import read_index
from gptshake.report.journal_text import MARKER, History, Section, entry, find_experiments
from gptshake.report.loss_svg import loss_svg
from gptshake.report.study_stats import Json, learning_curves

UNEXPECTED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError)  # of a record that was changed by hand
DRAWN_AS = 4  # raise it when the pictures shall look otherwise
LARGEST_PICTURE = 1 << 22  # bytes of a finder's picture that is copied
BROKEN, OLD_TO_DO = "~broken", "~todo"  # no id of an entry has a tilde
_BEGIN = r"<!-- gptshake:begin (?P<id>\S+?)(?: (?P<started>\d+))?(?: (?P<seal>[0-9a-f]{8}))?(?:; [^\n]*)? -->\r?"
_BLOCK = rf"{_BEGIN}\n(?P<body>(?:(?!{MARKER})[^\n]*\n)*)<!-- gptshake:end (?P=id) -->\r?"
_KNOWN = r"<!-- gptshake:known\r?\n(?P<known>(?:[\w.-]+\r?\n)*)-->\r?"
_PART = re.compile(rf"^(?:{_BLOCK}|{_KNOWN}|(?P<stray>{MARKER}[^\n]*))$\n", re.MULTILINE)
START = """# Journal

<!-- gptshake task=journal overwrites the blocks between its markers. Write above, below and between them. -->

"""


@dataclass(frozen=True)
class Block:
    """A generated piece of the file."""

    id: str
    body: str  # Markdown without its markers, without blank lines at its ends
    started: int = 0  # seconds since 1970; the order in which blocks come

    def __str__(self) -> str:
        about = f"{self.id}{'' if self.id == BROKEN else f' {self.started}'}; task=journal overwrites this block, so write outside of it"
        return f"<!-- gptshake:begin {about} -->\n\n{self.body}\n\n<!-- gptshake:end {self.id} -->\n"


@dataclass(frozen=True)
class Written:
    """What was done."""

    text: str
    added: list[str]  # ids of entries
    changed: list[str]
    entries: int  # in the file now
    drawn: int = 0  # pictures
    problems: int = 0  # records that cannot be read
    left_out: int = 0  # debug= runs


class Page:
    """A journal's file: prose and blocks in order; a marker that lacks its partner, is damaged, or comes twice is refused with its line."""

    def __init__(self, text: str, name: str = "JOURNAL.md") -> None:
        self._newline = "\r\n" if 0 < text.count("\n") == text.count("\r\n") else "\n"
        self._pieces, self._known, self.blocks, end = list[str | Block](), set[str](), dict[str, Block](), 0
        text = (text.replace(self._newline, "\n") or START).removesuffix("\n") + "\n"

        def damaged(why: str) -> RecordError:
            line = text.count("\n", 0, part.start()) + 1
            return RecordError(f"{name}, line {line}: {why}. Nothing was written; mend the mark, or delete its block from mark to mark.")

        for part in _PART.finditer(text):
            self._pieces.append(text[end : part.start()])
            id, end = part["id"], part.end()
            if part["known"] is not None:
                self._known |= set(part["known"].split())
            elif stray := part["stray"]:
                begun, unknown = re.fullmatch(_BEGIN, stray), f"{stray.strip()} is damaged, or ends a block that has not begun"
                raise damaged(f"the block {begun['id']} that begins here has no end" if begun else unknown)
            elif id in self.blocks:
                raise damaged(f"the block {id} comes a second time")
            else:
                seal, body = part["seal"], part["body"].replace("\r\n", "\n").strip("\n")
                self._known |= {id} - {OLD_TO_DO, BROKEN}
                if id == OLD_TO_DO or (seal and sha256_text(body)[:8] != seal):
                    self._pieces.append(f"{body}\n")  # people's own
                else:
                    self.blocks[id] = Block(id, body, int(part["started"] or 0))
                    self._pieces.append(self.blocks[id])
        self._pieces = list(filter(None, [*self._pieces, text[end:]]))

    def wants(self, id: str) -> bool:
        """Whether an entry is to be written: not where people deleted it."""
        return id in self.blocks or id not in self._known

    def merged(self, fresh: Sequence[Block], broken: str) -> Written:
        """The file with these entries in it, each new one before the first older one; those that are in the file alone stay as they are.

        ``broken`` is Markdown about records that cannot be read; empty if there are none.
        """
        new = {block.id: block for block in fresh if self.wants(block.id)}
        if broken or BROKEN in self.blocks:
            new[BROKEN] = Block(BROKEN, broken or "All records can be read.")
        pieces = [piece if isinstance(piece, str) else new.get(piece.id, piece) for piece in self._pieces]
        added = sorted((block for id, block in new.items() if id not in self.blocks), key=lambda block: (block.started, block.id))
        for block in added:
            older = (n for n, piece in enumerate(pieces) if isinstance(piece, Block) and piece.started < block.started)
            at = next(older, len(pieces))
            before = pieces[at - 1] if at else "\n"
            blank = isinstance(before, Block) or not (before == "\n" or before.endswith("\n\n"))
            pieces[at:at] = ["\n", block, "\n"] if blank else [block, "\n"]
        entries = {piece.id: piece for piece in pieces if isinstance(piece, Block) and piece.id != BROKEN}
        known = sorted(self._known | entries.keys())
        text = "".join(map(str, [*pieces, *(["<!-- gptshake:known\n", *(f"{id}\n" for id in known), "-->\n"] if known else [])]))
        changed = [id for id, block in self.blocks.items() if id in entries and entries[id].body != block.body]
        return Written(text.replace("\n", self._newline), [block.id for block in added if block.id != BROKEN], changed, len(entries))


def write_journal(file: Path, drawings: Path, runs: Path, multirun: Path) -> Written:
    """Write every run and sweep that there is into the journal, and its pictures into ``drawings``.

    Raises:
        RecordError: the file holds damaged markers, or is no UTF-8 text or regular file; it is left as it is.
    """
    page = Page(before := _content(file), file.name)
    experiments, problems, left_out = find_experiments(read_index([runs, multirun]), multirun)
    history, fresh, drawn = History(), list[Block](), 0
    for one in experiments:
        try:
            section = history.section(one)
            if page.wants(one.id):
                shown, new = _pictures(section, drawings)
                fresh.append(Block(one.id, entry(section, shown, file.parent), int(one.started)))
                drawn += new
        except UNEXPECTED as error:
            problems.append((one.folder, f"its record holds what no run writes ({type(error).__name__}: {error})."))
    listed = [f"- {code(os.path.relpath(path, file.parent))}: {prose(why)}" for path, why in problems]
    done = page.merged(fresh, "\n".join(["## Records that cannot be read", "", *listed]) if listed else "")
    if (fresh or problems or page.blocks) and done.text != before:
        target = file.resolve()  # a link stays a link
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, done.text)
    return replace(done, drawn=drawn, problems=len(problems), left_out=left_out)


def _content(file: Path) -> str:
    """The journal so far; empty if there is none."""
    if file.exists() and not file.is_file():
        raise RecordError(f"{file} is not a regular file. Name another with task.file=.")
    try:
        return file.read_bytes().decode() if file.exists() else ""
    except UnicodeDecodeError as error:
        raise RecordError(f"{file.name} is not UTF-8 text (byte {error.start:,}). Nothing was written; save it as UTF-8.") from error


def _pictures(section: Section, folder: Path) -> tuple[list[tuple[str, Path]], int]:
    """What each picture of a section shows and where it lies, and how many were written now: those that were missing or have changed.

    What a finder drew itself is copied. Other pictures carry the key of what they show in their last line: a torn one is drawn anew.
    """
    one, metrics, found = section.experiment, section.experiment.main.path / "metrics.csv", list[tuple[str, Path, bytes]]()
    if one.study is None and one.main.info.get("task", "train") != "train":
        for drawing in sorted((one.folder / "plots").glob("*.svg")):
            if drawing.is_file() and not drawing.is_symlink() and drawing.stat().st_size <= LARGEST_PICTURE:
                found.append((drawing.stem.replace("_", " "), folder / f"{one.id}-{drawing.name}", drawing.read_bytes()))
    else:
        path, what = folder / f"{one.id}.svg", f"{section.title}: {'what the sweep found' if one.study else 'loss and learning rate'}"
        of_run = [one.main.id, one.main.info.get("finished"), metrics.stat().st_size if metrics.exists() else 0]
        key = sha256_text(f"{DRAWN_AS} {json.dumps(one.study, sort_keys=True) if one.study else of_run}")[:16]
        end, content = f"<!-- {key} -->\n", path.read_bytes() if path.is_file() else b""
        if not content.endswith(end.encode()):
            svg = _study_svg(one.study, one.folder) if one.study else loss_svg(one.main.info, one.main.columns)
            content = f"{svg}{end}".encode() if svg else b""
        found = [(what, path, content)] if content else []
    drawn = [(path, content) for _, path, content in found if not path.is_file() or path.read_bytes() != content]
    for path, content in drawn:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, content)
    return [(what, path) for what, path, _ in found], len(drawn)


def _study_svg(study: Json, folder: Path) -> str:
    """The near-optimal interval or the comparison; where there is neither, the learning curves."""
    from gptshake.report.figure import small_svg  # brings matplotlib, of which most calls need nothing
    from gptshake.report.plots_study import ablate_figure, curves_figure, fit_figure

    found = ablate_figure if study.get("ablate") else fit_figure
    return small_svg(lambda: found(study) or curves_figure(study, learning_curves(study, folder)))
