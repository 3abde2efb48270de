"""``task=journal``: bring the research journal up to date with all runs and sweeps. Reads records only."""

from gptshake.context import Context
from gptshake.files import expanded
from gptshake.record.run import run_roots
from gptshake.report.journal.journal import write_journal


def run(context: Context) -> None:
    """Write ``task.file`` and the pictures beside it. Leaves no record.

    Raises:
        RecordError: the file holds damaged marks; it is left as it is.
    """
    cfg = context.config
    file, pictures = expanded(cfg.task.file), expanded(cfg.task.pictures)
    done = write_journal(file, pictures, *run_roots(cfg.paths))
    if not done.entries and not done.problems:
        print("There is no run yet: runs/ and multirun/ hold none.")
        return
    news = [f"{len(ids)} {what}" for ids, what in ((done.added, "new"), (done.changed, "changed")) if ids]
    print(f"{file}: {_count(done.entries, 'entry', 'entries')}, {', '.join(news) or 'nothing new'}")
    if done.drawn:
        print(f"{pictures}: {_count(done.drawn, 'picture', 'pictures')} drawn")
    if done.problems:
        print(f"{_count(done.problems, 'record', 'records')} cannot be read: see the end of {file}.")
    if done.left_out:
        print(f"{_count(done.left_out, 'run', 'runs')} with debug= left out.")


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
