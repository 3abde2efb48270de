"""The command line as people type it, rewritten as Hydra reads it.

Takes the raw arguments, gives flags first and overrides together, ``--dirty`` as an override, and the values of keys that
hold free text quoted (Hydra's grammar chokes on quotes, commas, ``=``, ``#`` and letters beyond ASCII).
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptshake.config.suggestions import of_a_flag
from gptshake.errors import ConfigError
from gptshake.keys import key_of

TEXT_KEYS = (
    *("note", "resume", "init_from", "study", "tokenizer.path", "data.path", "data.dataset", "data.revision", "data.text_key"),
    *("paths.runs", "paths.multirun", "paths.cache", "paths.run_dir"),
    *("task.text", "task.file", "task.pictures", "task.run", "task.runs", "task.data_path", "task.prompt", "task.filter", "task.sort"),
    *("task.html", "task.csv", "task.json", "task.latex", "task.remove", "task.folder"),
)
LIST_KEYS = ("data.path", "task.runs", "task.remove")  # take several texts, in brackets
# One after the other, with -m.
SWEPT_TEXT_KEYS = ("data.path", "data.dataset", "data.revision", "data.text_key", "tokenizer.path", "init_from")
SWEEP_KEYS = ("repeats", "confirm", "ablate", "enqueue")  # short for hydra.sweeper.<key>
NONE_BY_DEFAULT = ("experiment", "debug", "sampler")  # groups that may have no option
OF_A_SWEEP = tuple(f"hydra.sweeper.{key}" for key in SWEEP_KEYS)  # mean nothing to a single run
_QUOTED = re.compile(r"""('(\\.|[^'\\])*'|"(\\.|[^"\\])*")(,('(\\.|[^'\\])*'|"(\\.|[^"\\])*"))*""", re.DOTALL)  # one, or several to sweep
_FLAGS_WITH_VALUE = ("--cfg", "-c", "--package", "-p", "--shell-completion", "-sc")
_CONFIG_DIR = ("--config-dir", "-cd")
_REFUSED = {
    "--config-path": "the packaged config is the primary one; --config-dir <folder> adds your own",
    "-cp": "the packaged config is the primary one; --config-dir <folder> adds your own",
    "--config-name": "there is one primary config; experiment=<name or path.yaml> is a recipe over it",
    "-cn": "there is one primary config; experiment=<name or path.yaml> is a recipe over it",
}
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")
_PLAIN_FLAGS = ("--multirun", "-m", "--run", "-r", "--resolve", "--hydra-help")


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
        """Whether several runs were asked for."""
        return "-m" in self.flags or "--multirun" in self.flags

    @property
    def shows_only(self) -> bool:
        """Whether Hydra only prints something (``--cfg``, ``--info``, ...) and nothing runs."""
        silent = ("--multirun", "-m", "--run", "-r", "--resolve")
        return any(flag.startswith("-") and flag not in silent for flag in self.flags)

    def argv(self) -> list[str]:
        """Arguments in the order that Hydra's parser takes."""
        return self.flags + self.overrides


def parse(raw: list[str]) -> Arguments:
    """Sort raw arguments into flags and overrides, wherever they stand.

    Raises:
        ConfigError: for a flag that does not exist, or one that lacks its value.
    """
    arguments = Arguments()
    words, multirun = iter(raw), bool({"-m", "--multirun"} & set(raw))
    for word in words:
        if word in ("--help", "-h"):
            arguments.help = True
        elif word == "--version":
            arguments.version = True
        elif word == "--dirty":
            arguments.overrides.append("dirty=true")
        elif word in ("--info", "-i") or word.startswith("--info="):  # Hydra would take the next override for its value
            arguments.flags.append(word if "=" in word else "--info=all")
        elif arguments.flags[-1:] == ["--info=all"] and word in _INFO:
            arguments.flags[-1] = f"--info={word}"
        elif word.partition("=")[0] in _REFUSED:
            raise ConfigError(f"{word.partition('=')[0]} is not supported: {_REFUSED[word.partition('=')[0]]}.")
        elif word.partition("=")[0] in _CONFIG_DIR:
            arguments.config_dir = word.partition("=")[2] or _value_of(word, words)
        elif word in _FLAGS_WITH_VALUE:
            arguments.flags += [word, _value_of(word, words)]
        elif word in _PLAIN_FLAGS or (word.startswith("--") and word.split("=")[0] in _FLAGS_WITH_VALUE):
            arguments.flags.append(word)
        elif word.startswith("-"):
            hint = of_a_flag(word, next(words, "-"))
            raise ConfigError(
                f"{word} is not a flag of gptshake{hint} It takes -m, --dirty, --cfg job, --help, --version and key=value pairs."
            )
        elif arguments.overrides and (word.startswith("=") or (arguments.overrides[-1].endswith("=") and "=" not in word)):
            whole = arguments.overrides[-1] + word + (next(words, "") if word == "=" else "")
            raise ConfigError(f"There is a space beside the = of {whole}: leave it out.")
        else:
            arguments.overrides.append(quote_text(sweep_words(word), multirun=multirun))
    arguments.overrides = _without_none(arguments.overrides)
    return arguments


