"""``task=runs``: all runs as a table, filtered and sorted. Only reads records; a broken one is a line like any other."""

from gptshake.console import Console
from gptshake.context import Context
from gptshake.record.index import read_index
from gptshake.record.run import run_roots
from gptshake.report.runs_table import changes_text, in_order, lines, old_rule, select, shared, table, tally
from gptshake.report.tables import check_targets, runs_csv, runs_html, runs_json, write_tables


def run(context: Context) -> None:
    """Print the runs below ``paths.runs`` and ``paths.multirun``; leaves no record.

    Raises:
        ConfigError: a filter or a sort by a key that no run has, or by a value that cannot be compared.
    """
    options, roots = context.config.task, run_roots(context.config.paths)
    targets = {"task.csv": options.csv, "task.json": options.json, "task.html": options.html}
    aloud, where = check_targets(targets), " or ".join(map(str, roots))
    entries = in_order(select(read_index(roots), str(options.filter or "")), str(options.sort))
    if aloud and not entries:
        print(f"No run in {where} fits task.filter={options.filter}." if options.filter else f"There is no run yet in {where}.")
    elif aloud:
        rows, console = lines(entries, trials=options.trials), Console()
        shown, common, old = rows[: options.limit], shared(entries), old_rule(entries)
        print(table(shown, console.size().columns if console.terminal else None))
        more = f"{len(shown)} of {len(rows)} lines; task.limit=null shows all." if len(shown) < len(rows) else ""
        notes = [old, f"Common to all runs: {changes_text(common)}." if common else "", more]
        print("\n".join(["", *filter(None, notes), tally(entries)]))
    write_tables(entries, targets, (runs_csv, runs_json, runs_html))
