"""The command line as people type it, rewritten as Hydra reads it: flags first, and the values of keys that hold free text quoted.

Hydra's grammar does not take quotes, commas, ``=``, ``#`` and characters beyond ASCII as they are.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptshake.config.schemas import LIST_KEYS, TEXT_KEYS
from gptshake.config.suggestions import suggest_for_flag
from gptshake.errors import ConfigError
from gptshake.keys import key_of

SWEPT_TEXTS = ("data.", "tokenizer.", "init_from")  # free texts of which -m takes several, one after the other
SWEEP_KEYS = ("repeats", "confirm", "ablate", "enqueue")  # short for hydra.sweeper.<key>; mean nothing to a single run
SWEEP_PARTS = ("study", "sampler", "pruner", "executor")  # nor do these: which study, and its parts
NONE_BY_DEFAULT = ("experiment", "debug", "sampler")  # groups that may have no option
_QUOTED = re.compile(r"""('(\\.|[^'\\])*'|"(\\.|[^"\\])*")(,('(\\.|[^'\\])*'|"(\\.|[^"\\])*"))*""", re.DOTALL)  # one, or several to sweep
_CFG = ("job", "hydra", "all")
_FLAGS_WITH_VALUE = ("--package", "-p", "--shell-completion", "-sc")
_MODES = ("--multirun", "--run", "--cfg", "--info")  # Hydra takes one
_LONG = {"-m": "--multirun", "-r": "--run"}
_PLAIN_FLAGS = ("--multirun", "-m", "--run", "-r", "--resolve", "--hydra-help")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_REFUSED = dict.fromkeys(("--config-path", "-cp"), "the packaged config is the primary one; --config-dir <folder> adds your own")
_REFUSED |= dict.fromkeys(("--config-name", "-cn"), "there is one primary config; experiment=<name or path.yaml> is a recipe over it")


@dataclass
class Arguments:
    """What was asked for: Hydra's flags, overrides, and our own flags."""

    flags: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    help: bool = False
    version: bool = False
    config_dir: str | None = None  # a folder like ./conf
    origin: dict[str, Any] = field(default_factory=dict)  # for the record: which run a value was taken from

    @property
    def multirun(self) -> bool:
        return "-m" in self.flags or "--multirun" in self.flags

    @property
    def shows_only(self) -> bool:
        """Whether Hydra only prints something (``--cfg``, ``--info``, ...) and nothing runs."""
        return any(flag.startswith("-") and (flag == "--hydra-help" or flag not in _PLAIN_FLAGS) for flag in self.flags)

    def argv(self) -> list[str]:
        """Arguments in the order that Hydra's parser takes."""
        return self.flags + self.overrides


def parse(raw: list[str]) -> Arguments:
    """Sort raw arguments into flags and overrides, wherever they stand."""
    arguments = Arguments()
    words, multirun = iter(raw), bool({"-m", "--multirun"} & set(raw))
    for word in words:
        name, equals, value = word.partition("=")
        if word in ("--help", "-h"):
            arguments.help = True
        elif word == "--version":
            arguments.version = True
        elif word == "--dirty":
            arguments.overrides.append("dirty=true")
        elif name in ("--info", "-i"):  # Hydra would take the next override for its value
            arguments.flags.append(f"--info={value or 'all'}")
        elif arguments.flags[-1:] == ["--info=all"] and word in _INFO:
            arguments.flags[-1] = f"--info={word}"
        elif name in _REFUSED:
            raise ConfigError(f"{name} is not supported: {_REFUSED[name]}.")
        elif name in ("--config-dir", "-cd"):
            arguments.config_dir = value or _value_of(word, words)
        elif name in ("--cfg", "-c"):
            if (part := value or _value_of(word, words)) not in _CFG:
                raise ConfigError(f"{name} {part} shows nothing: it is one of {', '.join(_CFG)}.")
            arguments.flags.append(f"--cfg={part}")
        elif word in _FLAGS_WITH_VALUE:
            given = _value_of(word, words)
            if word in _FLAGS_WITH_VALUE[2:] and given.partition("=")[0] not in ("install", "uninstall", "query"):
                raise ConfigError(f"{word} {given} does nothing: it is install=, uninstall= or query= and the name of a shell.")
            arguments.flags += [word, given]
        elif word in _PLAIN_FLAGS or name in _FLAGS_WITH_VALUE:
            arguments.flags.append(word)
        elif word.startswith("-"):
            hint = suggest_for_flag(word, next(words, "-"))
            raise ConfigError(
                f"{word} is not a flag of gptshake{hint} It takes -m, --dirty, --cfg job, --help, --version and key=value pairs."
            )
        elif arguments.overrides and (word.startswith("=") or (arguments.overrides[-1].endswith("=") and "=" not in word)):
            whole = arguments.overrides[-1] + word + (next(words, "") if word == "=" else "")
            raise ConfigError(f"There is a space beside the = of {whole}: leave it out.")
        elif equals and not key_of(word):
            raise ConfigError(f"{word} has no key: an override is written key=value.")
        elif equals and name in NONE_BY_DEFAULT and value == "null":  # takes an earlier option of the group back
            arguments.overrides = [text for text in arguments.overrides if key_of(text) != name]
        else:
            arguments.overrides.append(quote_text(_sweep_words(word), multirun=multirun))
    if not arguments.multirun and any(text.startswith("hydra.sweeper.repeats=") for text in arguments.overrides):
        arguments.flags.append("--multirun")  # repeats=3 of one configuration: as many runs
    flags = {flag.partition("=")[0] for flag in arguments.flags}
    if arguments.multirun and (shown := flags & {"--cfg", "--info"}):
        raise ConfigError(f"{shown.pop()} shows the config of one run: leave -m, repeats= and several values out.")
    if len(modes := sorted({_LONG.get(flag, flag) for flag in flags}.intersection(_MODES))) > 1:
        raise ConfigError(f"{' and '.join(modes)} exclude each other: leave one of them out.")
    if (package := flags & {"--package", "-p"}) and "--cfg" not in flags:
        raise ConfigError(f"{package.pop()} selects what --cfg shows, as in --cfg job -p optimizer; without --cfg it has no effect.")
    return arguments


