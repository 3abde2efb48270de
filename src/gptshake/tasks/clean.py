"""``task=clean``: disk usage of caches, checkpoints and studies; removes what is named, after asking, and nothing in use."""

import sys
from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase

from gptshake.console import one_line
from gptshake.context import Context
from gptshake.errors import ConfigError, RecordError, closest
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
    found, wanted, limit = items(*(expanded(cfg.paths[key]) for key in ("runs", "multirun", "cache"))), cfg.task.remove, cfg.task.limit
    if wanted:
        _remove(_named([wanted] if isinstance(wanted, str) else [str(name) for name in wanted], found), sure=cfg.task.yes)
    elif found:
        sizes = Counter[str]()
        for item in found:
            sizes[item.kind] += item.size
        print("  ".join(f"{kind} {short_bytes(size)}" for kind, size in sizes.most_common()) + "  (a study holds its runs' checkpoints)\n")
        print(_table(found[:limit], {}))
        more = f"{len(found) - limit} more; task.limit=null shows all. " if limit and len(found) > limit else ""
        print(f"\n{more}Remove by name or pattern: task=clean task.remove={found[0].name}")
    else:
        print("No caches, checkpoints or studies are on the disk.")


def _table(found: Sequence[Item], used: dict[str, str]) -> str:
    notes = [f"in use: {used[item.name]}" if item.name in used else "" for item in found]
    rows = [[short_bytes(item.size), item.name, note, one_line(item.about)] for item, note in zip(found, notes, strict=True)]
    return aligned([["size", "name", "", "of"], *rows], left=(1, 2))


def _named(wanted: Sequence[str], found: Sequence[Item]) -> list[Item]:
    """The items whose names, with or without the kind, fit a name or a pattern; each once."""
    chosen: dict[str, Item] = {}
    for name in wanted:
        fits = [item for item in found if fnmatchcase(item.name, name) or item.name.partition("/")[2] == name]
        if not fits:
            near = closest(name, [item.name for item in found])
            hint = f"did you mean {near}?" if near else "task=clean lists the names."
            raise ConfigError(f"task.remove={name}: nothing on the disk has this name: {hint}")
        if len(fits) > 1 and not any(sign in name for sign in "*?["):
            raise ConfigError(f"task.remove={name} names {' and '.join(item.name for item in fits)}: say which.")
        chosen |= {item.name: item for item in fits}
    return list(chosen.values())


def _remove(chosen: Sequence[Item], *, sure: bool) -> None:
    """Remove what is not in use, after asking; where there is nobody to ask, the answer is no, with the way to say yes."""
    used = {item.name: why for item in chosen if (why := in_use(item))}
    print(_table(chosen, used))
    free = [item for item in chosen if item.name not in used]
    if not free:
        print("Nothing is removed: all of it is in use.")
        return
    kinds = Counter(item.kind for item in free)
    lost = ["these runs cannot be resumed or sampled any more"] * (CHECKPOINTS in kinds)
    lost += ["records and results are among it"] * (STUDIES in kinds)
    what = ", ".join([*(f"{number} of {kind}" for kind, number in kinds.items()), short_bytes(sum(item.size for item in free))])
    question = f"Remove {what}{f' ({end})' if (end := '; '.join(lost)) else ''} permanently?"
    if not sure and not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"{question} Add task.yes=true.")
    elif sure or _agreed(question):
        freed = 0
        for item in free:
            if why := in_use(item):  # since it was asked for
                print(f"{item.name} is kept: {why}.")
                continue
            try:
                remove(item)
            except OSError as error:
                left = f"{short_bytes(freed)} were freed."
                raise RecordError(f"{item.name} cannot be removed: {error.strerror}: {error.filename}. {left}") from error
            freed += item.size
        print(f"{short_bytes(freed)} freed.")
        return
    print("Nothing is removed.")


def _agreed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
