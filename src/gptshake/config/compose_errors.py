"""Why a composition failed, as one sentence with the nearest real name.

Hydra's own words name schemas and internal nodes; here each override is looked at by itself instead: is the option
there, is the key there, does the value fit.
"""

import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gptshake.config.arguments import NONE_BY_DEFAULT, SWEPT_TEXT_KEYS
from gptshake.config.compose import compose
from gptshake.config.layout import GROUPS, is_option, local, options, shown
from gptshake.config.suggestions import known_key, known_option, meant, nearest, of_a_word
from gptshake.errors import ConfigError, first_line
from gptshake.keys import key_of
from gptshake.sweep.config import SweeperConfig
from gptshake.sweep.space import is_declared_range, texts_of

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # ValueError: null for a group that has a default


# Parts of OmegaConf's reasons, and what they mean to a user.
_PLAIN = {
    r"could not be converted to Integer": "it is a whole number",
    r"could not be converted to Float": "it is a number",
    "is not a valid bool": "it is true or false.",
    "is not Optional": "it cannot be null.",
    "to string: ": "it is a text.",
    "is not a ListConfig, list or tuple": "it is a list, in brackets.",
    "is not in struct": "there is no such key.",
    "is not a subclass of|incompatible type|is not a DictConfig": "it has another shape.",
}
_KEPT = "{text}: this key cannot be removed; give it another value with {key}=, or leave it as it is."
MIXED = ("callbacks", "search_space", "experiment", "debug")  # groups whose options may be mixed, as in callbacks=[default,mine]
SWEEPER_KEYS = tuple(f"hydra.sweeper.{field.name}" for field in fields(SweeperConfig))


def parse_overrides(texts: list[str]) -> list[Override]:
    """Overrides as Hydra understands them.

    Raises:
        ConfigError: naming the override that Hydra's grammar does not take.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in texts:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:  # the parser's, and the lexer's, which is no OverrideParseException
            quoted = "; quote text with odd characters: \"key='...'\""
            hint = of_a_word(text).rstrip(".") if "=" not in text else quoted
            raise ConfigError(f"Cannot read {text!r}: an override is written key=value{hint}") from error
    return parsed


def first_choice(override: Override) -> str | None:
    """A swept list with its first value alone; of a range nothing, for what the config declares lies in it; anything else as it was written."""
    text = override.input_line or ""
    if not override.is_sweep_override():
        return text
    if override.is_interval_sweep() or is_declared_range(override):
        return None
    return f"{text.split('=', 1)[0]}={texts_of(override)[0]}"


def plain_options(texts: list[str]) -> list[str]:
    """The overrides with the options of every swept group as a plain list: what ``glob(...)`` means, and without quotes.

    Raises:
        ConfigError: there is no such option.
    """
    found = []
    for text, override in zip(texts, parse_overrides(texts), strict=True):
        swept, key = override.value(), key_of(text)
        if isinstance(swept, Glob) and key in GROUPS:
            if not (chosen := swept.filter(options(key))):
                raise ConfigError(f"{text}: no option of {key} has such a name. There are: {', '.join(options(key))}.")
            text = f"{key}=choice({','.join(chosen)})"
        elif isinstance(swept, ChoiceSweep) and key in GROUPS and any(isinstance(name, QuotedString) for name in swept.list):
            text = f"{key}=choice({','.join(str(name.text if isinstance(name, QuotedString) else name) for name in swept.list)})"
        found.append(text)
    return found


def starting_options(parsed: Sequence[Override]) -> list[str]:
    """The first option of every swept group, and the first of swept paths, as overrides of their own.

    Hydra composes a multirun's own config without what is swept, and with a group left out no key of it could be set.
    """
    fixed = {override.key_or_group for override in parsed if not override.is_sweep_override()}
    swept = [override for override in parsed if override.is_choice_sweep() and override.key_or_group in (*GROUPS, *SWEPT_TEXT_KEYS)]
    return [text for override in swept if override.key_or_group not in fixed and (text := first_choice(override))]


def check_swept_options(parsed: list[Override]) -> None:
    """Look at every option of a swept group, so that a wrong one fails before the first job.

    Raises:
        ConfigError: an option that is not there.
    """
    for override in parsed:
        key = key_of(override.input_line or "")
        if override.is_choice_sweep() and key in GROUPS and not is_declared_range(override):
            for option in texts_of(override):
                if option == "null":
                    raise ConfigError(
                        f"{key}=null cannot be one of several options: name one for each run. {list_options(key).capitalize()}"
                    )
                if sentence := _wrong_option(f"{key}={option}"):
                    raise ConfigError(sentence)


def checked_compose(overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose, as ``compose`` does, and explain a failure.

    Raises:
        ConfigError: one sentence about the first thing that is wrong.
    """
    for text in overrides:
        _refuse_several(text)
    try:
        cfg = compose(overrides, with_hydra=with_hydra)
    except (*COMPOSITION_ERRORS, YAMLError, RecursionError) as error:
        if sentence := _wrong_file(error):
            raise ConfigError(sentence) from error
        raise _explain(overrides, error) from error
    for text in overrides:
        _refuse_removed(text, cfg)
    for override in parse_overrides(overrides):
        number = override.value()
        if type(number) in (int, float) and number not in (0, 1) and isinstance(_selected(cfg, override.key_or_group), bool):
            raise ConfigError(f"{override.input_line}: it is true or false.")  # OmegaConf takes every whole number for true
    return cfg


