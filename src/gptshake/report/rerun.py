"""How to run the best trial again: its command line, and ``best.yaml``, an experiment file for ``experiment=``."""

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gptshake.estimate.formatting import short_count
from gptshake.keys import key_of
from gptshake.report.study_stats import Best, Rows, digits, tokens_of

GROUPS = ("task", "model", "data", "tokenizer", "optimizer", "scheduler", "trainer", "logger", "callbacks")
EXPERIMENTS = ("experiment", "debug")  # groups of whole recipes; an experiment file builds upon them
WHERE = ("hydra", "paths", "dirty", "resume", "study")  # where and how it ran, not what


def overrides_of(study: Rows, best: Best) -> list[str]:
    """All overrides of the best trial; of two for one key the later one."""
    return list({key_of(text): text for text in [*study["fixed"], *best.trial["overrides"]]}.values())


def command(study: Rows, overrides: Iterable[str]) -> str:
    """The shell command of one run with these overrides."""
    program = study.get("program") or "gptshake"
    start = f"python {shlex.quote(program)}" if program.endswith(".py") or "/" in program else f"python -m {shlex.quote(program)}"
    return " ".join([start, *map(quoted, overrides)])


def quoted(override: str) -> str:
    key, equals, value = override.partition("=")
    if re.fullmatch(r"'[A-Za-z0-9_./-]+'", value):  # quoted for Hydra's grammar; the shell and we need no quotes
        value = value[1:-1]
    return f"{shlex.quote(key) if '~' in key else key}{equals}{shlex.quote(value) if value else ''}"


def use(study: Rows, folder: Path) -> str:
    """The shell command that takes the best trial as the start of another run."""
    return command(study, [f"experiment={folder / 'best.yaml'}"])


def best_yaml(study: Rows, best: Best) -> str:
    import yaml
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    defaults, values, tokens = list[Any](), dict[str, Any](), tokens_of(study, best.trial)
    head = f"Study {study['name']}, trial {best.trial['number']}: {study['objective']} {digits(best.value)}"
    head += f" (mean of {best.seeds} seeds)" if best.seeds > 1 else ""
    lines = ["# @package _global_", f"# {head}{f', {short_count(tokens)} tokens' if tokens else ''}."]
    for text in overrides_of(study, best):
        key = key_of(text)
        if re.split(r"[./]", key)[0] in WHERE:
            continue
        try:
            value = OverridesParser.create().parse_override(text).value()
        except HydraException:  # not Hydra's grammar: another program wrote the record
            key, value = f"@{key}", None
        if text.startswith("~") or "@" in key or "/" in key:
            lines.append(f"# Cannot be said in a file, so add it to the command line: {text}")
        elif key in EXPERIMENTS:
            defaults += [f"/{key}/{value}"] if value is not None else []
        elif key in GROUPS:
            defaults.append({f"override /{key}": value})
        else:
            *parents, leaf = key.split(".")
            node = values
            for parent in parents:
                node = node.setdefault(parent, {})
            node[leaf] = value
    defaults.sort(key=lambda one: isinstance(one, dict))  # experiments first
    body = ({"defaults": defaults} if defaults else {}) | values
    return "\n".join([*lines, yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=1_000_000) if body else ""])
