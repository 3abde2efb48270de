"""``task=watch``: the runs at work, how far they are and their curves. Only reads records; without a terminal it looks once."""

import string
import time
from collections.abc import Sequence

from gptshake.console import Console
from gptshake.context import Context
from gptshake.estimate.formatting import duration
from gptshake.record.index import SECONDS, STUDY_FILE, TOKENS, Entry, read_entry, read_index
from gptshake.record.lock import is_alive
from gptshake.record.run import run_dirs, run_roots
from gptshake.report.export import check_targets, deliver
from gptshake.report.runs_table import in_order, lines, table

PAGE_S = 30.0  # seconds between two pages: drawing a study takes one or two
LEAST, MOST = 5, 18  # lines of the drawing


def run(context: Context) -> None:
    """Show the runs at work below ``paths.runs`` and ``paths.multirun`` again and again, until a signal."""
    options, roots, console, drawn = context.config.task, run_roots(context.config.paths), Console(), float("-inf")
    check_targets({"task.html": options.html})
    while True:
        entries = in_order([read_entry(path) for path in dict.fromkeys(run_dirs(roots)) if is_alive(path)], "-started")
        size = console.size()
        shown = screen(entries, size.columns if console.terminal else None, size.lines - 1)
        if options.html and time.monotonic() - drawn >= PAGE_S:
            _write_pages(str(options.html), in_order(read_index(roots), "started"), entries)
            drawn = time.monotonic()
        if not console.renews:
            print("\n".join(shown))
            return
        console.renew(shown)
        time.sleep(options.seconds)


def screen(entries: Sequence[Entry], width: int | None, height: int) -> list[str]:
    """The table of runs, each with a letter, and their smoothed training losses in one drawing, as far as they fit."""
    if not entries:
        return ["No run is at work here."]
    from gptshake.report.series import column, smooth
    from gptshake.report.small_plots import ascii_curves

    rows = [
        row | {"status": f"{letter} {_progress(entry)}"}
        for letter, row, entry in zip(string.ascii_letters, lines(entries, trials=True), entries, strict=False)
    ]
    curves = {}
    for letter, entry in zip(string.ascii_letters, entries, strict=False):
        tokens, losses = column(entry.columns, "train/loss")
        curves[letter] = tokens, smooth(losses)
    text = table(rows[: max(1, height - 1)], width).splitlines()
    free = min(MOST, height - len(text) - 4)
    drawing = ascii_curves(curves, min(100, (width or 80) - 12), free) if free >= LEAST else []
    return [*text, *(["", "train/loss", *drawing] if drawing else [])]


def _progress(entry: Entry) -> str:
    """``24 %, left 3 min`` by the run's own speed so far; nothing before its first step."""
    done, total, seconds = entry.figures.get(TOKENS), entry.part("budget").get("tokens"), entry.figures.get(SECONDS)
    if not done or not total:
        return "starts"
    left = f", left {duration(seconds * (total - done) / done)}" if seconds and total > done else ""
    return f"{100 * done / total:.0f} %{left}"


def _write_pages(target: str, entries: Sequence[Entry], at_work: Sequence[Entry]) -> None:
    from gptshake.report.pages import report
    from gptshake.report.runs_page import runs_page

    deliver(runs_page(entries), target)
    for folder in {folder for entry in at_work for folder in entry.path.parents[:3] if (folder / STUDY_FILE).exists()}:
        report(folder)
