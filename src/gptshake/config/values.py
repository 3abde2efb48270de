"""From a record come values only: what else a stored override says is named, so that it can be refused.

A run directory may be somebody else's, so an override of it may choose packaged options and the user's own present ones, and set
plain values. It may not name anything to call, read the environment, configure Hydra or start a task that leaves no record.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import OverrideType

from gptshake.config.compose_errors import parse_overrides
from gptshake.config.layout import OLD_TARGETS, is_option, local_confs, option_files, packaged_conf

_PLACES = ("paths", "data.documents.cache")  # where a run writes
_CALL = re.compile(r"_(target|args|partial|recursive|convert)_")
_RESOLVER = re.compile(r"\$\{[^}]*:")  # ${oc.env:NAME}; ${data.path} only points to another value
_TARGET = re.compile(r"^\s*_target_:\s*[\"']?([\w.]+)", re.MULTILINE)
_NO_RECORD = re.compile(r"^\s*trains:\s*false", re.MULTILINE)


def more_than_a_value(text: str, *, resolvers: bool = False) -> str:
    """Why a stored override is more than a value or a known option; empty if it is not.

    Args:
        text: the override.
        resolvers: whether ``${name:...}`` is allowed, as in the user's own records.
    Raises:
        ConfigError: it cannot be parsed.
    """
    override = parse_overrides([text])[0]
    key = override.key_or_group
    root = re.split(r"[./]", key)[0]
    if root == "hydra":
        return "it configures Hydra"
    if override.package is not None:
        return "it moves an option to another place"
    if override.type is OverrideType.DEL:
        return ""
    if override.is_sweep_override():
        return "it names several values"
    value = override.value()
    if key == "task" or "/" in key or any((folder / key).is_dir() for folder in _folders()):
        if unknown := [name for name in (value if isinstance(value, list) else [value]) if not _is_option(key, name)]:
            return f"{unknown[0]!r} is not a packaged option of {key} nor one in ./conf"
        return ""
    if root == "task" and isinstance(value, str | list | dict):
        return "a task takes texts only from the command line"
    for path, leaf in _leaves(key, value):
        if _CALL.search(path) and not (path.endswith("._target_") and root != "task" and leaf in _targets()):
            return f"{path} names something to call that is neither packaged nor in ./conf"
        if isinstance(leaf, str) and _RESOLVER.search(leaf) and not resolvers:
            return "it reads something outside of the config"
    return ""


def names_place(text: str) -> bool:
    """Whether an override says where a run writes.

    Raises:
        ConfigError: it cannot be parsed.
    """
    override = parse_overrides([text])[0]
    return any(path.startswith(_PLACES) for path, _ in _leaves(override.key_or_group, override.value()))


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield path, None
        for name, child in value.items():
            yield from _leaves(f"{path}.{name}", child)
    elif isinstance(value, list):
        for child in value:
            yield from _leaves(path, child)
    else:
        yield path, value


def _is_option(group: str, name: Any) -> bool:
    """Whether a group has an option; of the tasks those that leave a record."""
    if name is None:
        return True
    if not is_option(group, str(name)):
        return False
    return group != "task" or not any(_NO_RECORD.search(file.read_text(encoding="utf-8")) for file in option_files(group, str(name)))


def _targets() -> set[str]:
    """Every ``_target_`` of the options, packaged and the user's own, but for those of tasks."""
    files = [file for folder in _folders() for file in folder.rglob("*.yaml") if file.parent != folder / "task"]
    return {name for file in files for name in _TARGET.findall(file.read_text(encoding="utf-8", errors="replace"))} | OLD_TARGETS.keys()


def _folders() -> list[Path]:
    return [packaged_conf(), *local_confs()]
