"""``--help``: the page of everyday commands, and of an option its keys with default, type and comment.

Read from the config files alone: no Hydra, so it appears at once.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import MappingProxyType
from typing import Any

import yaml

from gptshake import __version__
from gptshake.config.layout import GROUPS, option_files, options
from gptshake.config.schemas import SCHEMAS
from gptshake.config.suggestions import nearest, no_such_option
from gptshake.console import Console
from gptshake.errors import ConfigError
from gptshake.keys import key_of

WIDEST = 140  # columns; longer lines are hard to read
_LINE = re.compile(r"^( *)\"?([\w.]+)\"?:(?: +(.*?))?(?: +# *(.*))?$")
_HIDDEN = ("defaults", "documents", "trains", "sweeps")  # not for the shell
Row = tuple[str, str, str, str]  # key, default, type, comment
_COMMANDS = (
    ("gptshake model=tiny data=wiki_char", "train a small GPT on Wikipedia's characters"),
    ("gptshake experiment=demo", "the same in a minute, with samples"),
    ("gptshake model=gpt3_small data=wiki_char", "GPT-3 small; the plan line says how long it takes here"),
    ("gptshake model=baby data=text_char data.path=book.txt", "train on your own text"),
    ("gptshake task=inspect data=text_char data.path=book.txt", "see what a model would see of it"),
    ("gptshake task=profile model=tiny data=wiki_char", "see where the time of a step goes"),
    ("gptshake model=tiny data=wiki tokenizer=bpe tokenizer.vocab_size=8192", "byte pairs instead of characters"),
    ("gptshake model=tiny data=wiki_char optimizer.lr=3e-3 scheduler=one_cycle", "change any hyperparameter"),
    ("gptshake model=tiny data=wiki_char trainer.max_steps=500", "or max_epochs, max_tokens, max_time=00:01:00:00"),
    ("gptshake task=plan model=baby data=wiki_char task.hours=8", "what a run would cost; trainer.hours=8 trains that long"),
    ("gptshake task=find_lr model=tiny data=wiki_char", "a learning rate before the run; then optimizer.lr=from:<run>"),
    ("gptshake -m model=tiny data=wiki_char optimizer.lr=range", "find the learning rate; data.batch_size=range too"),
    ("gptshake -m model=tiny,baby data=wiki_char seed=1,2", "one run for each combination, side by side"),
    ("gptshake task=report study=<name>", "what a sweep has found, at any time"),
    ("gptshake resume=<run>", "continue a stopped or killed run, bit for bit"),
    ("gptshake task=runs task.sort=val/bpb", "all runs, the best first; task.filter='model=tiny lr>1e-3'"),
    ("gptshake task=clean", "disk usage of caches, checkpoints and studies"),
    ("gptshake task=diff task.runs=[<run>,<run>]", "what differs between runs, from config and code to curves"),
    ("gptshake task=sample task.run=<run> task.prompt='The '", "write text with a trained model"),
    ("gptshake task=journal", "a research journal of all runs, around your own words"),
    ("gptshake task=reproduce task.run=<run> task.steps=50", "repeat it with its own code, and compare bit for bit"),
    ("gptshake model=gpt3_small data=wiki_char --cfg job", "show the whole config and run nothing"),
    ("gptshake model=gpt3_small data=wiki_char debug=smoke", "a few steps through everything"),
)


def help_page(columns: int | None = None) -> str:
    """The page as text: what it is, everyday commands, tasks and groups with their options.

    Args:
        columns: of the widest line; by default those of the terminal, of a file 80.
    """
    columns = columns or _columns()
    texts = [
        f"gptshake {__version__}: train small GPTs from scratch and find the learning rate and batch size that work.",
        "",
        "Usage: gptshake [flags] key=value ...    (or python -m gptshake)",
        "",
        "Everyday commands:",
        *_commands(columns),
        "",
        "Groups and their options:",
        *(_fill(f"  {f'{group}=':<13} {', '.join(options(group))}", columns, indent=16) for group in GROUPS if options(group)),
        "",
        "Any key of the config can be set: gptshake model=tiny data=wiki_char --cfg job prints them all.",
        "Flags: -m several runs | --dirty run with uncommitted changes | --cfg job show the config | --info | --help | --version",
        "Your own options go into ./conf/<group>/<name>.yaml. HYDRA_FULL_ERROR=1 shows tracebacks.",
    ]
    return "\n".join(_fill(text, columns) for text in texts)


def _columns() -> int:
    """Columns of the widest line of help: those of the terminal, of a file 80."""
    console = Console()
    return min(WIDEST, console.size().columns - 1 if console.terminal else 80)


def _commands(columns: int) -> list[str]:
    """Each command with what it does, in one line or in two."""
    width = max(len(command) for command, _ in _COMMANDS) + 2
    if columns >= width + max(len(what) for _, what in _COMMANDS) + 2:
        return [f"  {command:<{width}}{what}" for command, what in _COMMANDS]
    return [_fill(text, columns, indent=6) for command, what in _COMMANDS for text in (f"  {command}", f"      {what}")]


def _fill(text: str, columns: int, indent: int = 0) -> str:
    """The lines of a text, each broken at spaces where it is too long; what follows begins after ``indent`` spaces."""
    look: dict[str, Any] = {"subsequent_indent": " " * indent, "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(line if len(line) <= columns else textwrap.fill(line, columns, **look) for line in text.split("\n"))


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
        raise ConfigError(no_such_option(group, option))
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


def _rows(group: str, option: str, types: Mapping[str, str] = MappingProxyType({})) -> Iterator[Row]:
    """The keys of an option, those first that it takes over from another one."""
    text = _text(group, option)
    package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    prefix = {None: f"{group}.", "_global_": ""}.get(package and package[1], f"{package and package[1]}.")
    content = yaml.safe_load(text)
    types = {**types, **_types(group, content)}
    for entry in content.get("defaults", []) if isinstance(content, dict) else []:
        if isinstance(entry, dict):
            yield from ((str(name).removeprefix("override /"), str(value), "group", "") for name, value in entry.items())
        elif entry != "_self_" and not entry.partition("@")[0].endswith("_schema"):
            other = entry.partition("@")[0].lstrip("/").split("/")
            yield from _rows(other[0] if len(other) == 2 else group, other[-1], types)
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
    schemas = [schema for name, schema in SCHEMAS.get(group, {}).items() if f"{name}_schema" in named]
    found = {field.name: getattr(field.type, "__name__", str(field.type)) for schema in schemas for field in fields(schema)}
    return {name: kind.replace("None", "null").replace("str", "text") for name, kind in found.items() if kind != "Any"}


def _text(group: str, option: str) -> str:
    file = option_files(group, option)[-1]
    return file.read_text(encoding="utf-8")


def _about(text: str) -> str:
    """The comment at the head of a file."""
    head = re.match(r"(?:#.*\n)*", text)
    lines = [line.lstrip("# ") for line in (head[0] if head else "").splitlines() if not line.startswith("# @package")]
    return " ".join(lines)


def _wrapped(start: str, text: str) -> str:
    return _fill(f"{start}{text}".rstrip(), max(_columns(), 60), min(len(start), 16))
