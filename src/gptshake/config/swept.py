"""What a multirun will run, looked at before its first run begins: every value of a list, both ends of a range, every enqueued point.

Takes the overrides as typed; composes each combination of swept groups and sets the values in it, which is quick. Not here: the search.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString
from omegaconf import DictConfig, OmegaConf

from gptshake.config.arguments import SWEPT_TEXT_KEYS, key_of
from gptshake.config.compose_errors import COMPOSITION_ERRORS, checked_compose, first_choice, parse_overrides
from gptshake.config.layout import GROUPS, options
from gptshake.errors import ConfigError
from gptshake.sweep.space import Axis, axis_of, is_declared_range, texts_of

MOST_COMPOSED, MOST_SET = 64, 256  # combinations of groups, and of values in each; beyond, one axis at a time
Point = Sequence[str]  # overrides


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


def check_points(single: list[str], parsed: Sequence[Override], cfg: DictConfig, look: Callable[[DictConfig], Any]) -> None:
    """Refuse a multirun one of whose runs cannot work.

    Args:
        single: overrides of its first run.
        parsed: all overrides.
        cfg: composed from ``single``.
        look: checks a config.
    Raises:
        ConfigError: about the first value that is wrong.
    """
    swept = [override for override in parsed if override.is_sweep_override() and not override.key_or_group.startswith("hydra")]
    whole = [override for override in swept if override.key_or_group in (*GROUPS, *SWEPT_TEXT_KEYS) or override.is_add()]
    values = [override for override in swept if override not in whole]
    for point in _points([_texts(override, cfg) for override in whole], MOST_COMPOSED):
        overrides = _with(single, point)
        composed = checked_compose(overrides) if point else cfg
        look(composed)
        for chosen in _points([_texts(override, cfg) for override in values], MOST_SET):
            _check_values(overrides, composed, chosen, look)
    for override in parsed:
        entries = override.value() if override.key_or_group == "hydra.sweeper.enqueue" else ()
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict):
                look(checked_compose(_with(single, [f"{key}={value}" for key, value in entry.items()])))


def _check_values(overrides: list[str], cfg: DictConfig, chosen: Point, look: Callable[[DictConfig], Any]) -> None:
    """Check a config in which some values are others; one that cannot be set is composed, for the reason."""
    changed = cfg.copy()
    try:
        for override in parse_overrides(list(chosen)):
            OmegaConf.update(changed, override.key_or_group, override.value())
    except COMPOSITION_ERRORS:
        changed = checked_compose(_with(overrides, chosen))
    if chosen:
        look(changed)


def _points(axes: Sequence[Sequence[str]], most: int) -> Iterator[Point]:
    """Every combination; of too many every value once, beside the first ones of the others."""
    total = 1
    for texts in axes:
        total *= len(texts)
    if total <= most:
        yield from itertools.product(*axes)
        return
    first = [texts[0] for texts in axes]
    yield first
    for place, texts in enumerate(axes):
        yield from ([*first[:place], text, *first[place + 1 :]] for text in texts[1:])


def _with(overrides: Iterable[str], point: Point) -> list[str]:
    keys = {key_of(text) for text in point}
    return [*(text for text in overrides if key_of(text) not in keys), *point]


def _texts(override: Override, cfg: DictConfig) -> list[str]:
    """The values of a list, or both ends of a range, as overrides."""
    key = override.get_key_element()
    if not (override.is_interval_sweep() or is_declared_range(override)):
        return [f"{key}={text}" for text in texts_of(override)]

    def declared(name: str) -> tuple[Any, bool]:
        value = OmegaConf.select(cfg, name, throw_on_resolution_failure=False)
        return value, isinstance(value, int) and not isinstance(value, bool)

    ranges = {str(name): str(text) for name, text in (cfg.search_space or {}).items()}
    return [f"{key}={text}" for text in _ends(axis_of(override, ranges, declared))]


def _ends(axis: Axis) -> list[str]:
    """The first and the last value of an axis, all of a list."""
    if not axis.numeric:
        return [str(value) for value in axis.choices]
    low, high = (axis.finite[0], axis.finite[-1]) if axis.finite else axis.bounds
    return [str(int(end)) if float(end).is_integer() else repr(float(end)) for end in (low, high)]
