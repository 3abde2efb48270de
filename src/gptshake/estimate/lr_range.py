"""What a learning-rate range test says: smoothing without lag, where it breaks, and the rules that read a rate off the curve.

A range test raises the rate step by step and looks at the loss. It measures speed from the initial weights, not the loss at the end of
a run, so its rules are where a search begins, not where it ends. Rules and thresholds as fastai has them (``fastai/callback/schedule.py``).
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

DIVERGED = 4.0  # times the best loss
FIRST, LAST = 10, 5  # one in so many steps is left out at the start, where nothing moves yet, and so many at the end, where it breaks
SLIDE_SPAN, SLIDE_THRESHOLD = 15, 0.005
FALLEN = 0.95  # of the fall: from here on a higher rate gains hardly anything
BEGUN, BACK = 0.05, 0.5  # of the fall: where the loss has begun to move, and where it has climbed back
Curve = Sequence[float]


@dataclass(frozen=True)
class Rules:
    """Rates that the rules read off a curve, each a peak learning rate."""

    steep: float  # the loss falls fastest here over the logarithm of the rate
    valley: float  # about the middle of the longest fall
    minimum: float  # a tenth of the rate with the lowest loss
    slide: float | None  # before the slope stops changing, seen from the end; None: it never does
    middle: float  # half way from where 95 % of the fall is done to the lowest loss: our search begins near it
    one_cycle: float  # three quarters of that way: a peak that is held only for a moment may be higher


def geometric_rates(low: float, high: float, n: int) -> list[float]:
    """``n`` rates from ``low`` to ``high``, each the same factor above the last: low (high/low)^(i/(n-1)); n >= 2."""
    return [low * (high / low) ** (i / (n - 1)) for i in range(n)]


def smooth(losses: Curve, share: float = 0.025) -> list[float]:
    """A mean of ``share`` of the points to each side, with weights that fall linearly, so that a bend stays where it is.

    An exponential mean of 0.98 would lag 49 steps behind, decades of the rate. Near an end it looks as far to both sides as there are
    points; a loss that is not finite spreads over all that looks at it.
    """
    n, reach = len(losses), max(1, round(share * len(losses)))

    def at(i: int) -> float:
        near = min(reach, i, n - 1 - i)
        return sum((near + 1 - abs(offset)) * losses[i + offset] for offset in range(-near, near + 1)) / (near + 1) ** 2

    return [at(i) for i in range(n)]


def has_diverged(losses: Curve) -> bool:
    """Whether the last loss is not finite, or more than 4 times the best one."""
    return bool(losses) and (not math.isfinite(losses[-1]) or losses[-1] > DIVERGED * min(losses))


def mean_curve(curves: Sequence[Curve]) -> list[float]:
    """The mean over repeats at each rate, as far as the shortest of them goes."""
    return [math.fsum(column) / len(column) for column in zip(*curves, strict=False)]


def active_range(rates: Curve, losses: Curve) -> tuple[float, float] | None:
    """The part of a quick ramp that is worth a closer look, from rates and smoothed losses: half the rate where the loss begins to fall to
    where it has climbed half of the way back, or has diverged; None if it never falls.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    if len(finite) < 3 or min(finite) >= finite[0]:
        return None
    lowest, fall = finite.index(min(finite)), finite[0] - min(finite)
    begun = next(i for i, loss in enumerate(finite) if loss <= finite[0] - BEGUN * fall)
    back = next((i for i, loss in enumerate(finite) if i > lowest and loss >= finite[lowest] + BACK * fall), len(finite) - 1)
    return max(rates[begun] / 2, rates[0]), rates[max(back, begun + 1)]


def rules(rates: Curve, losses: Curve, n_steps: int | None = None) -> Rules | None:
    """What every rule reads off one curve of rising rates and smoothed losses; None where the loss does not fall.

    Points at both ends of the ``n_steps`` of a ramp that may have been cut short are left out, and everything from the first loss that is not
    finite on.
    """
    first = (n_steps or len(rates)) // FIRST
    end = min(len(losses) - LAST, next((i for i, loss in enumerate(losses) if not math.isfinite(loss)), len(losses)))
    x, y = list(rates[first:end]), list(losses[first:end])
    if len(y) < 3 or min(y) >= y[0]:
        return None
    lowest = x[y.index(min(y))]
    fallen = next(rate for rate, loss in zip(x, y, strict=True) if loss <= y[0] - FALLEN * (y[0] - min(y)))
    middle, one_cycle = (float(fallen * (lowest / fallen) ** share) for share in (0.5, 0.75))
    return Rules(_steep(x, y), _valley(x, y), lowest / 10, _slide(x, y), middle, one_cycle)


def still_falls(losses: Curve) -> bool:
    """Whether the lowest loss lies in the last tenth of a smoothed curve: the ramp has not seen where it rises again."""
    return list(losses).index(min(losses)) >= 0.9 * (len(losses) - 1)


def _steep(x: list[float], y: list[float]) -> float:
    """Where the forward difference of the loss over ln(rate) is the most negative, before the lowest loss: beyond it, it is a bounce."""
    end = max(y.index(min(y)), 1) + 1
    slopes = [(b - a) / math.log(right / left) for (left, a), (right, b) in itertools.pairwise(zip(x[:end], y[:end], strict=True))]
    return x[slopes.index(min(slopes))]


def _valley(x: Curve, y: Curve) -> float:
    """About the middle of the longest strictly decreasing subsequence: a third and half of a third after its start."""
    lengths = [1] * len(y)
    for i in range(1, len(y)):
        lengths[i] = max([1, *(lengths[j] + 1 for j in range(i) if y[i] < y[j])])
    longest = max(lengths)
    return x[max(lengths.index(longest) - longest + int(longest / 3) + int(longest / 6), 0)]


def _slide(x: Curve, y: Curve) -> float | None:
    """A window slides down from the end while the slopes at its ends differ; depends on the scale of the loss and the spacing."""
    slopes = [y[1] - y[0], *((after - before) / 2 for before, after in zip(y, y[2:], strict=False)), y[-1] - y[-2]]
    found, left = None, len(y) - 1 - SLIDE_SPAN
    while left >= 0 and abs(slopes[left + SLIDE_SPAN] - slopes[left]) > SLIDE_THRESHOLD:
        found, left = x[left], left - 1
    return found
