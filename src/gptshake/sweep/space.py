"""From overrides and declared ranges to the axes of a study. Pure: parsed overrides in, plain axes out.

A list is an axis of choices; an interval is a numeric axis; the bare word ``range`` is the range that the config declares
for its key, in the shell's own grammar. A swept value is written back in that grammar, too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil, log2
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from gptshake.errors import ConfigError

Value = float | int | str
Params = dict[str, Value]  # key of an axis -> value
RANGE = "range"  # the word that stands for the declared range
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
        """Whether it is a range of numbers."""
        return self.low is not None

    @property
    def finite(self) -> list[Value] | None:
        """All values of a list, of powers of two, or of a short range of integers; None where there are too many."""
        if not self.numeric:
            return list(self.choices)
        low, high = self.bounds
        if self.powers:
            return [2**exponent for exponent in range(ceil(log2(low)), int(log2(high)) + 1)]
        integers = range(ceil(low), int(high) + 1)
        return list(integers) if self.integer and len(integers) <= MOST_INTEGERS else None

    @property
    def bounds(self) -> tuple[float, float]:
        """Both ends of a numeric axis."""
        if self.low is None or self.high is None:
            raise ValueError(f"{self.key} is a list")
        return self.low, self.high

    def override(self, value: Value) -> str:
        """The value as the shell would give it."""
        return f"{self.key}={value!r}" if isinstance(value, float) else f"{self.key}={value}"

    def plain(self) -> dict[str, Any]:
        """As a row of study.json."""
        return asdict(self) | {"choices": list(self.choices)}


def is_declared_range(override: Override) -> bool:
    """Whether the bare word ``range`` was given; the command line has made ``choice(range)`` of it."""
    return (override.input_line or "").partition("=")[2] == f"choice({RANGE})"  # the parsed value has lost its quotes


def axis_of(override: Override, ranges: Mapping[str, str], declared: Callable[[str], tuple[Any, bool]]) -> Axis:
    """The axis that a swept override means.

    Args:
        override: a list, a range or an interval.
        ranges: key -> declared range.
        declared: key -> (value that the config has without the sweep, whether the key holds integers).
    Raises:
        ConfigError: a key without a declared range, or a range that holds one value.
    """
    key = override.key_or_group
    if is_declared_range(override):
        override = _declared_range(override, ranges)
    value, integer = declared(key)
    start = value if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
    swept = override.value()
    if isinstance(swept, IntervalSweep):
        return _numeric(override.get_key_element(), swept, integer, start)
    if isinstance(swept, RangeSweep):
        _refuse_one_value(override, swept)
    return Axis(override.get_key_element(), choices=_choices(override), declared=start)


def _declared_range(override: Override, ranges: Mapping[str, str]) -> Override:
    key = override.key_or_group
    if key not in ranges:
        known = ", ".join(sorted(ranges)) or "none"
        raise ConfigError(
            f"{key}=range: no range is declared for {key} (declared: {known}). Write one, as {key}=interval(1,10), {key}=tag(log,interval(1e-5,1e-2)) "
            f"or {key}=choice(a,b), or declare it: search_space: {{{key}: 'interval(1,10)'}} in an experiment or in conf/search_space/."
        )
    text = f"{override.get_key_element()}={ranges[key]}"
    parsed = OverridesParser.create(config_loader=override.config_loader).parse_override(text)
    if not parsed.is_sweep_override():
        raise ConfigError(f"search_space declares {key}: {ranges[key]}, which is no range; write interval(1,10) or choice(a,b).")
    return parsed


def _numeric(key: str, swept: IntervalSweep, integer: bool, declared: Value | None) -> Axis:
    low, high = swept.start, swept.end
    if low is None or high is None or not low < high:
        raise ConfigError(f"{key}: an interval goes from a smaller number to a larger one, as interval(1e-5,1e-2).")
    log, powers = "log" in swept.tags, "powers_of_two" in swept.tags
    if (log or powers) and low <= 0:
        raise ConfigError(f"{key}: a logarithmic interval begins above 0.")
    whole = powers or integer or (isinstance(low, int) and isinstance(high, int))
    return Axis(
        key, low, high, log=log or powers, integer=whole, powers=powers, declared=declared if isinstance(declared, (int, float)) else None
    )


def _refuse_one_value(override: Override, swept: RangeSweep) -> None:
    values = list(swept.range())
    if len(values) == 1 and isinstance(swept.start, float):
        inside = override.get_value_string().split("(", 1)[-1].rstrip(")")
        key = override.get_key_element()
        raise ConfigError(
            f"{key}={override.get_value_string()} steps by 1, so it is the one value {values[0]:g}. For everything between write "
            f"{key}=interval({inside}), on a log scale {key}=tag(log,interval({inside}))."
        )


def _choices(override: Override) -> tuple[Value, ...]:
    texts = list(override.sweep_string_iterator())
    values = list(override.sweep_iterator())
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return tuple(value for value in values if isinstance(value, (int, float)))
    return tuple(texts)


def overrides_of(axes: Sequence[Axis], params: Params) -> list[str]:
    """One point as overrides, in the order of the axes."""
    return [axis.override(params[axis.key]) for axis in axes if axis.key in params]
