"""``--help``: the page of everyday commands, and of an option its keys with default, type and comment.

Read from the config files alone: no Hydra, so it appears at once.
"""

import itertools
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

import yaml

from gptshake import __version__
from gptshake.config.layout import GROUPS, option_files, options
from gptshake.config.schemas import SCHEMAS
from gptshake.config.suggestions import no_such_option
from gptshake.console import Console
from gptshake.errors import ConfigError, nearest
from gptshake.keys import key_of

WIDEST = 140  # columns; longer lines are hard to read
_HIDDEN = ("defaults", "documents", "trains", "sweeps")  # not for the shell
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
    ("gptshake task=evaluate task.run=[<run>,<run>]", "loss and bits per byte, also on another text: data="),
    ("gptshake task=journal", "a research journal of all runs, around your own words"),
    ("gptshake task=reproduce task.run=<run> task.steps=50", "repeat it with its own code, and compare bit for bit"),
    ("gptshake model=gpt3_small data=wiki_char --cfg job", "show the whole config and run nothing"),
    ("gptshake model=gpt3_small data=wiki_char debug=smoke", "a few steps through everything"),
)


def help_page(columns: int | None = None) -> str:
    """The page as text, at most ``columns`` wide (by default as the terminal, in a file 80): what it is, everyday commands, groups with their options."""
    columns = columns or _columns()
    width = max(len(command) for command, _ in _COMMANDS) + 2  # of the column of commands
    one_line = columns >= width + max(len(what) for _, what in _COMMANDS) + 2
    texts = [
        f"gptshake {__version__}: train small GPTs from scratch and find the learning rate and batch size that work.",
        "",
        "Usage: gptshake [flags] key=value ...    (or python -m gptshake)",
        "",
        "Everyday commands:",
        *(f"  {command:<{width}}{what}" if one_line else f"  {command}\n      {what}" for command, what in _COMMANDS),
        "",
        "Groups and their options:",
        *(_fill(f"  {f'{group}=':<13} {', '.join(options(group))}", columns, indent=16) for group in GROUPS if options(group)),
        "",
        "Any key of the config can be set: gptshake model=tiny data=wiki_char --cfg job prints them all.",
        "Flags: -m several runs | --dirty run with uncommitted changes | --cfg job show the config | --info | --help | --version",
        "Your own options go into ./conf/<group>/<name>.yaml. HYDRA_FULL_ERROR=1 shows tracebacks.",
    ]
    return "\n".join(_fill(text, columns, indent=6 if text.startswith("  ") else 0) for text in texts)


def _columns() -> int:
    console = Console()
    return min(WIDEST, console.size().columns - 1 if console.terminal else 80)


def _fill(text: str, columns: int, indent: int = 0) -> str:
    """The lines of a text, each broken at spaces where it is too long; what follows begins after ``indent`` spaces."""
    look: dict[str, Any] = {"subsequent_indent": " " * indent, "break_long_words": False, "break_on_hyphens": False}
    return "\n".join(line if len(line) <= columns else textwrap.fill(line, columns, **look) for line in text.split("\n"))


def _wrapped(start: str, text: str) -> str:
    return _fill(f"{start}{text}".rstrip(), max(_columns(), 60), min(len(start), 16))


def pages(overrides: list[str]) -> str | None:
    """Help about the groups and options that a command line names; None if it names none."""
    texts = []
    for text in overrides:
        group, equals, option = key_of(text), "=" in text, text.partition("=")[2]
        if not equals and group in options("task"):
            group, option = "task", group
        if group in GROUPS and not option:
            width = max(map(len, options(group))) + 2
            lines = [_wrapped(f"  {name:<{width}}", _summary(_text(group, name))) for name in options(group)]
            texts.append("\n".join([f"{group}= is one of (keys of each: gptshake {group}=<option> --help)", *lines]))
        for name in option.strip("[]").split(",") if group in GROUPS and option else ():
            if name not in options(group):
                raise ConfigError(no_such_option(group, name))
            rows: dict[str, tuple[str, str, str]] = {}
            for key, default, kind, comment in _rows(group, name, {}):
                rows[key] = (default, kind, comment or rows.get(key, ("", "", ""))[2])
            lines = [_wrapped(f"{group}={name}: ", _summary(_text(group, name))), "" if rows else "It has no keys."]
            for key, (default, kind, comment) in rows.items():
                lines.append(f"  {key}={default}" + (f"  ({kind})" if kind else ""))
                lines += [_wrapped(" " * 6, comment)] if comment else []
            texts.append("\n".join(lines))
        if group not in GROUPS and not equals:
            raise ConfigError(f"There is no task and no group {group!r}{nearest(group, (*GROUPS, *options('task')))}")
    return "\n\n".join(texts) or None


def _rows(group: str, option: str, types: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Key, default, type and comment of each key of an option, those first that it takes over from another one."""
    text = _text(group, option)
    package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    prefix = f"{package[1] if package else group}.".removeprefix("_global_.")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    defaults = (yaml.safe_load(text) or {}).get("defaults", ())
    for name, schema in SCHEMAS.get(group, {}).items():
        if any(str(entry).partition("@")[0] == f"{name}_schema" for entry in defaults):
            kinds = {field.name: getattr(field.type, "__name__", str(field.type)) for field in fields(schema)}
            types = {**types, **{key: kind.replace("None", "null").replace("str", "text") for key, kind in kinds.items() if kind != "Any"}}
    for entry in defaults:
        if isinstance(entry, dict):
            yield from ((str(name).removeprefix("override /"), str(value), "group", "") for name, value in entry.items())
        elif entry != "_self_" and not entry.partition("@")[0].endswith("_schema"):
            *folder, name = entry.partition("@")[0].lstrip("/").split("/")
            yield from _rows(folder[0] if folder else group, name, types)
    for path, value, comment in _leaves(root, text.splitlines()) if root else ():
        if not set(path) & set(_HIDDEN) and not any(name.startswith("_") for name in path):
            read = 1.0 if re.fullmatch(r"[-+]?\d+[eE][-+]?\d+", value) else yaml.safe_load(value)  # 3e-4: text in YAML 1.1 alone
            kind = types.get(path[-1]) or type(read).__name__.replace("NoneType", "").replace("str", "text")
            yield prefix + ".".join(path), value, kind, comment


def _leaves(node: yaml.MappingNode, lines: list[str], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Path, value and comment of each key, as they are written."""
    for key, value in node.value:
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            yield from _leaves(value, lines, (*above, key.value))
            continue
        line, end = lines[key.start_mark.line], value.end_mark.column if value.end_mark.line == key.start_mark.line else None
        comment = re.search(r"\s# *(.*)", line[end:] if end else "")
        yield (*above, key.value), line[value.start_mark.column : end].strip(), comment[1] if comment else ""


def _text(group: str, option: str) -> str:
    return option_files(group, option)[-1].read_text(encoding="utf-8")


def _summary(text: str) -> str:
    head = itertools.takewhile(lambda line: line.startswith("#"), text.splitlines())
    return " ".join(line.lstrip("# ") for line in head if not line.startswith("# @package"))
