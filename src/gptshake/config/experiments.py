"""A file that ``experiment=`` names by its path becomes overrides, so that a run can be repeated without it; in a sweep such files are options.

experiment=<path>.yaml    what the file says, before what was typed
logger=[wandb,mlflow]     a node for each, logger.wandb and logger.mlflow
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptshake.config.arguments import SWEEP_PARTS, override_value, quote, swept_values
from gptshake.config.compose_errors import parse_overrides
from gptshake.config.layout import local_files
from gptshake.config.values import ONLY_VALUES, plain_yaml, sets_output_path, unsafe_reason
from gptshake.errors import ConfigError, RecordError, first_line
from gptshake.files import expanded, yaml_text
from gptshake.keys import key_of
from gptshake.record.index import flat

EXPERIMENT = "experiment"
SUFFIXES = (".yaml", ".yml")
LIMITS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_tokens", "trainer.hours")


def expand_experiment_files(overrides: list[str], *, single: bool = False) -> list[str]:
    """The overrides with every ``experiment=<path>.yaml`` replaced by what the file says; other experiments stay.

    A limit that was typed replaces the limits of the files. What a file says of a sweep is left out for a ``single`` run.
    """
    named = [text for text in overrides if key_of(text) == EXPERIMENT and not text.endswith("=null")]
    files = [text for text in named if text.endswith(SUFFIXES) and not swept_values(text.partition("=")[2])]
    rest = [text for text in overrides if text not in files]
    lines = [line for text in files for line in _lines(expanded(text.partition("=")[2]))]
    if single:
        lines = [line for line in lines if not key_of(line).startswith("hydra.sweeper.") and key_of(line) not in SWEEP_PARTS]
    limits = {key_of(text) for text in rest if key_of(text) in LIMITS and not text.endswith("=null")}
    if limits:
        lines = [line for line in lines if key_of(line) not in LIMITS]
        if len(named) > len(files):
            lines += [f"{limit}=null" for limit in LIMITS if limit not in limits]
    if any(text.startswith("logger=") for text in rest):  # the nodes of a file's list would outlive another choice
        lines = [line for line in lines if key_of(line) != "logger"]
    found = list[str]()
    for text in lines + rest:
        if key_of(text) == "logger" and text.partition("=")[2].startswith("["):  # a node for each tracker: Hydra would mix their keys
            names: Any = parse_overrides([text])[0].value()
            nodes = {re.sub(r"\W", "_", str(name)): name for name in names if name != "none"}
            found += ["logger=none", *(f"+logger@logger.{node}={name}" for node, name in nodes.items())]
        else:
            found.append(text)
    return found


def experiment_files_as_options(overrides: list[str], folder: Path) -> list[str]:
    """The overrides of a multirun with the files that ``experiment=`` names in a list as options of the group, copied into a folder of config."""
    found = []
    for text in overrides:
        names = [name.strip("'\"") for name in swept_values(text.partition("=")[2])] if key_of(text) == EXPERIMENT else []
        files = [name for name in names if name.endswith(SUFFIXES)]
        for name in files:
            _lines(expanded(name))  # refuses what is none
            plain = str(expanded(name).absolute()) if name.startswith("~") or ".." in Path(name).parts else name
            copy = folder / EXPERIMENT / plain.lstrip("/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(f"# @package _global_\n{yaml_text(expanded(name))}", encoding="utf-8")
            names[names.index(name)] = quote(plain)
        found.append(f"{EXPERIMENT}=choice({','.join(names)})" if files else text)
    return found


def _lines(path: Path, via: tuple[Path, ...] = ()) -> list[str]:
    what = f"{EXPERIMENT}={path}"
    if path in via:
        raise ConfigError(f"{what} includes itself by its defaults list.")
    try:
        content = plain_yaml(path)
    except OSError as error:
        raise ConfigError(f"{what}: there is no such file.") from error
    except Exception as error:  # whatever the reader of YAML makes of a file that is none
        raise ConfigError(f"{what} is not a config: {first_line(error)}.") from error
    lines, defaults = [], content.pop("defaults", None) or []
    for entry in defaults if isinstance(defaults, list) else [defaults]:
        if entry == "_self_":
            continue
        if isinstance(entry, str) and entry.startswith("/") and (entry.count("/") == 2 or entry.endswith(SUFFIXES)):
            group, _, option = entry[1:].partition("/")
        else:
            (name, option), *more = entry.items() if entry and isinstance(entry, dict) else [("", entry)]
            group = str(name).removeprefix("override /")
            if more or group == str(name):
                raise ConfigError(
                    f"{what}: in a file given by its path, defaults are written `override /group: option` or `/group/option`, not {entry}."
                )
        nested = group == EXPERIMENT and str(option).endswith(SUFFIXES)  # in the best.yaml of a study over such files
        lines += _lines(expanded(option), (*via, path)) if nested else [f"{group}={option}"]
    chosen = dict(line.split("=", 1) for line in lines)
    lines += [f"{_sign(key, chosen)}{key}={override_value(value)}" for key, value in flat(content).items()]
    if any((path.parent / name).exists() for name in ("study.json", "run.json")):  # may be somebody else's
        for text in lines:
            if why := unsafe_reason(text) or (sets_output_path(text) and "it says where a run writes"):
                raise RecordError(f"{path} has {text}: {why}. {ONLY_VALUES} copy the file elsewhere.")
    return lines


def _sign(key: str, chosen: Mapping[str, str]) -> str:
    """``+`` for a key of an option of the user's own whose yaml does not name it: so it is typed, too."""
    group, _, inside = key.partition(".")
    file = local_files().get(f"{group}/{chosen.get(group)}.yaml")
    named = plain_yaml(file) if file else {"defaults": ()}
    return "" if "defaults" in named or {key, inside} & {*flat(named)} else "+"
