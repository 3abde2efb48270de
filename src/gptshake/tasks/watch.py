"""``task=watch``: the runs at work, how far they are and their curves; without a terminal it looks once. Writes nothing but pages."""

import math
import string
import time
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptshake.console import Console
from gptshake.context import Context
from gptshake.errors import RecordError
from gptshake.estimate.formatting import duration, short_count
from gptshake.files import refuse_links
from gptshake.record.index import SECONDS, STUDY_FILE, TOKENS, Entry, read_entry, read_index
from gptshake.record.lock import is_alive
from gptshake.record.metrics import CHUNK_BYTES, Tail
from gptshake.record.run import run_dirs, run_roots
from gptshake.report.runs_table import in_order, lines, table
from gptshake.report.tables import check_targets, runs_html, write_table

PAGE_S = 30.0  # seconds between two pages: drawing a study takes one or two
LEAST, MOST = 5, 18  # lines of the drawing


def run(context: Context) -> None:
    """Show the runs at work below ``paths.runs`` and ``paths.multirun`` again and again, until a signal.

    Raises:
        RecordError: a page cannot be written.
    """
    options, roots, console, drawn = context.config.task, run_roots(context.config.paths), Console(), float("-inf")
    curves: dict[Path, Curve] = {}
    problems: list[str] = []
    check_targets({"task.html": options.html})
    while True:
        entries = in_order([read_entry(path) for path in dict.fromkeys(run_dirs(roots)) if is_alive(path)], "-started")
        size = console.size()
        if options.html and time.monotonic() - drawn >= PAGE_S:
            write_table(runs_html(in_order(read_index(roots), "started")), str(options.html))
            from gptshake.report.pages import write_study_page

            problems = []
            for folder in sorted({folder for entry in entries for folder in entry.path.parents[:3] if (folder / STUDY_FILE).exists()}):
                try:
                    refuse_links(folder)
                    write_study_page(folder)
                except (RecordError, OSError) as error:  # the next look may find it gone
                    problems.append(f"{folder}: {error}")
            drawn = time.monotonic()
        shown = [*screen(entries, curves, size.columns - 1 if console.terminal else None, size.lines - 1 - len(problems)), *problems]
        if not console.renews:
            print("\n".join(shown))
            return
        console.renew(shown)
        time.sleep(options.seconds)


class Curve:
    """The training loss of a run at work; every look reads only the rows that came since the last one."""

    def __init__(self, folder: Path) -> None:
        self._tail = Tail(folder / "metrics.csv")
        self._tokens, self._losses = array("d"), array("d")

    def points(self) -> tuple[Any, Any]:
        """Tokens and losses of all rows so far, as arrays."""
        import numpy as np

        self._tail.more = True
        while self._tail.more:
            for row in self._tail.new(CHUNK_BYTES):
                tokens, loss = row["train/tokens"], row.get("train/loss", math.nan)
                if self._tokens and tokens <= self._tokens[-1]:  # it was cut back to a checkpoint
                    first = bisect_left(self._tokens, tokens)
                    del self._tokens[first:], self._losses[first:]
                if math.isfinite(loss):
                    self._tokens.append(tokens)
                    self._losses.append(loss)
        return np.array(self._tokens), np.array(self._losses)


def screen(entries: Sequence[Entry], curves: dict[Path, Curve], width: int | None, height: int) -> list[str]:
    """The table of runs, each with a letter, and their smoothed training losses in one drawing, as far as they fit.

    ``curves`` holds what earlier looks have read of each run directory.
    """
    if not entries:
        return ["No run is at work here."]
    from gptshake.report.ascii_plots import ascii_curves
    from gptshake.report.series import smooth

    named = dict(zip(string.ascii_letters[: max(1, height - 2)], entries, strict=False))
    rows = [
        row | {"status": f"{letter} {progress(entry)}"}
        for row, (letter, entry) in zip(lines([*named.values()], trials=True), named.items(), strict=True)
    ]
    text = table(rows, width).splitlines()
    text += [f"and {len(entries) - len(named)} more"] if len(named) < len(entries) else []
    free = min(MOST, height - len(text) - 4)
    if free < LEAST:
        return text
    drawn = {letter: curves.setdefault(entry.path, Curve(entry.path)).points() for letter, entry in named.items()}
    smoothed = {letter: (tokens, smooth(losses)) for letter, (tokens, losses) in drawn.items()}
    drawing = ascii_curves(smoothed, min(100, (width or 80) - 12), free)
    return [*text, "", "train/loss", *drawing] if drawing else text


def progress(entry: Entry) -> str:
    """``24 %, left 3 min`` by the run's own speed so far; a run whose limit was changed otherwise than in steps says its tokens."""
    done, seconds, budget = entry.figures.get(TOKENS), entry.figures.get(SECONDS), entry.part("budget")
    total, steps = budget.get("tokens"), entry.part("extended").get("trainer.max_steps")
    if steps and budget.get("tokens_per_step"):
        total = steps * budget["tokens_per_step"]
    if not done or not total:
        return "starts"
    if done > total:
        return f"{short_count(done)} tokens"
    left = f", left {duration(seconds * (total - done) / done)}" if seconds and total > done else ""
    return f"{100 * done / total:.0f} %{left}"
