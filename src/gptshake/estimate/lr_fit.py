"""The parabola through the best of measured points, and between which values the best one lies.

The loss over the logarithm of a learning rate is a bowl that is steep on the right and ends in divergence; near its bottom a
parabola fits. So the best point and its two neighbours count in full, for they hold the bottom between them, and the others the
more, the closer their loss is to the best. Sources: the curves of public learning-rate sweeps and those of docs/benchmarks.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from gptshake.estimate.significance import ASSUMED_SD, FEWEST, LEAST_SD, least_difference

ASSUMED_FREEDOM = 2  # degrees of freedom for which the assumption counts where some were measured
CLIFF = 0.05  # of the loss: what a neighbour is worse by if it may stand on a cliff, which can begin anywhere before it
NARROWEST = 0.25  # half a width in units of log2 below which no interval is claimed
TRANSFERS = 4  # factor in length within which the best rate was seen to stay: docs/benchmarks.md#how-far-an-answer-carries
Points = Sequence[tuple[float, float]]  # place, loss


@dataclass(frozen=True)
class Parabola:
    """``bottom + curvature (x - vertex)^2``."""

    curvature: float
    vertex: float
    bottom: float

    def __call__(self, x: float) -> float:
        return self.bottom + self.curvature * (x - self.vertex) ** 2


@dataclass(frozen=True)
class NearOptimal:
    """Where the best value lies, and between which values it surely does."""

    best: float
    low: float
    high: float
    edge: str | None  # "low" or "high": the best lies at the end of what was tried
    sd: float  # between seeds, of the loss, as the interval takes it
    assumed: bool  # nobody measured the sd, so the interval reaches to the nearest values that are clearly worse


def fit(points: Points) -> Parabola | None:
    """The parabola through (log2 of the value, or the value; loss), by weighted least squares; None with fewer than three, or if not bent upwards."""
    finite = [(x, y) for x, y in points if math.isfinite(y)]
    places = sorted({x for x, _ in finite})
    if len(places) < 3:
        return None
    middle, lowest = min(finite, key=lambda point: (point[1], point[0]))
    at, unit = places.index(middle), max(abs(x - middle) for x in places)
    holding = places[max(at - 1, 0) : at + 2]  # a cliff beside the best is no reason to forget that it is there

    def weight(x: float, loss: float) -> float:
        """What seed noise might have made the best counts, what is further above hardly."""
        return 1.0 if x in holding or not lowest else math.exp(-(loss - lowest) / (ASSUMED_SD * abs(lowest))) + 1e-9

    import numpy as np  # late: a tenth of a second, and everything that reads a study reaches this module

    root = np.sqrt([weight(*point) for point in finite])
    powers = np.vander([(place - middle) / unit for place, _ in finite], 3)
    bend, slope, level = map(float, np.linalg.lstsq(powers * root[:, None], np.array([y for _, y in finite]) * root, rcond=None)[0])
    if bend <= 0:
        return None
    vertex = -slope / (2 * bend)
    return Parabola(bend / unit**2, middle + unit * vertex, level - bend * vertex**2)


def on_a_cliff(values: Sequence[float]) -> bool:
    """Whether a point's values with several seeds differ by more than seeds do: one diverged, or lost 5 %."""
    return not all(map(math.isfinite, values)) or max(values) - min(values) > CLIFF * abs(min(values))


def seed_sd(values: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation between seeds, pooled over points that have several; None if none has."""
    if not (freedom := seed_freedom(values)):
        return None
    return math.hypot(*(stdev(point) * math.sqrt(len(point) - 1) for point in values if len(point) > 1)) / math.sqrt(freedom)


def seed_freedom(values: Sequence[Sequence[float]]) -> int:
    """Degrees of freedom with which ``seed_sd`` is measured."""
    return sum(len(point) - 1 for point in values if point)


def near_optimal_interval(points: Points, *, log: bool, sd: float | None, freedom: float = math.inf, runs: int = 1) -> NearOptimal | None:
    """The best value and the interval that holds it; None without a finite loss.

    Values whose loss seeds alone may have made, by ``least_difference``, lie inside. Where the noise was measured, the interval ends
    where the parabola through the best points leaves it, or where a cliff may hide the bottom, at the neighbour that is 5 % worse;
    where nobody measured it, at the nearest values on both sides that are clearly worse, which is never narrower than the neighbours.

    Args:
        points: (value, loss), lower is better; a loss that is not finite bounds the interval.
        log: whether the values belong on a log scale.
        sd: of one run's loss between seeds, pooled with the usual 0.5 % of the loss as if that had two degrees of freedom; with
            None, or with fewer than two degrees of freedom, 0.5 % is assumed. The interval takes 0.25 % at least.
        freedom: degrees of freedom with which the sd was measured.
        runs: of whose mean each loss is.
    """
    place = sorted((math.log2(value) if log else value, loss) for value, loss in points)
    finite = [(x, y) for x, y in place if math.isfinite(y)]
    if not finite:
        return None
    at, lowest = min(finite, key=lambda point: point[1])
    assumed = sd is None or freedom < FEWEST - 1
    spread, freedom = (ASSUMED_SD * abs(lowest), math.inf) if sd is None or assumed else pooled(sd, freedom, abs(lowest))
    spread /= math.sqrt(runs)
    margin = least_difference(max(spread, LEAST_SD * abs(lowest)), freedom)
    inside = [x for x, y in place if y <= lowest + margin]
    low = max((x for x, _ in place if x < min(inside)), default=min(inside))
    high, beyond = next((point for point in place if point[0] > max(inside)), (max(inside), 0.0))
    left, right = max((x for x, _ in place if x < at), default=at), min((x for x, _ in place if x > at), default=at)
    parabola = fit(finite)
    best = min(max(parabola.vertex, left), right) if parabola and left < at < right else at
    if parabola and not assumed:
        reach = max(math.sqrt(margin / parabola.curvature), NARROWEST if log else 0.0)
        low = max(low, min(*inside, best - reach))
        high = high if beyond > lowest + CLIFF * abs(lowest) else min(high, max(*inside, best + reach))
    edge = None if left < at < right else "low" if at < right else "high" if left < at else None
    if log:
        best, low, high = 2.0**best, 2.0**low, 2.0**high
    return NearOptimal(best, low, high, edge, spread, assumed)


def middle_of_ties(points: Points) -> float:
    """The best value, or half-way to its better neighbour if seeds alone may decide between them: a bowl lies below its chord.

    Args:
        points: at least one (value, loss), each of one seed, lower is better. Values are positive, half-way is their geometric mean.
    """
    place = sorted(points)
    at = place.index(min(place, key=lambda point: point[1]))
    value, lowest = place[at]
    other, loss = min(place[max(at - 1, 0) : at] + place[at + 1 : at + 2], key=lambda point: point[1], default=(value, lowest))
    return math.sqrt(value * other) if loss - lowest <= ASSUMED_SD * abs(lowest) else value


def pooled(sd: float, freedom: float, level: float) -> tuple[float, float]:
    """A measured standard deviation between seeds together with the usual one, 0.5 % of the level, and their degrees of freedom."""
    if math.isinf(freedom):
        return sd, freedom
    total = freedom + ASSUMED_FREEDOM
    return math.hypot(math.sqrt(freedom) * sd, math.sqrt(ASSUMED_FREEDOM) * ASSUMED_SD * level) / math.sqrt(total), total
