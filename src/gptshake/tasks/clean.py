"""``task=clean``: disk usage of caches, checkpoints and studies; removes what is named, after asking, and nothing in use."""

import difflib
import sys
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from gptshake.console import one_line
from gptshake.context import Context
from gptshake.errors import ConfigError, RecordError
from gptshake.estimate.formatting import short_bytes
from gptshake.files import expanded
from gptshake.record.disk import CHECKPOINTS, STUDIES, Item, in_use, items, remove
from gptshake.report.tables import aligned


def run(context: Context) -> None:
    """List everything, or remove what ``task.remove`` names.

    Raises:
        ConfigError: a name that nothing has.
        RecordError: something cannot be removed.
    """
    cfg = context.config
    runs, multirun, cache = (expanded(cfg.paths[key]) for key in ("runs", "multirun", "cache"))
    found = items(runs, multirun, cache)
    wanted = cfg.task.remove
    if not wanted:
        _list(found, cfg.task.limit)
        return
    chosen = _named([wanted] if isinstance(wanted, str) else [str(name) for name in wanted], found)
    used = {item.name: why for item in chosen if (why := in_use(item))}
    print(_table(chosen, used))
    free = [item for item in chosen if item.name not in used]
    if not free:
        print("Nothing is removed: all of it is in use.")
    elif cfg.task.yes or _agreed(f"Remove {_summary(free)} permanently?"):
        _remove(free)
    else:
        print("Nothing is removed.")


def _list(found: Sequence[Item], limit: int | None) -> None:
    if not found:
        print("No caches, checkpoints or studies are on the disk.")
        return
    sizes = Counter[str]()
    for item in found:
        sizes[item.kind] += item.size
    print("  ".join(f"{kind} {short_bytes(size)}" for kind, size in sizes.most_common()) + "  (a study holds its runs' checkpoints)\n")
    print(_table(found[:limit], {}))
    more = f"{len(found) - limit} more; task.limit=null shows all. " if limit and len(found) > limit else ""
    print(f"\n{more}Remove by name or pattern: task=clean task.remove={found[0].name}")


def _table(found: Sequence[Item], used: dict[str, str]) -> str:
    rows = [
        [short_bytes(item.size), item.name, f"in use: {used[item.name]}" if item.name in used else "", one_line(item.about)]
        for item in found
    ]
    return aligned([["size", "name", "", "of"], *rows], left=(1, 2))


def _named(wanted: Sequence[str], found: Sequence[Item]) -> list[Item]:
    """The items whose names, with or without the kind, fit a name or a pattern; each once."""
    chosen: dict[str, Item] = {}
    for name in wanted:
        fits = [item for item in found if fnmatchcase(item.name, name) or item.name.partition("/")[2] == name]
        if not fits:
            near = difflib.get_close_matches(name, [item.name for item in found], n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else "task=clean lists the names."
            raise ConfigError(f"task.remove={name}: nothing on the disk has this name: {hint}")
        if len(fits) > 1 and not any(sign in name for sign in "*?["):
            raise ConfigError(f"task.remove={name} names {' and '.join(item.name for item in fits)}: say which.")
        chosen |= {item.name: item for item in fits}
    return list(chosen.values())


def _summary(found: Sequence[Item]) -> str:
    kinds = Counter(item.kind for item in found)
    parts = [f"{number} of {kind}" for kind, number in kinds.items()]
    lost = [
        "these runs cannot be resumed or sampled any more" if CHECKPOINTS in kinds else "",
        "records and results are among it" if STUDIES in kinds else "",
    ]
    end = "; ".join(filter(None, lost))
    return f"{', '.join(parts)}, {short_bytes(sum(item.size for item in found))}{f' ({end})' if end else ''}"


def _agreed(question: str) -> bool:
    """Whether a person says yes; where there is nobody to ask, the way to say it."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"{question} Add task.yes=true.")
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _remove(chosen: Sequence[Item]) -> None:
    freed = 0
    for item in chosen:
        if why := in_use(item):  # since it was asked for
            print(f"{item.name} is kept: {why}.")
            continue
        try:
            remove(item)
        except OSError as error:
            raise RecordError(
                f"{item.name} cannot be removed: {error.strerror}: {error.filename}. {short_bytes(freed)} were freed."
            ) from error
        freed += item.size
    print(f"{short_bytes(freed)} freed.")
