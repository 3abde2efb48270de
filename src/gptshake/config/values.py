"""From a record, which may be somebody else's, come values only: what else a stored override says is named, so that it can be refused.

It may choose packaged options and the user's own present ones, and set plain values. It may not name anything to call, read the
environment, configure Hydra, notify somebody or start a task that leaves no record.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import OverrideType
from omegaconf import OmegaConf

from gptshake.config.compose_errors import parse_overrides
from gptshake.config.layout import OLD_TARGETS, is_option, local_confs, option_files, packaged_conf
from gptshake.files import yaml_text

ONLY_VALUES = "From a record come values only. If you trust this one,"
_PLACES = ("paths", "data.documents.cache")  # where a run writes
_CALL = re.compile(r"_(target|args|partial|recursive|convert)_")
_RESOLVER = re.compile(r"\$\{[^}]*:")  # ${oc.env:NAME}; ${data.path} only points to another value
_TARGET = re.compile(r"^\s*_target_:\s*[\"']?([\w.]+)", re.MULTILINE)
_NO_RECORD = re.compile(r"^\s*trains:\s*false", re.MULTILINE)


def unsafe_reason(text: str, *, resolvers: bool = False) -> str:
    """Why a stored override is more than a value or a known option; empty if it is not.

    Args:
        resolvers: whether ``${name:...}`` and ``callbacks.notify`` are allowed, as in the user's own records.
    """
    override = parse_overrides([text])[0]
    key, folders = override.key_or_group, [packaged_conf(), *local_confs()]
    root = re.split(r"[./]", key)[0]
    if root == "hydra":
        return "it configures Hydra"
    if override.package is not None and (key != "logger" or not override.package.startswith("logger.")):  # one of several trackers
        return "it moves an option to another place"
    if override.type is OverrideType.DEL:
        return ""
    if override.is_sweep_override():
        return "it names several values"
    value = override.value()
    if key == "task" or "/" in key or any((folder / key).is_dir() for folder in folders):
        for name in (name for name in (value if isinstance(value, list) else [value]) if name is not None):
            tasks = option_files(key, str(name)) if key == "task" else []
            if not is_option(key, str(name)) or any(_NO_RECORD.search(file.read_text(encoding="utf-8")) for file in tasks):
                return f"{name!r} is not a packaged option of {key} nor one in ./conf"
        return ""
    if root == "task" and isinstance(value, str | list | dict):
        return "a task takes texts only from the command line"
    for path, leaf in _leaves(key, value):
        if _CALL.search(path):
            files = (file for folder in folders for file in folder.rglob("*.yaml") if file.parent != folder / "task")
            named = {name for file in files for name in _TARGET.findall(file.read_text(encoding="utf-8", errors="replace"))}
            if not path.endswith("._target_") or root == "task" or leaf not in named | OLD_TARGETS.keys():
                return f"{path} names something to call that is neither packaged nor in ./conf"
        if path.startswith("callbacks.notify.") and leaf is not None and not resolvers:
            return "it runs or calls something when the run has ended"
        if isinstance(leaf, str) and _RESOLVER.search(leaf) and not resolvers:
            return "it reads something outside of the config"
    return ""


def sets_output_path(text: str) -> bool:
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


def plain_yaml(path: Path) -> dict[str, Any]:
    """A file of YAML as plain values, interpolations as they are written."""
    try:
        content = OmegaConf.to_container(OmegaConf.create(yaml_text(path)), resolve=False)
    except AssertionError:  # OmegaConf's, for a number
        content = None
    if not isinstance(content, dict):
        raise ValueError("it has no keys")
    return {str(key): value for key, value in content.items()}
