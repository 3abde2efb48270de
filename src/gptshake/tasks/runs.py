"""``task=runs``: all runs as a table, filtered and sorted. Only reads records; a broken one is a line like any other."""

from collections.abc import Sequence

from omegaconf import DictConfig

from gptshake.console import Console
from gptshake.context import Context
from gptshake.record.index import Entry, read_index
from gptshake.record.run import run_roots
from gptshake.report.export import STDOUT, check_targets, deliver, runs_csv, runs_json
from gptshake.report.runs_table import changes_text, in_order, lines, old_rule, select, shared, table, tally


def run(context: Context) -> None:
    """Print the runs below ``paths.runs`` and ``paths.multirun``; leaves no record.

    Raises:
        ConfigError: a filter or a sort by a key that no run has, or by a value that cannot be compared.
    """
    cfg = context.config
    options = cfg.task
    targets = {"task.csv": options.csv, "task.json": options.json, "task.html": options.html}
    check_targets(targets)
    roots = run_roots(cfg.paths)
    entries = in_order(select(read_index(roots), str(options.filter or "")), str(options.sort))
    if STDOUT not in targets.values():
        _print(entries, cfg, " or ".join(map(str, roots)))
    for target, make in ((options.csv, runs_csv), (options.json, runs_json), (options.html, _page)):
        if target and (file := deliver(make(entries), str(target))) and STDOUT not in targets.values():
            print(f"  {file}")


def _print(entries: Sequence[Entry], cfg: DictConfig, where: str) -> None:
    options = cfg.task
    if not entries:
        print(f"No run in {where} fits task.filter={options.filter}." if options.filter else f"There is no run yet in {where}.")
        return
    rows, console = lines(entries, trials=options.trials), Console()
    shown = rows[: options.limit]
    print(table(shown, console.size().columns if console.terminal else None))
    more = f"{len(shown)} of {len(rows)} lines; task.limit=null shows all.\n" if len(shown) < len(rows) else ""
    common = f"Common to all runs: {changes_text(shared(entries))}.\n" if shared(entries) else ""
    old = f"{old_rule(entries)}\n" if old_rule(entries) else ""
    print(f"\n{old}{common}{more}{tally(entries)}")


def _page(entries: Sequence[Entry]) -> str:
    from gptshake.report.runs_page import runs_page  # its curves need numpy

    return runs_page(entries)
