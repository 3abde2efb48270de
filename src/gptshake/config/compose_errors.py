"""Why a composition failed, as one sentence with the nearest real name: is the option there, is the key there, does the value fit.

Hydra's own words name schemas and internal nodes, so each override is looked at by itself instead.
"""

import os
import re
from contextlib import suppress
from dataclasses import fields
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gptshake.config.arguments import NONE_BY_DEFAULT
from gptshake.config.compose import compose
from gptshake.config.layout import GROUPS, is_option, local_files
from gptshake.config.schemas import SCHEMAS
from gptshake.config.suggestions import all_keys, list_options, no_such_option, suggest_for_key, suggest_for_word
from gptshake.errors import ConfigError, did_you_mean, first_line, nearest
from gptshake.keys import key_of
from gptshake.record.index import flat
from gptshake.sweep.config import SweeperConfig

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # ValueError: null for a group that has a default
# Parts of OmegaConf's reasons, and what they mean to a user.
_PLAIN = {
    r"could not be converted to Integer": "it must be a whole number",
    r"could not be converted to Float": "it must be a number",
    "is not a valid bool": "it must be true or false.",
    "is not Optional": "it cannot be null.",
    "to string: ": "it must be a text.",
    "is not a ListConfig, list or tuple|annot merge DictConfig with ListConfig": "it must be a list, in brackets.",
    "is not in struct|^Key .* not in ": "there is no such key.",
    "An item is already at": "the key is there already: leave the + out.",
    "is not a subclass of|incompatible type|is not a DictConfig": "it has another shape.",
}
_KEPT = "{text}: this key cannot be removed; give it another value with {key}=, or leave it as it is."
_MIXED = ("callbacks", "search_space", "experiment", "debug")  # groups whose options may be mixed, as in callbacks=[default,mine]
SWEEPER_KEYS = tuple(f"hydra.sweeper.{field.name}" for field in fields(SweeperConfig) if field.name != "trial")


