"""What a search is given and gives: points that were tried, and values that people can read."""

import math
from dataclasses import dataclass

from gptshake.sweep.space import Axis, Params, Value


@dataclass(frozen=True)
class Point:
    """A point that was tried, or is being tried."""

    number: int
    params: Params
    value: float | None  # lower is better
    state: str  # running, ok, pruned, diverged, failed


def readable(axis: Axis, exact: Value) -> Value:
    """A value in three digits, which are enough for people and for losses; values of lists stay as they are.

    On a linear axis at least three digits of the range: from 1000 to 1010 it has a value every 0.01.
    """
    if not axis.numeric or axis.powers or isinstance(exact, str):
        return exact
    low, high = axis.bounds
    decimals = 2 - math.floor(math.log10(abs(exact))) if exact else 0
    inside = min(max(round(exact, decimals if axis.log else max(decimals, 3 - math.ceil(math.log10(high - low)))), low), high)
    return min(max(round(inside), math.ceil(low)), math.floor(high)) if axis.integer else float(inside)
