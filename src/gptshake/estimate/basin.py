"""The bottom of a bowl: the parabola through the best of measured points, and how far around it seeds decide. Pure arithmetic.

The loss over the logarithm of a learning rate is a bowl that is steep on the right and ends in divergence; near its bottom a
parabola fits. So the best point and its two neighbours count in full, for they hold the bottom between them, and the others the
more, the closer their loss is to the best. Sources: the curves of public learning-rate sweeps and those of docs/benchmarks.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

from gptshake.estimate.significance import FEWEST, least_difference

ASSUMED_SD = 0.005  # of the loss, between seeds, where no repeats say it: 0.3 to 0.8 % measured at 200 to 3,200 steps
LEAST_SD = 0.0025  # of the loss, for the interval: bowls are skewed, so a parabola's vertex is no truer, however still the seeds
NARROWEST = 0.25  # half a width in units of log2 below which no interval is claimed
Points = Sequence[tuple[float, float]]  # place, loss


@dataclass(frozen=True)
class Parabola:
    """``bottom + curvature (x - vertex)^2``."""

    curvature: float
    vertex: float
    bottom: float

    def __call__(self, x: float) -> float:
        """Its value at a place."""
        return self.bottom + self.curvature * (x - self.vertex) ** 2


@dataclass(frozen=True)
class Basin:
    """Where the best value lies, and which values are indistinguishable from it."""

    best: float
    low: float
    high: float
    edge: str | None  # "low" or "high": the best lies at the end of what was tried
    sd: float  # between seeds, of the loss
    assumed: bool  # nobody measured the sd


def fit(points: Points) -> Parabola | None:
    """The parabola by weighted least squares; None without three finite points, or where they do not bend upwards.

    Args:
        points: (log2 of the value, or the value; loss); lower is better.
    """
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    if len({x for x, _ in finite}) < 3:
        return None
    middle, lowest = min(finite, key=lambda point: (point[1], point[0]))
    unit = max(abs(x - middle) for x, _ in finite)
    places = sorted({x for x, _ in finite})
    at = places.index(middle)
    holding = places[max(at - 1, 0) : at + 2]  # a cliff beside the best is no reason to forget that it is there
    near = [((x - middle) / unit, y, 1.0 if x in holding else _weight(y, lowest)) for x, y in finite]
    solution = _solve(near)
    if solution is None or solution[2] <= 0:
        return None
    level, slope, bend = solution
    vertex = -slope / (2 * bend)
    return Parabola(bend / unit**2, middle + unit * vertex, level - bend * vertex**2)


def noise(values: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation between seeds, pooled over points that have several; None if none has."""
    freedom = freedom_of(values)
    return math.sqrt(sum(variance(point) * (len(point) - 1) for point in values if len(point) > 1) / freedom) if freedom else None


def freedom_of(values: Sequence[Sequence[float]]) -> int:
    """Degrees of freedom with which ``noise`` is measured."""
    return sum(len(point) - 1 for point in values if point)


def basin(points: Points, *, log: bool, sd: float | None, freedom: float = math.inf) -> Basin | None:
    """The best value and the interval around it whose loss is indistinguishable from the bottom, by ``least_difference``.

    Args:
        points: (value, loss), lower is better; a loss that is not finite bounds the interval.
        log: whether the values belong on a log scale.
        sd: of a point's loss between seeds; with None, or where two seeds are all that measured it, 0.5 % of the best loss is
            assumed. The interval takes 0.25 % at least.
        freedom: degrees of freedom with which the sd was measured.
    Returns:
        None without a finite loss.
    """
    place = sorted((math.log2(value) if log else value, loss) for value, loss in points)
    finite = [(x, y) for x, y in place if math.isfinite(y)]
    if not finite:
        return None
    at, lowest = min(finite, key=lambda point: point[1])
    assumed = sd is None or freedom < FEWEST - 1
    spread, freedom = (ASSUMED_SD * abs(lowest), math.inf) if sd is None or assumed else (sd, freedom)
    below, above = [x for x, _ in place if x < at], [x for x, _ in place if x > at]
    left, right = max(below, default=at), min(above, default=at)
    parabola = fit(finite)
    best = min(max(parabola.vertex, left), right) if parabola and below and above else at
    bottom = min(lowest, parabola.bottom if parabola else lowest)
    low, high = _interval(place, best, parabola, bottom + least_difference(max(spread, LEAST_SD * abs(lowest)), freedom))
    if log:
        low, high = min(low, best - NARROWEST), max(high, best + NARROWEST)
    low, high = max(low, place[0][0]), min(high, place[-1][0])
    edge = None if below and above else "low" if above else "high" if below else None
    back = (lambda x: 2.0**x) if log else float
    return Basin(back(best), back(min(low, at)), back(max(high, at)), edge, spread, assumed)


def _interval(place: Points, best: float, parabola: Parabola | None, ceiling: float) -> tuple[float, float]:
    """Where the loss stays below the ceiling: by the parabola, and on each side as far as measured points below it lie."""
    inside = [x for x, y in place if y <= ceiling]
    low, high = min([*inside, best]), max([*inside, best])
    if parabola and parabola.curvature > 0 and ceiling > parabola.bottom:
        reach = math.sqrt((ceiling - parabola.bottom) / parabola.curvature)
        low, high = min(low, best - reach), max(high, best + reach)
    above = [x for x, y in place if x > high and not math.isfinite(y)]
    return low, min([high, *above])


def _weight(loss: float, lowest: float) -> float:
    """What seed noise might have made the best counts, what is further above hardly."""
    return math.exp(-(loss - lowest) / (ASSUMED_SD * abs(lowest))) + 1e-9 if lowest else 1.0


def _solve(near: Sequence[tuple[float, float, float]]) -> tuple[float, float, float] | None:
    """Level, slope and bend of the weighted least squares, by Cramer's rule on the normal equations."""
    s = [sum(w * x**power for x, _, w in near) for power in range(5)]
    t = [sum(w * y * x**power for x, y, w in near) for power in range(3)]
    matrix = [[s[0], s[1], s[2]], [s[1], s[2], s[3]], [s[2], s[3], s[4]]]
    whole = _determinant(matrix)
    if abs(whole) < 1e-30:
        return None
    level, slope, bend = (_determinant([[t[i] if j == k else matrix[i][j] for j in range(3)] for i in range(3)]) / whole for k in range(3))
    return level, slope, bend


def _determinant(m: Sequence[Sequence[float]]) -> float:
    return sum(m[0][i] * (m[1][(i + 1) % 3] * m[2][(i + 2) % 3] - m[1][(i + 2) % 3] * m[2][(i + 1) % 3]) for i in range(3))
