"""``experiment=<path>.yaml``: a recipe that lies anywhere, such as a study's best.yaml, written out as the overrides that it means.

So the record of a run holds what the file said, and the run can be repeated without the file.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gptshake.config.argv import key_of, quote
from gptshake.errors import ConfigError

KEY = "experiment"


def written_out(overrides: list[str]) -> list[str]:
    """The overrides with every ``experiment=<path>.yaml`` replaced by what the file says; other experiments stay.

    Raises:
        ConfigError: a file that is not there, or says more than groups and values.
    """
    recipes = [text for text in overrides if key_of(text) == KEY and text.endswith((".yaml", ".yml"))]
    rest = [text for text in overrides if text not in recipes]
    return [line for text in recipes for line in _lines(Path(text.partition("=")[2]).expanduser())] + rest


def _lines(path: Path) -> list[str]:
    try:
        node = OmegaConf.load(path)
    except OSError as error:
        raise ConfigError(f"{KEY}={path}: there is no such file.") from error
    except Exception as error:  # whatever the reader of YAML makes of a file that is none
        raise ConfigError(f"{KEY}={path} is no config: {str(error).splitlines()[0]}.") from error
    if not isinstance(node, DictConfig):
        raise ConfigError(f"{KEY}={path} is no config: it holds no keys.")
    content = OmegaConf.to_container(node, resolve=False)
    assert isinstance(content, dict)
    groups = [_group(path, entry) for entry in content.pop("defaults", []) if entry != "_self_"]
    return groups + [f"{key}={_value(value)}" for key, value in _leaves(content)]


def _group(path: Path, entry: Any) -> str:
    if isinstance(entry, str) and entry.count("/") == 2 and entry.startswith("/"):
        return entry[1:].replace("/", "=")
    (name, option), *more = entry.items() if isinstance(entry, dict) else [("", entry)]
    if more or not str(name).startswith("override /"):
        raise ConfigError(
            f"{KEY}={path}: in a file given by its path, defaults are written `override /group: option` or `/group/option`, not {entry}."
        )
    return f"{str(name).removeprefix('override /')}={option}"


def _leaves(node: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _value(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(_value(item) for item in value)}]"
    return quote(value) if isinstance(value, str) else repr(value)
