"""``task=journal``: bring the research journal up to date with all runs and sweeps. Reads records only."""

from pathlib import Path

from omegaconf import DictConfig

from gptshake.files import expanded
from gptshake.record.launch import Launch
from gptshake.record.run import run_roots
from gptshake.report.journal.journal import Written, write_journal


def run(cfg: DictConfig, launch: Launch) -> None:
    """Write ``task.file`` and the pictures beside it. Leaves no record.

    Raises:
        RecordError: the file holds damaged marks; it is left as it is.
    """
    del launch
    file, pictures = expanded(cfg.task.file), expanded(cfg.task.pictures)
    runs, multirun = run_roots(cfg.paths)
    print("\n".join(_said(write_journal(file, pictures, runs, multirun), file, pictures)))


def _said(done: Written, file: Path, pictures: Path) -> list[str]:
    """What was done, in lines."""
    if not done.entries and not done.problems:
        return ["There is no run to tell of yet: runs/ and multirun/ hold none."]
    kept = done.kept
    news = [f"{len(kept.added)} new" if kept.added else "", f"{len(kept.changed)} changed" if kept.changed else ""]
    lines = [f"{file}: {_count(done.entries, 'entry', 'entries')}, {', '.join(filter(None, news)) or 'nothing new'}"]
    lines += [f"{pictures}: {_count(done.drawn, 'picture', 'pictures')} drawn"] if done.drawn else []
    lines += [
        f"Left as you edited it: {id}. Delete its block and its id at the end of the file to have it written anew." for id in kept.edited
    ]
    lines += [f"{_count(done.problems, 'record', 'records')} cannot be read: see the end of {file}."] if done.problems else []
    lines += [f"{_count(done.left_out, 'run', 'runs')} with debug= left out."] if done.left_out else []
    return lines


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