def _without_none(overrides: list[str]) -> list[str]:
    """The overrides without ``debug=null`` and its like, for which Hydra has no word, and without those that it takes back."""
    kept: list[str] = []
    for text in overrides:
        key, _, value = text.partition("=")
        if key in NONE_BY_DEFAULT and value == "null":
            kept = [other for other in kept if key_of(other) != key]
        else:
            kept.append(text)
    return kept


def _value_of(flag: str, words: Iterator[str]) -> str:
    value = next(words, "")
    if not value or value.startswith("-"):
        raise ConfigError(f"{flag} needs a value after it; --help shows the everyday commands.")
    return value


def check_flags(arguments: Arguments) -> None:
    """Refuse flags that do not go together, before Hydra does so in words of its own.

    Raises:
        ConfigError: a view of one config with ``-m``, or a package with nothing to show.
    """
    names = {flag.partition("=")[0] for flag in arguments.flags}
    shown = names & {"--cfg", "-c"}
    if arguments.multirun and (several := names & {"--cfg", "-c", "--info", "-i"}):
        raise ConfigError(f"{several.pop()} shows the config of one run: leave -m and the several values out.")
    if (package := names & {"--package", "-p"}) and not shown:
        raise ConfigError(f"{package.pop()} selects what --cfg shows, as in --cfg job -p optimizer; without --cfg it has no effect.")


def sweep_words(override: str) -> str:
    """Words of a sweep as Hydra takes them.

    The bare word ``range`` becomes ``choice(range)``, which a typed number accepts; ``repeats=`` and its like are the sweeper's
    keys; the changes of ``ablate=[a=1,b=2]`` are quoted one by one.
    """
    key, equals, value = override.partition("=")
    if equals and value.strip() == "range" and key not in TEXT_KEYS:
        return f"{key}=choice(range)"
    if key not in SWEEP_KEYS:
        return override
    if key == "ablate":
        changes = split(value.strip().removeprefix("[").removesuffix("]"))
        value = f"[{','.join(map(quote, changes))}]"
    return f"hydra.sweeper.{key}={value}"


def split(text: str) -> list[str]:
    """The parts of ``a=1,b=[2,3]`` between the commas outside of brackets and quotes."""
    parts, depth, quoted = [""], 0, ""
    for letter in text:
        depth += (letter in "[{(") - (letter in "]})")
        if letter in "'\"" and quoted in ("", letter):
            quoted = "" if quoted else letter
        if letter == "," and not depth and not quoted:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def quote_text(override: str, *, multirun: bool = False) -> str:
    """Quote the value of a key that holds free text, unless it is quoted or ``null`` already; of a list of paths, each.

    With ``-m`` a comma, or ``choice(...)``, makes several values of a path or a name, unless there is a file that is called so.
    """
    key, equals, value = override.partition("=")
    plain = key.lstrip("+")
    if not equals or plain not in TEXT_KEYS or value in ("", "null"):
        return override
    inner = value.removeprefix("choice(").removesuffix(")") if value.startswith("choice(") and value.endswith(")") else value
    if multirun and plain in SWEPT_TEXT_KEYS and not _is_there(value) and (inner != value or len(split(inner)) > 1):
        return f"{key}=choice({','.join(_quoted_text(plain, part) for part in split(inner))})"
    return f"{key}={_quoted_text(plain, value)}"


def _is_there(path: str) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a name that is too long, or no name at all
        return Path(path).exists()
    return False


def _quoted_text(key: str, value: str) -> str:
    if _QUOTED.fullmatch(value):
        return value
    if key in LIST_KEYS and value.startswith("[") and value.endswith("]"):
        return f"[{','.join(path if _QUOTED.fullmatch(path) else quote(path) for path in split(value[1:-1]))}]"
    return quote(value)


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
