"""What a multirun will run, looked at before its first run begins: swept options, every value of a list, both ends of a range."""

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import Glob, Override
from omegaconf import DictConfig, OmegaConf

from gptshake.config.arguments import SWEEP_KEYS, SWEPT_TEXTS, Arguments
from gptshake.config.compose_errors import COMPOSITION_ERRORS, checked_compose, parse_overrides, wrong_option
from gptshake.config.layout import GROUPS, options
from gptshake.config.schemas import TEXT_KEYS
from gptshake.config.suggestions import list_options
from gptshake.errors import ConfigError
from gptshake.keys import key_of
from gptshake.sweep.space import axis_of, is_configured_range, texts_of

SWEEPER = "hydra/sweeper"
# What a sweep has once for all its runs: itself, the ranges, where files are, what may be run.
OF_THE_SWEEP = ("hydra", "study", "sampler", "pruner", "executor", "search_space", "paths", "dirty", "conf_shadow")
MOST_COMPOSED, MOST_SET = 64, 256  # combinations of groups, and of values in each; beyond, one axis at a time


def single_run_overrides(arguments: Arguments) -> list[str]:
    """The overrides of one run: of the only one, or of one of several."""
    parsed = parse_overrides(arguments.overrides)
    if not arguments.multirun:
        for override in parsed:
            text, key = override.input_line or "", str(override.key_or_group)
            if override.is_sweep_override():
                raise ConfigError(f"{text.replace('=choice(range)', '=range')} names several values: add -m to run each of them.")
            if key.startswith("hydra.sweeper."):
                short = key.removeprefix("hydra.sweeper.")
                raise ConfigError(f"{short if short in SWEEP_KEYS else key}= is for a sweep: add -m and the keys to vary.")
        return [override.input_line or "" for override in parsed]
    for override in parsed:
        if override.is_sweep_override() and re.split("[./]", key_of(override.key_or_group))[0] in OF_THE_SWEEP:
            raise ConfigError(f"{override.input_line}: this is an option of the sweep itself, and has one value.")
    keys = {override.key_or_group for override in parsed}
    if "paths.run_dir" in keys:
        raise ConfigError("paths.run_dir= names one directory, and -m makes several runs: use paths.multirun= instead.")
    if "hydra.sweeper.storage" in keys:
        raise ConfigError("hydra.sweeper.storage= was removed: a study is one journal in its own folder, multirun/<study>/journal.log.")
    return [chosen for override in parsed if override.key_or_group != SWEEPER and (chosen := first_choice(override)) is not None]


def first_choice(override: Override) -> str | None:
    """A swept list with its first value alone; of a range nothing, for what the config declares lies in it; anything else as it was written."""
    text = override.input_line or ""
    if not override.is_sweep_override():
        return text
    if override.is_interval_sweep() or is_configured_range(override):
        return None
    return f"{text.split('=', 1)[0]}={texts_of(override)[0]}"


def expand_globs(texts: list[str]) -> list[str]:
    """The overrides with the options of every swept group as a plain list: what ``glob(...)`` means, and without quotes."""
    found = []
    for text, override in zip(texts, parse_overrides(texts), strict=True):
        swept, key = override.value(), key_of(text)
        names: list[str] = []
        if isinstance(swept, Glob):
            if key not in GROUPS:
                raise ConfigError(f"{text}: glob(...) names options of a group, and {key} is none: write its values, as in {key}=1,2.")
            if not (names := swept.filter(options(key))):
                raise ConfigError(f"{text}: no option of {key} has such a name. There are: {', '.join(options(key))}.")
        elif key in GROUPS and override.is_choice_sweep() and not is_configured_range(override):
            names = [name.strip("'\"") for name in texts_of(override)]
        for name in names:
            if name == "null":
                raise ConfigError(f"{key}=null cannot be one of several options: name one for each run. {list_options(key).capitalize()}")
            if sentence := wrong_option(f"{key}={name}"):
                raise ConfigError(sentence)
        found.append(f"{key}=choice({','.join(names)})" if names and (isinstance(swept, Glob) or {"'", '"'} & set(text)) else text)
    return found


