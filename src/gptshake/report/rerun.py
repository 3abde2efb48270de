"""How to have the best trial again: its command line, and ``best.yaml``, a file for ``experiment=``.

Overrides are texts of Hydra's grammar; yaml has another one (``{a:1}`` is no pair there, ``off`` is false), so values are
read as Hydra reads them and written as yaml. Not here: what an option of a group holds; that stays Hydra's.
"""

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gptshake.estimate.words import short_count
from gptshake.report.study_stats import Best, Rows, digits, tokens_of

GROUPS = ("task", "model", "data", "tokenizer", "optimizer", "scheduler", "trainer", "logger", "callbacks")
WHOLE = ("experiment", "debug")  # groups of recipes; a recipe is built upon them
NOT_OURS = ("hydra", "paths", "dirty", "resume", "study")  # where and how it ran, not what


def overrides_of(study: Rows, best: Best) -> list[str]:
    """Everything that was said about the best trial; of two words about one key the later one."""
    latest = {_key(text): text for text in [*study["fixed"], *best.trial["overrides"]]}
    return list(latest.values())


def command(study: Rows, overrides: Iterable[str]) -> str:
    """The shell's line for one run with these overrides."""
    program = study.get("program") or "gptshake"
    start = f"python {shlex.quote(program)}" if program.endswith(".py") or "/" in program else f"python -m {shlex.quote(program)}"
    return " ".join([start, *map(quoted, overrides)])


def quoted(override: str) -> str:
    """An override whose value is safe in a shell."""
    key, equals, value = override.partition("=")
    if re.fullmatch(r"'[A-Za-z0-9_./-]+'", value):  # quoted for Hydra's grammar; the shell and we need no quotes
        value = value[1:-1]
    return f"{shlex.quote(key) if '~' in key else key}{equals}{shlex.quote(value) if value else ''}"


def use(study: Rows, folder: Path) -> str:
    """The shell's line that takes the best trial as the start of another run."""
    return command(study, [f"experiment={folder / 'best.yaml'}"])


def best_yaml(study: Rows, best: Best) -> str:
    """The best trial as an experiment of Hydra's."""
    whole, chosen, plain, unsaid = _sorted(overrides_of(study, best))
    lines = ["# @package _global_", *(f"# {line}" for line in _origin(study, best))]
    lines += [f"# Cannot be said in a file, so add it to the command line: {text}" for text in unsaid]
    if whole or chosen:
        lines += ["defaults:", *(f"  - {name}" for name in whole), *(f"  - override /{group}: {option}" for group, option in chosen)]
    if plain:
        lines += ["", *_nested(_tree(plain))]
    return "\n".join(lines) + "\n"


def _origin(study: Rows, best: Best) -> list[str]:
    length = tokens_of(study, best.trial)
    tokens = f", {short_count(length)} tokens" if length else ""
    how = f" (mean of {best.seeds} seeds)" if best.seeds > 1 else ""
    return [f"Study {study['name']}, trial {best.trial['number']}: {study['objective']} {digits(best.value)}{how}{tokens}."]


def _sorted(overrides: Iterable[str]) -> tuple[list[str], list[tuple[str, str]], list[tuple[str, str]], list[str]]:
    """Recipes to build upon, options of groups, plain keys with their values, and what a file cannot say."""
    whole, chosen, plain, unsaid = [], [], [], []
    for text in overrides:
        key, _, value = text.lstrip("+").partition("=")
        if key.lstrip("~").split(".")[0].split("/")[0] in NOT_OURS:
            continue
        if text.startswith("~") or "@" in key or "/" in key:
            unsaid.append(text)
        elif key in WHOLE:
            whole += [f"/{key}/{value}"] if value != "null" else []
        elif key in GROUPS:
            chosen.append((key, value))
        else:
            plain.append((key, value))
    return whole, chosen, plain, unsaid


def _key(override: str) -> str:
    return override.split("=", 1)[0].lstrip("+~")


def _tree(pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, text in pairs:
        *parents, leaf = key.split(".")
        place = tree
        for parent in parents:
            place = place[parent] if isinstance(place.get(parent), dict) else place.setdefault(parent, {})
        place[leaf] = Reader(text).value()
    return tree


def _nested(tree: Mapping[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{_word(key)}:", *_nested(value, indent + "  ")]
        else:
            lines.append(f"{indent}{_word(key)}: {_flow(value)}")
    return lines


def _word(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_][\w-]*", key) and key.lower() not in ("y", "n", "yes", "no", "on", "off") else json.dumps(key)


def _flow(value: Any) -> str:
    """A value as yaml in one line; JSON is yaml, but for numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{json.dumps(key)}: {_flow(item)}' for key, item in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)


class Reader:
    """Reads a value of Hydra's grammar: numbers, true, false, null, quoted and bare text, lists and dictionaries."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def value(self, ends: str = "") -> Any:
        """The value from here up to one of ``ends``, or to the end of the text."""
        self._skip_spaces()
        first = self._peek()
        if first and first in "'\"":
            return self._quoted(first)
        if first == "[":
            return [item for item, _ in self._items("]")]
        if first == "{":
            return {str(key): item for key, item in self._items("}")}
        return _scalar(self._bare(ends))

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _skip_spaces(self) -> None:
        while self._peek().isspace():
            self._at += 1

    def _items(self, close: str) -> list[tuple[Any, Any]]:
        """Items of a list, or keys with items of a dictionary, up to the closing bracket."""
        self._at += 1
        items: list[tuple[Any, Any]] = []
        self._skip_spaces()
        while self._peek() not in (close, ""):
            item = self.value(":" + close if close == "}" else "," + close)
            self._skip_spaces()
            if close == "}":
                self._at += 1  # the colon
                items.append((item, self.value("," + close)))
            else:
                items.append((item, None))
            self._skip_spaces()
            if self._peek() == ",":
                self._at += 1
                self._skip_spaces()
        self._at += 1
        return items

    def _quoted(self, quote: str) -> str:
        """Text up to the same quote; a backslash counts only in front of a quote, or of backslashes before one."""
        match = re.compile(rf"{quote}((?:\\.|[^\\{quote}])*){quote}", re.DOTALL).match(self._text, self._at)
        if match is None:
            return self._bare("")
        self._at = match.end()
        return re.sub(rf"(\\+)({quote}|$)", lambda found: "\\" * (len(found[1]) // 2) + found[2], match[1], flags=re.DOTALL)

    def _bare(self, ends: str) -> str:
        """Text up to one of ``ends`` that is in no interpolation, such as ``${a.b}``, of its own."""
        start, depth = self._at, 0
        while self._peek() and (depth or self._peek() not in ends):
            depth += (self._text.startswith("${", self._at)) - (depth > 0 and self._peek() == "}")
            self._at += 1
        return self._text[start : self._at].strip()


def _scalar(text: str) -> Any:
    word = text.lower()
    if word in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[word]
    if re.fullmatch(r"[+-]?\d+(_\d+)*", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d[\d_]*\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|inf|nan)", text):
        return float(text)
    return text
