"""``task=diff``: what differs between runs, as text and one picture. Only reads records, broken and unfinished ones too."""

from pathlib import Path

from omegaconf import DictConfig, ListConfig

from gptshake.console import printable
from gptshake.context import Context
from gptshake.errors import ConfigError
from gptshake.files import expanded, written
from gptshake.record.index import Entry, read_entry, refuse_damaged
from gptshake.record.run import find_run, refuse_twice, run_roots
from gptshake.report import diff_text

_MOST_NAMED = 6  # runs in a picture's file name


def run(context: Context) -> None:
    """Print the differences of ``task.runs`` and draw their curves into ``task.folder``; leaves no record.

    Raises:
        ConfigError: fewer than two runs were named, or one of them twice.
        RecordError: there is no such run, or its record is damaged; it is compared as far as it can be read.
    """
    cfg = context.config
    first, *others = entries = _entries(cfg)
    called = diff_text.names(entries)
    code = diff_text.code_differences(first, others[0])
    if len(others) > 1:  # each with the first
        code = []
        for name, other in zip(called[1:], others, strict=True):
            code += [f"{called[0]} → {name}", *(f"  {line}" for line in diff_text.code_differences(first, other))]
    sections = {
        "Runs": diff_text.head(entries),
        "Config": diff_text.config_differences(entries),
        "Code": code,
        "Data": diff_text.data_differences(entries),
        "Machine": diff_text.machine_differences(entries),
        "Results": diff_text.result_differences(entries),
    }
    for title, lines in sections.items():
        print(printable(f"{title}\n" + "\n".join(f"  {line}".rstrip() for line in lines) + "\n"), flush=True)
    from gptshake.report.plots_run import comparison_plot

    more = [f"and-{len(called) - _MOST_NAMED}-more"] if len(called) > _MOST_NAMED else []
    name = "-".join([*(Path(name).name for name in called[:_MOST_NAMED]), *more])
    print(written(lambda: comparison_plot(entries, expanded(cfg.task.folder), name)) or "  No run has a curve to draw yet.")
    refuse_damaged(entries)


def _entries(cfg: DictConfig) -> list[Entry]:
    named = cfg.task.runs
    wanted = list(named) if isinstance(named, ListConfig) else [text.strip() for text in str(named or "").split(",") if text.strip()]
    if len(wanted) < 2:
        raise ConfigError("Choose two or more runs to compare: task.runs=[<name, id or path>,<another>].")
    paths = [find_run(str(text), run_roots(cfg.paths)) for text in wanted]
    refuse_twice("task.runs", wanted, paths)
    return [read_entry(path) for path in paths]