def starting_options(parsed: Sequence[Override]) -> list[str]:
    """The first option of every swept group, and the first of swept paths, as overrides of their own.

    Hydra composes a multirun's own config without what is swept, and with a group left out no key of it could be set.
    """
    fixed = {override.key_or_group for override in parsed if not override.is_sweep_override()}
    swept = [override for override in parsed if override.is_choice_sweep() and _changes_config(override.key_or_group)]
    return [text for override in swept if override.key_or_group not in fixed and (text := first_choice(override))]


def _changes_config(key: str) -> bool:
    """Whether another value is another set of keys, or of files, so that it must be composed."""
    return key in GROUPS or (key in TEXT_KEYS and key.startswith(SWEPT_TEXTS))


def each_point(
    single: list[str], parsed: Sequence[Override], cfg: DictConfig, listed: Iterable[Sequence[str]] = ()
) -> Iterator[tuple[Sequence[str], DictConfig]]:
    """The configs of a multirun with the overrides that make each: every value of a list, both ends of a range, every listed point.

    Composes each combination of swept groups and sets the values in it, which is quick.

    Args:
        single, cfg: overrides of its first run, and the config that they give.
    """
    swept = [override for override in parsed if override.is_sweep_override() and not override.key_or_group.startswith("hydra")]
    whole = [override for override in swept if _changes_config(override.key_or_group) or override.is_add()]
    values = [override for override in swept if override not in whole]
    for point in _points([_texts(override, cfg) for override in whole], MOST_COMPOSED):
        overrides = _with(single, point)
        composed = checked_compose(overrides) if point else cfg
        yield point, composed.copy()
        for chosen in filter(None, _points([_texts(override, cfg) for override in values], MOST_SET)):
            changed = composed.copy()
            try:
                set_values(changed, chosen)
            except COMPOSITION_ERRORS:  # composed, for the reason
                changed = checked_compose(_with(overrides, chosen))
            yield [*point, *chosen], changed
    for point in listed:
        yield point, checked_compose(_with(single, point))


def set_values(cfg: DictConfig, overrides: Sequence[str]) -> None:
    for override in parse_overrides(list(overrides)):
        OmegaConf.update(cfg, override.key_or_group, override.value())


def _points(axes: Sequence[Sequence[str]], most: int) -> Iterator[Sequence[str]]:
    """Every combination; of too many every value once, beside the first ones of the others."""
    if math.prod(map(len, axes)) <= most:
        yield from itertools.product(*axes)
        return
    first = [texts[0] for texts in axes]
    yield first
    for place, texts in enumerate(axes):
        yield from ([*first[:place], text, *first[place + 1 :]] for text in texts[1:])


def _with(overrides: Iterable[str], point: Sequence[str]) -> list[str]:
    keys = {key_of(text) for text in point}
    return [*(text for text in overrides if key_of(text) not in keys), *point]


def _texts(override: Override, cfg: DictConfig) -> list[str]:
    """The values of a list, or both ends of a range, as overrides."""
    key = override.get_key_element()
    if not (override.is_interval_sweep() or is_configured_range(override)):
        return [f"{key}={text}" for text in texts_of(override)]

    def configured(name: str) -> tuple[Any, bool]:
        value = OmegaConf.select(cfg, name, throw_on_resolution_failure=False)
        return value, isinstance(value, int) and not isinstance(value, bool)

    axis = axis_of(override, {str(name): str(text) for name, text in (cfg.search_space or {}).items()}, configured)
    if not axis.numeric:
        return [f"{key}={value}" for value in axis.choices]
    low, high = (axis.finite[0], axis.finite[-1]) if axis.finite else axis.bounds
    return [f"{key}={int(end) if float(end).is_integer() else repr(float(end))}" for end in (low, high)]