def _selected(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
    except OmegaConfBaseException:
        return None


def _refuse_several(text: str) -> None:
    """Refuse a list of options for a group that takes one; Hydra would mix them."""
    group, _, value = text.partition("=")
    if group in GROUPS and value.startswith("["):
        names = [name.strip() for name in value.strip("[]").split(",")]
        if group not in MIXED:
            raise ConfigError(f"{text}: {group} takes one option. For one run of each: -m {group}={','.join(names)}")
        for name in names:
            if sentence := _wrong_option(f"{group}={name}"):
                raise ConfigError(sentence)


def _refuse_removed(text: str, cfg: DictConfig) -> None:
    """Refuse ``~key`` for a key that the program reads; groups, callbacks and keys of a user's own parts may go."""
    key = key_of(text)
    parts = key.split(".")
    if not text.startswith("~") or key in GROUPS or parts[0] == "hydra" or (parts[0] == "callbacks" and len(parts) == 2):
        return
    node = OmegaConf.select(cfg, key.rpartition(".")[0], throw_on_resolution_failure=False)
    own = isinstance(node, DictConfig) and not str(node.get("_target_", "gptshake.")).startswith("gptshake.")
    if not own:
        raise ConfigError(_KEPT.format(text=text, key=key))


def _explain(overrides: list[str], error: Exception) -> ConfigError:
    groups = [text for text in overrides if key_of(text) in GROUPS]
    for text in groups:
        sentence = _wrong_option(text)
        if sentence:
            return ConfigError(sentence)
    try:
        base = compose(groups)
    except COMPOSITION_ERRORS as cause:
        return ConfigError(f"These options do not go together: {' '.join(groups)} ({first_line(cause)})")
    for text in overrides:
        if text not in groups and (sentence := _wrong_value(text, base, groups)):
            return ConfigError(sentence)
    return ConfigError(f"{first_line(error)}.")


def _wrong_file(error: Exception) -> str | None:
    """A sentence about a file of the user's own that is no config, includes itself, or has a key or a value that does not fit."""
    for name, file in local().items():
        try:
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (YAMLError, UnicodeDecodeError, RecursionError) as fault:
            where = getattr(fault, "problem_mark", None)
            return f"{shown(file)} is not YAML{f', in line {where.line + 1}' if where else ''}: {getattr(fault, 'problem', None) or fault}."
        if isinstance(error, RecursionError) and _leads_to(name, content, name):
            return f"{shown(file)} includes itself by its defaults list."
    found = re.match(r"In '(.+?)': .*?:\n(.*?)\n(?:.*?full_key: (\S+))?", str(error), re.DOTALL)
    file_ = local().get(f"{found[1]}.yaml") if found else None
    return f"{shown(file_)}: {found[3] or ''}: {found[2]}." if found and file_ else None


def _leads_to(name: str, content: Any, goal: str, seen: frozenset[str] = frozenset()) -> bool:
    """Whether the defaults of a local file lead back to a file."""
    group = name.rpartition("/")[0]
    for entry in content.get("defaults", []) if isinstance(content, dict) else []:
        for one, option in entry.items() if isinstance(entry, dict) else [("", entry)]:
            folder = str(one).removeprefix("override ").lstrip("/") or group
            text = str(option).partition("@")[0]
            following = (text.lstrip("/") if "/" in text else f"{folder}/{text}") + ".yaml"
            if following == goal:
                return True
            if following in local() and following not in seen:
                inner = yaml.safe_load(local()[following].read_text(encoding="utf-8"))
                if _leads_to(following, inner, goal, seen | {following}):
                    return True
    return False


def came_from(sentence: str, overrides: list[str]) -> str:
    """Where the key that a sentence begins with has its value from, if that is a file of the user's own; empty for the shell."""
    found = re.match(r"[\w.]+", sentence)
    if not found or any(key_of(text) == found[0] for text in overrides):
        return ""
    last = re.escape(found[0].rpartition(".")[2])
    files = [file for file in local().values() if re.search(rf"^\s*{last}\s*:", file.read_text(encoding="utf-8"), re.MULTILINE)]
    return f" It comes from {shown(files[0])}." if files else ""


def _wrong_option(text: str) -> str | None:
    group, name = key_of(text), text.partition("=")[2]
    plain = re.sub(r"\.ya?ml$", "", name.removeprefix("./").lstrip("/"))
    if text.startswith("~") or name.startswith("[") or not plain or is_option(group, plain):
        return None
    if name == "null":
        return f"{text}: it needs an option. {list_options(group).capitalize()}" if group not in NONE_BY_DEFAULT else None
    return f"{group}={name}: there is no such {group}{known_option(group, name)} There are: {', '.join(options(group))}."


def _wrong_value(text: str, base: DictConfig, groups: list[str]) -> str | None:
    try:
        compose([*groups, text])
    except COMPOSITION_ERRORS as error:
        key, value = key_of(text), text.partition("=")[2]
        if text.startswith("~") and not _absent(base, key):
            return _KEPT.format(text=text, key=key)
        if key.startswith(("sampler.", "pruner.", "executor.")):  # groups whose keys are the sweeper's
            return f"{text}: there is no such key; did you mean hydra.sweeper.{key}={value}?"
        if (group := key.split(".")[0]) in GROUPS and OmegaConf.select(base, group, throw_on_resolution_failure=False) is None:
            return f"{text} needs {group}=; {list_options(group)}"
        settable = [*(name for name in keys(base) if not name.startswith("preset.")), *SWEEPER_KEYS]  # lr is optimizer.lr
        if text.startswith("+") or key in SWEEPER_KEYS or not _absent(base, key):
            return f"{text}: {_reason(error)}"
        here = known_key(key, value)
        parent = key.rpartition(".")[0]
        node = OmegaConf.select(base, parent, throw_on_resolution_failure=False) if parent else base
        names = [str(name) for name in node if not str(name).startswith("_")] if isinstance(node, DictConfig) else []
        beside = f" {parent or 'The root'} has: {', '.join(names)}." if names else ""
        return f"{key}: there is no such key{meant(here) if here else nearest(key, settable)}{beside}"
    return None


def _absent(cfg: DictConfig, key: str) -> bool:
    return key not in set(keys(cfg)) and OmegaConf.select(cfg, key, throw_on_resolution_failure=False) is None


def keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    """Every dotted key of a config, leaves and nodes, values untouched."""
    found = []
    for name in map(str, cfg):
        found.append(f"{prefix}{name}")
        node = None if OmegaConf.is_missing(cfg, name) or OmegaConf.is_interpolation(cfg, name) else cfg._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none():
            found += keys(node, f"{prefix}{name}.")
    return found


def _reason(error: BaseException) -> str:
    """What OmegaConf says of a value, in words that need no knowledge of it."""
    text = first_line(error.__cause__ or error)
    plain = next((words for pattern, words in _PLAIN.items() if re.search(pattern, text)), text)
    return f"{plain[0].lower()}{plain[1:].rstrip('.')}."


def list_options(group: str) -> str:
    """``"model is one of baby, gpt3_small, ..."``."""
    return f"{group} is one of {', '.join(options(group))}."
