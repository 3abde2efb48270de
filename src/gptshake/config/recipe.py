"""``experiment=<path>.yaml``: a recipe that lies anywhere, such as a study's best.yaml, written out as the overrides that it means.

So the record of a run holds what the file said, and the run can be repeated without the file.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.argv import key_of, override_value, quote, split
from gptshake.config.values import more_than_a_value, names_place
from gptshake.errors import ConfigError, RecordError, first_line
from gptshake.files import expanded, yaml_text
from gptshake.record.catalogue import flat

KEY = "experiment"
SUFFIXES = (".yaml", ".yml")
LIMITS = ("trainer.max_steps", "trainer.max_epochs", "trainer.max_tokens", "trainer.hours")


def written_out(overrides: list[str]) -> list[str]:
    """The overrides with every ``experiment=<path>.yaml`` replaced by what the file says; other experiments stay.

    Raises:
        ConfigError: a file that is not there, or says more than groups and values.
        RecordError: one in the folder of a study that says more than plain values.
    """
    recipes = [text for text in overrides if key_of(text) == KEY and text.endswith(SUFFIXES) and len(_several(text)) < 2]
    rest = [text for text in overrides if text not in recipes]
    return _without_limits([line for text in recipes for line in _lines(expanded(text.partition("=")[2]))], rest) + rest


def as_options(overrides: list[str], folder: Path) -> list[str]:
    """The overrides of a multirun with the files that ``experiment=`` names in a list as options of the group, under their paths.

    Args:
        overrides: as typed.
        folder: of config, which gets a copy of each.
    Raises:
        ConfigError: as ``written_out``.
    """
    found = []
    for text in overrides:
        names = _several(text) if key_of(text) == KEY else []
        if any(name.endswith(SUFFIXES) for name in names):
            text = f"{KEY}=choice({','.join(_option(name, folder) if name.endswith(SUFFIXES) else name for name in names)})"
        found.append(text)
    return found


def _several(text: str) -> list[str]:
    """The values of a list that is swept; one or none where there is none, or a file that is called so."""
    value = text.partition("=")[2]
    inner = value.removeprefix("choice(").removesuffix(")") if value.startswith("choice(") else value
    names = [name.strip("'\"") for name in split(inner)]
    return names if (inner != value or len(names) > 1) and not Path(value).exists() else []


def _option(name: str, folder: Path) -> str:
    path = expanded(name)
    _lines(path)
    plain = str(path.absolute()) if name.startswith("~") or ".." in Path(name).parts else name
    copy = folder / KEY / plain.lstrip("/")
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_text(f"# @package _global_\n{yaml_text(path)}", encoding="utf-8")
    return quote(plain)


def _without_limits(lines: list[str], typed: list[str]) -> list[str]:
    """The overrides of experiment files without their limits if a limit was typed: that one replaces them, and never joins them."""
    limits = {key_of(text) for text in typed if key_of(text) in LIMITS and not text.endswith("=null")}
    if not limits:
        return lines
    by_name = any(key_of(text) == KEY and not text.endswith("=null") for text in typed)
    unset = [f"{limit}=null" for limit in LIMITS if limit not in limits] if by_name else []
    return [line for line in lines if key_of(line) not in LIMITS] + unset


def _lines(path: Path, via: tuple[Path, ...] = ()) -> list[str]:
    if path in via:
        raise ConfigError(f"{KEY}={path} includes itself by its defaults list.")
    try:
        node = OmegaConf.create(yaml_text(path))
    except OSError as error:
        raise ConfigError(f"{KEY}={path}: there is no such file.") from error
    except Exception as error:  # whatever the reader of YAML makes of a file that is none
        raise ConfigError(f"{KEY}={path} is no config: {first_line(error)}.") from error
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{KEY}={path} is no config: it holds no keys.")
    content = OmegaConf.to_container(node, resolve=False)
    assert isinstance(content, dict)
    groups = []
    for text in [_group(path, entry) for entry in content.pop("defaults", []) if entry != "_self_"]:
        nested = key_of(text) == KEY and text.endswith(SUFFIXES)  # in the best.yaml of a study over such files
        groups += _lines(expanded(text.partition("=")[2]), (*via, path)) if nested else [text]
    lines = groups + [f"{key}={override_value(value)}" for key, value in flat(content).items()]
    if any((path.parent / name).exists() for name in ("study.json", "run.json")):  # may be somebody else's
        for text in lines:
            if why := more_than_a_value(text) or (names_place(text) and "it says where a run writes"):
                raise RecordError(
                    f"{path} has {text}: {why}. From a record come values only. If you trust this one, copy the file elsewhere."
                )
    return lines


def _group(path: Path, entry: Any) -> str:
    if isinstance(entry, str) and entry.startswith("/") and (entry.count("/") == 2 or entry.endswith(SUFFIXES)):
        return entry[1:].replace("/", "=", 1)
    (name, option), *more = entry.items() if isinstance(entry, dict) else [("", entry)]
    if more or not str(name).startswith("override /"):
        raise ConfigError(
            f"{KEY}={path}: in a file given by its path, defaults are written `override /group: option` or `/group/option`, not {entry}."
        )
    return f"{str(name).removeprefix('override /')}={option}"
