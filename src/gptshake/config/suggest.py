"""Why a composition failed, as one sentence with the nearest real name.

Hydra's own words name schemas and internal nodes; here each override is looked at by itself instead: is the option
there, is the key there, does the value fit.
"""

import difflib
from collections.abc import Iterable

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gptshake.config.argv import key_of
from gptshake.config.compose import compose
from gptshake.config.layout import GROUPS, options
from gptshake.errors import ConfigError
from gptshake.sweep.space import is_declared_range, texts_of

COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError)  # ValueError: null for a group that has a default


# Groups with a default, which Hydra does not set to null.
NEVER_NULL = ("optimizer", "scheduler", "trainer", "logger", "callbacks", "task", "paths", "search_space", "pruner", "executor")


def nearest(word: str, names: Iterable[str]) -> str:
    """The end of a sentence: ``"; did you mean X?"`` if one of the names is close to the word, else a full stop."""
    names = list(names)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.6) or [name for name in names if word and name.endswith(f".{word}")][:1]
    return f"; did you mean {close[0]}?" if close else "."


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
            hint = f"; did you mean {text}=...?" if "=" not in text else "; quote text with odd characters: \"key='...'\""
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


def check_swept_options(parsed: list[Override]) -> None:
    """Look at every option of a swept group, so that the last job does not fail for what the first could have told.

    Raises:
        ConfigError: an option that is not there.
    """
    for override in parsed:
        key = key_of(override.input_line or "")
        if override.is_choice_sweep() and key in GROUPS and not is_declared_range(override):
            for option in texts_of(override):
                if sentence := _wrong_option(f"{key}={option}"):
                    raise ConfigError(sentence)


def checked_compose(overrides: list[str]) -> DictConfig:
    """Compose, and explain a failure.

    Raises:
        ConfigError: one sentence about the first thing that is wrong.
    """
    try:
        return compose(overrides)
    except COMPOSITION_ERRORS as error:
        raise _explain(overrides, error) from error


def _explain(overrides: list[str], error: Exception) -> ConfigError:
    groups = [text for text in overrides if key_of(text) in GROUPS]
    for text in groups:
        sentence = _wrong_option(text)
        if sentence:
            return ConfigError(sentence)
    try:
        base = compose(groups)
    except COMPOSITION_ERRORS as cause:
        return ConfigError(f"These options do not go together: {' '.join(groups)} ({_first_line(cause)})")
    for text in overrides:
        if text not in groups and (sentence := _wrong_value(text, base, groups)):
            return ConfigError(sentence)
    return ConfigError(_first_line(error))


def _wrong_option(text: str) -> str | None:
    group, name = key_of(text), text.partition("=")[2]
    there = options(group)
    if text.startswith("~") or name in (*there, ""):
        return None
    if name == "null":
        return f"{text}: it needs an option. {list_options(group).capitalize()}" if group in NEVER_NULL else None
    return f"{group}={name}: there is no such {group}{nearest(name, there)} There are: {', '.join(there)}."


def _wrong_value(text: str, base: DictConfig, groups: list[str]) -> str | None:
    try:
        compose([*groups, text])
    except COMPOSITION_ERRORS as error:
        key = key_of(text)
        if missing := missing_groups(base, (key.split(".")[0],)):
            return f"{text} needs {missing[0]}=; {list_options(missing[0])}"
        settable = [name for name in keys(base) if not name.startswith("preset.")]  # lr is optimizer.lr
        if not text.startswith("+") and _absent(base, key):
            return f"{key}: there is no such key{nearest(key, settable)} {_siblings(base, key)}"
        return f"{text}: {_reason(error)}"
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


def _siblings(cfg: DictConfig, key: str) -> str:
    parent = key.rpartition(".")[0]
    node = OmegaConf.select(cfg, parent, throw_on_resolution_failure=False) if parent else cfg
    if not isinstance(node, DictConfig):
        return ""
    return f"{parent or 'The root'} has: {', '.join(str(name) for name in node if not str(name).startswith('_'))}."


def _reason(error: BaseException) -> str:
    cause = error.__cause__ or error
    text = _first_line(cause)
    return text[0].lower() + text[1:]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".") + "."


def missing_groups(cfg: DictConfig, wanted: Iterable[str]) -> list[str]:
    """Which of the wanted groups have no option chosen."""
    return [group for group in wanted if group in GROUPS and OmegaConf.select(cfg, group, throw_on_resolution_failure=False) is None]


def list_options(group: str) -> str:
    """``"model is one of baby, gpt3_small, ..."``."""
    return f"{group} is one of {', '.join(options(group))}."
