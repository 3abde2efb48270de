"""``task=diff``: what differs between runs, as text and one picture. Only reads records, broken and unfinished ones too."""

from pathlib import Path

from omegaconf import DictConfig, ListConfig

from gptshake.context import Context
from gptshake.errors import ConfigError
from gptshake.files import expanded, written
from gptshake.record.index import Entry, read_entry
from gptshake.record.run import find_run, run_roots
from gptshake.report.difference import (
    code_differences,
    config_differences,
    data_differences,
    head,
    machine_differences,
    names,
    result_differences,
)

_MOST_NAMED = 6  # runs in a picture's file name


def run(context: Context) -> None:
    """Print the differences of ``task.runs`` and draw their curves into ``task.folder``; leaves no record.

    Raises:
        ConfigError: fewer than two runs were named, or one of them twice.
        RecordError: there is no such run.
    """
    cfg = context.config
    entries = _entries(cfg)
    sections = {
        "Runs": head(entries),
        "Config": config_differences(entries),
        "Code": _code(entries),
        "Data": data_differences(entries),
        "Machine": machine_differences(entries),
        "Results": result_differences(entries),
    }
    for title, lines in sections.items():
        print(f"{title}\n" + "\n".join(f"  {line}".rstrip() for line in lines) + "\n", flush=True)
    from gptshake.report.plots_compare import comparison_plot

    called = [Path(name).name for name in names(entries)]
    more = [f"and-{len(called) - _MOST_NAMED}-more"] if len(called) > _MOST_NAMED else []
    name = "-".join([*called[:_MOST_NAMED], *more])
    print(written(lambda: comparison_plot(entries, expanded(cfg.task.folder), name)) or "  No run has a curve to draw yet.")


def _entries(cfg: DictConfig) -> list[Entry]:
    named = cfg.task.runs
    wanted = list(named) if isinstance(named, ListConfig) else [text.strip() for text in str(named or "").split(",") if text.strip()]
    if len(wanted) < 2:
        raise ConfigError("Choose two or more runs to compare: task.runs=[<name, id or path>,<another>].")
    roots = run_roots(cfg.paths)
    paths = [find_run(str(text), roots) for text in wanted]
    twice = next((text for place, text in enumerate(wanted) if paths[place].resolve() in [path.resolve() for path in paths[:place]]), None)
    if twice is not None:
        raise ConfigError(f"task.runs names one run twice: {twice} is {paths[wanted.index(twice)].name}, which was named before.")
    return [read_entry(path) for path in paths]


def _code(entries: list[Entry]) -> list[str]:
    """Pair by pair with the first; with two runs it need not be said which."""
    if len(entries) == 2:
        return code_differences(*entries)
    called = names(entries)
    return [
        text
        for name, entry in zip(called[1:], entries[1:], strict=True)
        for text in (f"{called[0]} → {name}", *(f"  {line}" for line in code_differences(entries[0], entry)))
    ]