def parse_overrides(texts: list[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for text in texts:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:  # the parser's, and the lexer's, which is no OverrideParseException
            hint = suggest_for_word(text) if "=" not in text else "; quote text with odd characters: \"key='...'\"."
            raise ConfigError(f"Cannot read {text!r}: an override is written key=value{hint}") from error
    return parsed


def checked_compose(overrides: list[str], *, with_hydra: bool = False) -> DictConfig:
    """Compose, as ``compose`` does, and explain a failure."""
    parsed = parse_overrides(overrides)
    for text in overrides:
        _refuse_several(text)
    try:
        cfg = compose(overrides, with_hydra=with_hydra)
    except (*COMPOSITION_ERRORS, YAMLError, RecursionError, OSError) as error:  # OSError: a file of no keys
        raise ConfigError(_wrong_file(error) or _wrong_override(overrides, error) or f"{first_line(error)}.") from error
    for override in parsed:
        key, value, parent = override.key_or_group, override.value(), override.key_or_group.rpartition(".")[0]
        removed = (override.input_line or "").startswith("~")
        if removed and not (key in GROUPS or key.startswith("hydra.") or parent == "callbacks"):  # keys of a user's own parts may go, too
            node = OmegaConf.select(cfg, parent, throw_on_resolution_failure=False)
            if not isinstance(node, DictConfig) or str(node.get("_target_", "gptshake.")).startswith("gptshake."):
                raise ConfigError(_KEPT.format(text=f"~{key}", key=key))
        elif not removed and type(value) in (int, float) and value not in (0, 1) and isinstance(_selected(cfg, key), bool):
            raise ConfigError(f"{override.input_line}: it must be true or false.")  # OmegaConf takes every whole number for true
    return cfg


def _selected(cfg: DictConfig, key: str) -> Any:
    try:
        return OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
    except OmegaConfBaseException:
        return None


def _refuse_several(text: str) -> None:
    """Refuse a list of options for a group that takes one, which Hydra would mix, and one added to that of the defaults."""
    group, _, value = text.partition("=")
    if group.startswith("+") and group[1:] in GROUPS and not value.startswith("{"):
        raise ConfigError(f"{text}: a group has one option: leave the + out.")
    if group in GROUPS and value.startswith("["):
        names = [name.strip() for name in value.strip("[]").split(",")]
        if group not in _MIXED:
            raise ConfigError(f"{text}: {group} takes one option. For one run of each: -m {group}={','.join(names)}")
        for name in names:
            if sentence := wrong_option(f"{group}={name if name != 'null' else ''}") if value != "[]" else None:
                raise ConfigError(sentence)


def _wrong_file(error: Exception) -> str | None:
    """A sentence about a file of the user's own that is no config, includes itself, or has a key or a value that does not fit."""
    if mark := getattr(error, "problem_mark", None):
        return f"{os.path.relpath(mark.name)} is not YAML, in line {mark.line + 1}: {getattr(error, 'problem', '')}."
    including = []
    for file in local_files().values():
        content = None
        with suppress(YAMLError, UnicodeDecodeError, RecursionError):
            content = yaml.safe_load(file.read_text(encoding="utf-8"))
        if isinstance(error, OSError) and isinstance(content, str | int | float):
            return f"{os.path.relpath(file)} is no config: it has no keys."
        including += [os.path.relpath(file)] if isinstance(content, dict) and "defaults" in content else []
    if isinstance(error, RecursionError):
        return f"{' or '.join(including)} includes itself by its defaults list."
    found = re.match(
        r"In '(.+?)': (?:\w+ raised while composing config:\n(.*?)\n\s*full_key: (\S+)|Could not (?:find|load) '(\S+)'\.?\n)", str(error)
    )
    wrong = local_files().get(f"{found[1]}.yaml") if found else None
    if not found or not wrong:
        return None
    return f"{os.path.relpath(wrong)}: {f'{found[3]}: {in_plain_words(found[2])}' if found[3] else f'there is no {found[4]}, which its defaults list names.'}"


def source_hint(sentence: str, overrides: list[str]) -> str:
    """Where the key that a sentence begins with has its value from, if that is a file of the user's own; empty for the shell."""
    found = re.match(r"[a-z][\w.]+", sentence)
    if not found or any(key_of(text) == found[0] for text in overrides):
        return ""
    group, _, inside = found[0].partition(".")
    chosen = {f"{key_of(text)}/{text.partition('=')[2]}.yaml" for text in overrides}
    mine = {name: (keys(OmegaConf.load(file)), file) for name, file in local_files().items() if name in chosen}
    file = next((file for name, (has, file) in mine.items() if found[0] in has or (name.startswith(f"{group}/") and inside in has)), None)
    return f" It comes from {os.path.relpath(file)}." if file else ""


def _wrong_override(overrides: list[str], why: Exception) -> str | None:
    """A sentence about an override that cannot be composed; options before keys, as they bring the keys, and those that Hydra names first."""
    groups = [text for text in overrides if key_of(text) in GROUPS]
    if sentence := next(filter(None, map(wrong_option, groups)), None):
        return sentence
    try:
        base = compose(groups)
    except COMPOSITION_ERRORS as cause:
        if "In 'logger/" in str(cause):  # of a list of them, whose keys Hydra mixes
            named = " ".join(text for text in groups if key_of(text) in ("experiment", "debug")) or "config"
            return f"{named}: `override /logger` in a file takes one option. Name several in the shell: 'logger=[wandb,mlflow]'"
        return f"These options do not go together: {' '.join(groups)} ({first_line(cause)})"
    others = [text for text in overrides if text not in groups]
    if len(others) == 1:
        return _wrong_value(others[0], base, why)
    for text in sorted(others, key=lambda text: key_of(text) not in str(why)):
        try:
            compose([*groups, text])
        except COMPOSITION_ERRORS as error:
            return _wrong_value(text, base, error)
    return None


def wrong_option(text: str) -> str | None:
    """A sentence about ``group=option`` that is not there, or is ``null`` where one is needed; None if it is fine."""
    group, name = key_of(text), text.partition("=")[2].strip("'\"")  # a record's are quoted
    plain = re.sub(r"\.ya?ml$", "", name.removeprefix("./").lstrip("/"))
    if text.startswith("~") or name.startswith("[") or (plain and is_option(group, plain)):
        return None
    if name in ("", "null"):
        return f"{text}: it needs an option. {list_options(group).capitalize()}" if not name or group not in NONE_BY_DEFAULT else None
    return no_such_option(group, name)


def _wrong_value(text: str, base: DictConfig, error: Exception) -> str:
    key, value = key_of(text), text.partition("=")[2]
    group, parent, there = key.split(".")[0], key.rpartition(".")[0], keys(base)
    if text.startswith("~") and key in there:
        return _KEPT.format(text=text, key=key)
    if key.startswith(("sampler.", "pruner.", "executor.")):  # groups whose keys are the sweeper's
        return f"{text}: there is no such key; did you mean hydra.sweeper.{key}={value}?"
    if group in GROUPS and _selected(base, group) is None:
        return f"{text} needs {group}=; {list_options(group)}"
    if text.startswith("+") or key in (*SWEEPER_KEYS, *there):
        return f"{text}: {in_plain_words(first_line(error.__cause__ or error))}"
    here = suggest_for_key(key, value)
    other = ("preset.",) if group == "search_space" else ("preset.", "search_space.")  # lr is optimizer.lr
    unchosen = (name for name in all_keys() if _selected(base, name.partition(".")[0]) is None)
    settable = [*(name for name in there if not name.startswith(other)), *SWEEPER_KEYS, *unchosen]
    node = _selected(base, parent) if parent else base
    names = [str(name) for name in node if not str(name).startswith("_")] if isinstance(node, DictConfig) else []
    beside = f" {parent or 'The root'} has: {', '.join(names)}." if names else ""
    if isinstance(node, DictConfig) and not str(node.get("_target_", "gptshake")).startswith("gptshake"):
        beside += f" To give the code of {parent} an argument that its yaml does not name: +{text}"
    plain = key.removeprefix(f"{group}.")
    if owners := [f"{group}={option}" for option, schema in SCHEMAS.get(group, {}).items() if plain in schema.__dataclass_fields__]:
        return f"{key}: this is a key of {' and '.join(owners)}.{beside}"
    return f"{key}: there is no such key{did_you_mean(here) if here else nearest(key, settable)}{beside}"


def keys(cfg: DictConfig | ListConfig) -> list[str]:
    parts = [leaf.split(".") for leaf in flat(OmegaConf.to_container(cfg, resolve=False))]
    return list(dict.fromkeys(".".join(path[:n]) for path in parts for n in range(1, len(path) + 1)))


def in_plain_words(text: str) -> str:
    """What OmegaConf says of a value, in words that need no knowledge of it."""
    plain = next((words for pattern, words in _PLAIN.items() if re.search(pattern, text)), text)
    return f"{plain[0].lower()}{plain[1:].rstrip('.')}."
