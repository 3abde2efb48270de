"""``task=journal``: bring the research journal up to date with all runs and sweeps. Reads records only."""

from gptshake.context import Context
from gptshake.estimate.formatting import counted
from gptshake.files import expanded
from gptshake.record.run import run_roots
from gptshake.report.journal import write_journal


def run(context: Context) -> None:
    """Write ``task.file`` and the pictures beside it. Leaves no record.

    Raises:
        RecordError: the file holds damaged markers; it is left as it is.
    """
    cfg = context.config
    file, pictures = expanded(cfg.task.file), expanded(cfg.task.pictures)
    done = write_journal(file, pictures, *run_roots(cfg.paths))
    if not done.entries and not done.problems:
        print("There is no run yet: runs/ and multirun/ hold none.")
        return
    news = [f"{len(ids)} {what}" for ids, what in ((done.added, "new"), (done.changed, "changed")) if ids]
    print(f"{file}: {done.entries} {'entry' if done.entries == 1 else 'entries'}, {', '.join(news) or 'nothing new'}")
    if done.drawn:
        print(f"{pictures}: {counted(done.drawn, 'picture', '')} drawn")
    if done.problems:
        print(f"{counted(done.problems, 'record', '')} cannot be read: see the end of {file}.")
    if done.left_out:
        print(f"{counted(done.left_out, 'run', '')} with debug= left out.")
