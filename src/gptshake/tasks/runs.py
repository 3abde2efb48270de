"""``task=runs``: all runs as a table, filtered and sorted. Only reads records; a broken one is a line like any other."""

from omegaconf import DictConfig

from gptshake.console import Console
from gptshake.files import expanded, write_atomic
from gptshake.record.catalogue import catalogue
from gptshake.record.launch import Launch
from gptshake.report.listing import changes_text, lines, old_rule, shared, table, tally
from gptshake.report.query import in_order, select


def run(cfg: DictConfig, launch: Launch) -> None:
    """Print the runs below ``paths.runs`` and ``paths.multirun``; leaves no record.

    Raises:
        ConfigError: a filter or a sort by a key that no run has.
    """
    del launch
    options = cfg.task
    roots = [expanded(folder) for folder in (cfg.paths.runs, cfg.paths.multirun)]
    entries = in_order(select(catalogue(roots), str(options.filter or "")), str(options.sort))
    if not entries:
        where = " or ".join(map(str, roots))
        print(f"No run in {where} fits task.filter={options.filter}." if options.filter else f"There is no run yet in {where}.")
    else:
        rows, console = lines(entries, trials=options.trials), Console()
        shown = rows[: options.limit]
        print(table(shown, console.size().columns if console.terminal else None))
        more = f"{len(shown)} of {len(rows)} lines; task.limit=null shows all.\n" if len(shown) < len(rows) else ""
        common = f"The same in all: {changes_text(shared(entries))}.\n" if shared(entries) else ""
        old = f"{old_rule(entries)}\n" if old_rule(entries) else ""
        print(f"\n{old}{common}{more}{tally(entries)}")
    if options.html:
        from gptshake.report.runs_page import runs_page

        target = expanded(options.html)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, runs_page(entries))
        print(f"  {target}")
