"""JOURNAL.md brought up to date with all runs: the way from records to the file, without whose say nothing in it changes."""

from dataclasses import dataclass
from pathlib import Path

from gptshake.errors import RecordError
from gptshake.files import write_atomic
from gptshake.record.catalogue import catalogue
from gptshake.report.journal.chapter import UNEXPECTED, chapters, unexpected
from gptshake.report.journal.keep import Block, Kept, Page
from gptshake.report.journal.markdown import entry, unreadable
from gptshake.report.journal.pictures import pictures
from gptshake.report.journal.stories import gather


@dataclass(frozen=True)
class Written:
    """What was done."""

    kept: Kept
    entries: int  # in the file now
    drawn: int  # pictures
    problems: int  # records that cannot be read
    left_out: int  # debug= runs


def write_journal(file: Path, drawings: Path, runs: Path, multirun: Path) -> Written:
    """Tell every run and sweep that there is.

    Args:
        file: the journal; made if it is not there, left alone if nothing changes.
        drawings: folder of its pictures.
        runs: folder of runs.
        multirun: folder of sweeps.
    Raises:
        RecordError: the file holds damaged marks or is no UTF-8 text; it is left as it is.
    """
    target = file.resolve()  # a link stays a link
    page = Page(_read(target), file.name)
    found = gather(catalogue([runs, multirun]), multirun)
    told, strange = chapters(found.stories)
    problems = [*found.problems, *((story.folder, why) for story, why in strange)]
    fresh, drawn = [], 0
    for chapter in told:
        if page.wants(chapter.story.id):
            try:
                shown, new = pictures(chapter, drawings)
                fresh.append(Block(chapter.story.id, entry(chapter, shown, file.parent), int(chapter.story.started)))
                drawn += new
            except UNEXPECTED as error:
                problems.append((chapter.story.folder, unexpected(error)))
    kept = page.merged(fresh, unreadable(problems, file.parent))
    if (fresh or problems or page.blocks) and kept.text.encode() != (target.read_bytes() if target.exists() else b""):
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, kept.text)
    entries = sum(block.is_entry for block in page.blocks.values()) + len(kept.added)
    return Written(kept, entries, drawn, len(problems), found.left_out)


def _read(file: Path) -> str:
    if not file.exists():
        return ""
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(f"{file.name} is no UTF-8 text (byte {error.start:,}). Nothing was written; save it as UTF-8.") from error