def _value_of(flag: str, words: Iterator[str]) -> str:
    value = next(words, "")
    if not value or value.startswith("-"):
        raise ConfigError(f"{flag} needs a value after it; --help shows the everyday commands.")
    return value


def _sweep_words(override: str) -> str:
    """``range`` as ``choice(range)``, which a typed number accepts; ``repeats=`` and its like as keys of the sweeper, changes of ``ablate=`` quoted."""
    key, equals, value = override.partition("=")
    if equals and value.strip() == "range" and key not in TEXT_KEYS:
        return f"{key}=choice(range)"
    if (key := key.removeprefix("hydra.sweeper.")) not in SWEEP_KEYS:
        return override
    if key == "ablate":
        changes = split(value.strip().removeprefix("[").removesuffix("]"))
        value = f"[{','.join(change if _QUOTED.fullmatch(change) else quote(change) for change in changes)}]"
    return f"hydra.sweeper.{key}={value}"


def split(text: str) -> list[str]:
    """The parts of ``a=1,b=[2,3]`` between the commas outside of brackets and quotes."""
    parts, depth, quoted = [""], 0, ""
    for character in text:
        depth += (character in "[{(") - (character in "]})")
        if character in "'\"" and quoted in ("", character):
            quoted = "" if quoted else character
        if character == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def swept_values(value: str) -> list[str]:
    """The values of ``a,b`` or ``choice(a,b)``, as they were typed; none of a single value, or where there is a file that is called so."""
    inner = value.removeprefix("choice(").removesuffix(")") if value.startswith("choice(") else value
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or no name at all
        if Path(value).exists():
            return []
    return parts if (parts := split(inner)) and (inner != value or len(parts) > 1) else []


def quote_text(override: str, *, multirun: bool = False) -> str:
    """Quote the value of a key that holds free text, unless it is quoted or ``null`` already; of a list of paths, each.

    With ``-m`` a comma, or ``choice(...)``, makes several values of a path or a name, unless there is a file that is called so.
    """
    key, equals, value = override.partition("=")
    plain = key.lstrip("+")
    if not equals or plain not in TEXT_KEYS or value in ("", "null"):
        return override

    def quoted(text: str) -> str:
        if plain in LIST_KEYS and text.startswith("[") and text.endswith("]"):
            return f"[{','.join(path if _QUOTED.fullmatch(path) else quote(path) for path in split(text[1:-1]))}]"
        return text if _QUOTED.fullmatch(text) else quote(text)

    if multirun and plain.startswith(SWEPT_TEXTS) and (parts := swept_values(value)):
        return f"{key}=choice({','.join(map(quoted, parts))})"
    return f"{key}={quoted(value)}"


def quote(text: str) -> str:
    """A text as a quoted string of Hydra's grammar, where backslashes count only in front of a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + (found[2] and "\\'"), text, flags=re.DOTALL) + "'"


def override_value(value: Any) -> str:
    """A plain value as Hydra's grammar reads it back: null, true, a number, a quoted text, a list of these."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(override_value(item) for item in value)}]"
    return quote(value) if isinstance(value, str) else repr(value)
