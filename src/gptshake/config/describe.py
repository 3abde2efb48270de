"""``gptshake task=sample --help``: the keys of an option with default, type and comment, read from its file: no Hydra, so at once."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from gptshake.config.argv import key_of
from gptshake.config.help import columns_here, wrapped
from gptshake.config.layout import GROUPS, option_files, options
from gptshake.config.mistakes import known_option, nearest
from gptshake.config.schemas import SCHEMAS
from gptshake.errors import ConfigError

_LINE = re.compile(r"^( *)\"?([\w.]+)\"?:(?: +(.*?))?(?: +# *(.*))?$")
_HIDDEN = ("defaults", "documents", "trains", "sweeps")  # not for the shell
Row = tuple[str, str, str, str]  # key, default, type, comment


def pages(overrides: list[str]) -> str | None:
    """Help about the groups and options that a command line names; None if it names none.

    Raises:
        ConfigError: a group or an option that is not there.
    """
    texts = []
    for text in overrides:
        group, equals, option = key_of(text), "=" in text, text.partition("=")[2]
        if not equals and group in options("task"):
            group, option = "task", group
        if group in GROUPS and not option:
            texts.append(_group_page(group))
        elif group in GROUPS:
            texts += [_option_page(group, name) for name in option.strip("[]").split(",")]
        elif not equals:
            raise ConfigError(f"There is no task and no group {group!r}{nearest(group, (*GROUPS, *options('task')))}")
    return "\n\n".join(texts) or None


def _group_page(group: str) -> str:
    names = options(group)
    width = max(map(len, names)) + 2
    lines = [_wrapped(f"  {name:<{width}}", _about(_text(group, name))) for name in names]
    return "\n".join([f"{group}= is one of (keys of each: gptshake {group}=<option> --help)", *lines])


def _option_page(group: str, option: str) -> str:
    if option not in options(group):
        raise ConfigError(
            f"{group}={option}: there is no such {group}{known_option(group, option)} There are: {', '.join(options(group))}."
        )
    rows: dict[str, Row] = {}
    for key, default, kind, comment in _rows(group, option):
        rows[key] = (key, default, kind, comment or rows.get(key, ("",) * 4)[3])
    title = _wrapped(f"{group}={option}: ", _about(_text(group, option)))
    if not rows:
        return f"{title}\nIt has no keys."
    lines = [
        line
        for key, default, kind, comment in rows.values()
        for line in (f"  {key}={default}" + (f"  ({kind})" if kind else ""), _wrapped(" " * 6, comment))
    ]
    return "\n".join([title, "", *filter(None, lines)])


def _rows(group: str, option: str) -> Iterator[Row]:
    """The keys of an option, those first that it takes over from another one."""
    text = _text(group, option)
    package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    prefix = {None: f"{group}.", "_global_": ""}.get(package and package[1], f"{package and package[1]}.")
    content = yaml.safe_load(text)
    types = _types(group, content)
    for entry in content.get("defaults", []) if isinstance(content, dict) else []:
        if isinstance(entry, dict):
            yield from ((str(name).removeprefix("override /"), str(value), "group", "") for name, value in entry.items())
        elif entry != "_self_" and not entry.partition("@")[0].endswith("_schema"):
            other = entry.partition("@")[0].lstrip("/").split("/")
            yield from _rows(*(other if len(other) == 2 else (group, other[0])))
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        found = _LINE.match(line)
        if not found:
            continue
        indent, name, value, comment = len(found[1]), found[2], found[3], found[4]
        parents = [(at, parent) for at, parent in parents if at < indent]
        path = [parent for _, parent in parents]
        if value is None or (value.startswith("#") and comment is None):
            parents.append((indent, name))
        elif not name.startswith("_") and not {name, *path} & set(_HIDDEN):
            kind = types.get(name) or type(yaml.safe_load(value)).__name__.replace("NoneType", "").replace("str", "text")
            yield prefix + ".".join([*path, name]), value, kind, comment or ""


def _types(group: str, content: Any) -> dict[str, str]:
    """Types of an option's keys by its schema."""
    named = [str(entry).partition("@")[0] for entry in (content or {}).get("defaults", ())]
    schemas = [SCHEMAS[group][name] for name in named if name in SCHEMAS.get(group, {})]
    found = {field.name: getattr(field.type, "__name__", str(field.type)) for schema in schemas for field in fields(schema)}
    return {name: kind.replace("None", "null").replace("str", "text") for name, kind in found.items() if kind != "Any"}


def _text(group: str, option: str) -> str:
    file: Path = option_files(group, option)[-1]
    return file.read_text(encoding="utf-8")


def _about(text: str) -> str:
    """The comment at the head of a file."""
    head = re.match(r"(?:#.*\n)*", text)
    lines = [line.lstrip("# ") for line in (head[0] if head else "").splitlines() if not line.startswith("# @package")]
    return " ".join(lines)


def _wrapped(start: str, text: str) -> str:
    return wrapped(f"{start}{text}".rstrip(), max(columns_here(), 60), min(len(start), 16))
