"""From overrides and configured ranges to the axes of a study. Pure: parsed overrides in, plain axes out.

A list is an axis of choices; an interval is a numeric axis; the bare word ``range`` is the range that the config declares
for its key, in the shell's own grammar. A swept value is written back in that grammar, too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from math import ceil, floor, inf, isfinite, log2, log10
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep
from hydra.errors import HydraException

from gptshake.errors import ConfigError, nearest
from gptshake.keys import key_of

Value = float | int | str
Params = dict[str, Value]  # key of an axis -> value
RANGE = "range"  # the word that stands for the configured range
TAGS = ("log", "powers_of_two", "law", "adamw")  # that an interval may have
MOST_VALUES = 10_000  # of a list or a range
MOST_INTEGERS = 16  # an integer range up to this size is a list


@dataclass(frozen=True)
class Axis:
    """One thing that varies from trial to trial."""

    key: str  # as it was typed: "optimizer.lr", "scheduler", "+a"
    low: float | None = None  # of a numeric axis; both ends are included
    high: float | None = None
    log: bool = False
    integer: bool = False
    powers: bool = False  # powers of two only
    choices: tuple[Value, ...] = ()  # of a list: numbers as numbers, everything else as shell text
    declared: Value | None = None  # what the config says without the sweep

    @property
    def numeric(self) -> bool:
        return self.low is not None

    @property
    def finite(self) -> list[Value] | None:
        """All values of a list, of powers of two, or of a short range of integers; None where there are too many."""
        if not self.numeric:
            return list(self.choices)
        low, high = self.bounds
        if self.powers:
            return [2**exponent for exponent in range(ceil(log2(low)), floor(log2(high)) + 1)]
        integers = range(ceil(low), floor(high) + 1)
        return list(integers) if self.integer and len(integers) <= MOST_INTEGERS else None

    @property
    def bounds(self) -> tuple[float, float]:
        if self.low is None or self.high is None:
            raise ValueError(f"{self.key} is a list")
        return self.low, self.high

    def override(self, value: Value) -> str:
        return f"{self.key}={value!r}" if isinstance(value, float) else f"{self.key}={value}"

    def plain(self) -> dict[str, Any]:
        return asdict(self) | {"choices": list(self.choices)}


@dataclass(frozen=True)
class Point:
    """A point that was tried, or is being tried."""

    number: int
    params: Params
    value: float | None  # lower is better
    state: str  # running, ok, pruned, diverged, failed

    @property
    def loss(self) -> float:
        """The value; infinite where there is none, as a pruned or diverged point bounds the search on its side."""
        return self.value if self.state == "ok" and self.value is not None else inf


def three_digits(axis: Axis, exact: Value) -> Value:
    """A value in three digits, which are enough for people and for losses; values of lists stay as they are.

    On a linear axis at least three digits of the range: from 1000 to 1010 it has a value every 0.01.
    """
    if not axis.numeric or axis.powers or isinstance(exact, str):
        return exact
    low, high = axis.bounds
    decimals = 2 - floor(log10(abs(exact))) if exact else 0
    inside = min(max(round(exact, decimals if axis.log else max(decimals, 3 - ceil(log10(high - low)))), low), high)
    return min(max(round(inside), ceil(low)), floor(high)) if axis.integer else float(inside)


def is_configured_range(override: Override) -> bool:
    """Whether the bare word ``range`` was given; the command line has made ``choice(range)`` of it."""
    return (override.input_line or "").partition("=")[2] == f"choice({RANGE})"  # the parsed value has lost its quotes


def axis_of(override: Override, ranges: Mapping[str, str], configured: Callable[[str], tuple[Any, bool]]) -> Axis:
    """The axis that a swept override means.

    Args:
        override: a list, a range or an interval.
        ranges: key -> configured range.
        configured: key -> (value that the config has without the sweep, whether the key holds integers).
    """
    if is_configured_range(override):
        override = _configured_range(override, ranges)
    key, (value, integer) = override.get_key_element(), configured(override.key_or_group)
    start = value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    swept = override.value()
    if not isinstance(swept, IntervalSweep):
        texts, values = texts_of(override), list(override.sweep_iterator())
        if isinstance(swept, RangeSweep) and len(texts) == 1 and isinstance(swept.start, float):
            inside = override.get_value_string().split("(", 1)[-1].rstrip(")")
            raise ConfigError(
                f"{key}={override.get_value_string()} steps by 1, so it is the one value {float(texts[0]):g}. For everything between write "
                f"{key}=interval({inside}), on a log scale {key}=tag(log,interval({inside}))."
            )
        if any(value != value for value in values):
            raise ConfigError(f"{key}: nan is not a valid value.")
        numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
        choices: dict[Any, None] = dict.fromkeys(values if numbers else texts)
        return Axis(key, choices=tuple(choices), declared=start)
    _check_tags(override, swept)
    low, high = swept.start, swept.end
    if low is None or high is None or not low < high or not (isfinite(low) and isfinite(high)):
        raise ConfigError(f"{key}: an interval goes from a smaller number to a larger one, both finite, as interval(1e-5,1e-2).")
    log, powers = "log" in swept.tags, "powers_of_two" in swept.tags
    if (log or powers) and low <= 0:
        raise ConfigError(f"{key}: a logarithmic interval begins above 0.")
    whole = powers or integer or (isinstance(low, int) and isinstance(high, int))
    axis = Axis(key, low, high, log=log or powers, integer=whole, powers=powers, declared=None if isinstance(start, str) else start)
    if axis.finite == []:
        kind = "power of two" if powers else "whole number"
        raise ConfigError(f"{key}: there is no {kind} from {low:g} to {high:g}; widen the interval.")
    return axis


def _configured_range(override: Override, ranges: Mapping[str, str]) -> Override:
    key, how = override.key_or_group, "write interval(1,10) or choice(a,b)"
    if key not in ranges:
        known = ", ".join(sorted(ranges)) or "none"
        raise ConfigError(
            f"{key}=range: search_space has no range for {key} (it has: {known}). Write one, as {key}=interval(1,10), {key}=tag(log,interval(1e-5,1e-2)) "
            f"or {key}=choice(a,b), or add one to search_space, as search_space: {{{key}: 'interval(1,10)'}} in an experiment or in conf/search_space/."
        )
    text = f"{override.get_key_element()}={ranges[key]}"
    try:
        parsed = OverridesParser.create(config_loader=override.config_loader).parse_override(text)
    except HydraException as error:
        raise ConfigError(f"search_space declares {key}: {ranges[key]}, which cannot be read; {how}.") from error
    if not parsed.is_sweep_override():
        raise ConfigError(f"search_space declares {key}: {ranges[key]}, which is not a range; {how}.")
    return parsed


def _check_tags(override: Override, swept: Any) -> None:
    """Refuse tags that mean nothing: a mistyped ``log`` would be searched on a linear scale in silence."""
    for tag in sorted(swept.tags) if isinstance(swept, Sweep) else ():
        typed = f"{override.get_key_element()}={override.get_value_string()}"
        if tag not in TAGS:
            raise ConfigError(f"{typed}: there is no tag {tag}{nearest(tag, TAGS)} Tags are log and powers_of_two.")
        if not isinstance(swept, IntervalSweep):
            raise ConfigError(f"{typed}: the tag {tag} is for an interval, as tag({tag},interval(8,256)); a list needs no tag.")


def texts_of(override: Override) -> list[str]:
    """The values of a list or a range as the shell would give them, at least one."""
    swept, typed = override.value(), f"{override.get_key_element()}={override.get_value_string()}"
    _check_tags(override, swept)
    if isinstance(swept, RangeSweep):
        numbers = [number for number in (swept.start, swept.stop, swept.step) if number is not None]
        if not all(map(isfinite, numbers)) or swept.step == 0:
            raise ConfigError(f"{typed}: a range has two finite ends and a step that is not 0, as range(1,9,2).")
    texts = list(islice(override.sweep_string_iterator(), MOST_VALUES + 1))
    if len(texts) > MOST_VALUES:
        raise ConfigError(f"{typed} holds more than {MOST_VALUES:,} values: give fewer, or everything between as interval(low,high).")
    if not texts:
        raise ConfigError(
            f"{typed} holds no value: a range goes up to its second number without it, as range(2,5), or down with a negative step."
        )
    return texts


def listed_points(enqueue: Iterable[Mapping[str, Any]], ablate: Sequence[str]) -> list[list[str]]:
    """Points that are listed and not found on axes, as overrides: those to try first; each change of an ablation, and all of them together."""
    together = [list(ablate)] if len(ablate) > 1 else []
    return [*([f"{key}={value}" for key, value in point.items()] for point in enqueue), *([text] for text in ablate), *together]


def kept(frozen: Iterable[str], changes: Iterable[str]) -> list[str]:
    """Frozen values, without the text's if a change chooses another one: they were found for the option that it replaces."""
    chosen = {"data", "tokenizer"} & {key_of(text) for text in changes}
    return [text for text in frozen if key_of(text).partition(".")[0] not in chosen]


def overrides_of(axes: Sequence[Axis], params: Params) -> list[str]:
    return [axis.override(params[axis.key]) for axis in axes if axis.key in params]
