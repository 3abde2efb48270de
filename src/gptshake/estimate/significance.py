"""Whether seeds alone can have made a difference: the one rule of ablations, intervals and the journal.

Student's t at 5 %, two-sided: paired by seed for changes against a base, with Holm's correction where several are compared; Welch's
for two sets that share no seeds; and, from the same standard deviation, how far two values must lie apart. Two seeds decide nothing:
their one degree of freedom asks for 12.7 standard errors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

LEVEL = 0.05  # share of comparisons of pure noise in which a difference is claimed
FEWEST = 3  # seeds of a verdict
ASSUMED_SD = 0.005  # of the loss, between seeds, where nobody measured it: 0.3 to 0.8 % measured at 200 to 3,200 steps
LEAST_SD = 0.0025  # of the loss, for an interval: bowls are skewed, so a parabola's vertex is no truer, however still the seeds


@dataclass(frozen=True)
class Comparison:
    """A difference of two means and what a t-test says about it."""

    mean: float
    error: float  # standard error of the mean
    freedom: float  # degrees of freedom

    @property
    def p(self) -> float:
        """Probability of so large a difference, or a larger one, if seeds alone made it."""
        return p_value(self.mean / self.error if self.error else math.copysign(math.inf, self.mean) if self.mean else 0.0, self.freedom)

    @property
    def significant(self) -> bool:
        """Whether seeds alone would rarely make it; of several comparisons ``holm`` decides."""
        return self.p <= LEVEL

    @property
    def half_width(self) -> float:
        """Half the interval that holds the true difference in 95 of 100 cases."""
        return t_quantile(self.freedom) * self.error


class Spread(NamedTuple):
    """How far seeds alone move a loss."""

    mean: float
    deviation: float
    seeds: int


def one_sample(values: Sequence[float]) -> Comparison | None:
    """The mean of values, or of paired differences, with its standard error, for Student's t; None with fewer than two."""
    if len(values) < 2:
        return None
    return Comparison(fmean(values), stdev(values) / math.sqrt(len(values)), len(values) - 1)


def welch(gap: float, *sets: tuple[float, int]) -> Comparison:
    """Welch's t-test of two sets without common seeds, from the difference of their means and (standard deviation, size >= 2) of each."""
    parts = [(sd**2 / size, size - 1) for sd, size in sets]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / freedom for part, freedom in parts) if total else sum(freedom for _, freedom in parts)
    return Comparison(gap, math.sqrt(total), freedom)


def holm(probabilities: Sequence[float]) -> list[bool]:
    """Which of several comparisons are significant so that among all of them noise is called a difference in at most 5 % of studies.

    Source: Holm 1979, step-down: the smallest of m is held against 5 % / m, the next against 5 % / (m - 1), until one is not.
    """
    significant = [False] * len(probabilities)
    for rank, place in enumerate(sorted(range(len(probabilities)), key=probabilities.__getitem__)):
        if not probabilities[place] <= LEVEL / (len(probabilities) - rank):
            break
        significant[place] = True
    return significant


def least_difference(sd: float, freedom: float = math.inf) -> float:
    """How far two values with a standard deviation between seeds, measured with so many degrees of freedom, must lie apart to differ."""
    return t_quantile(freedom) * math.sqrt(2) * sd


def difference(loss: float, best: float, spread: Spread | None, other: Spread | None) -> tuple[float, str | None]:
    """The difference of a loss to the best one, and what makes it none; None if seeds cannot have made it.

    Where both have seeds enough, their means are compared by Welch's t-test; else the two runs by the spread that is known, or assumed.
    """
    known = [one for one in (spread, other) if one and one.seeds >= FEWEST]
    if len(known) == 2:
        test = welch(known[0].mean - known[1].mean, *((one.deviation, one.seeds) for one in known))
        return test.mean, None if test.significant else f"means of {known[0].seeds} and {known[1].seeds} seeds"
    deviation = max(known[0].deviation, LEAST_SD * best) if known else ASSUMED_SD * best
    indistinct = abs(loss - best) <= least_difference(deviation, known[0].seeds - 1 if known else math.inf)
    return loss - best, f"seeds move it by ± {deviation:.4f}{'' if known else ', assumed'}" if indistinct else None


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """How many standard errors a mean must be from 0 to be significant, two-sided: the t with ``p_value(t, freedom) == level``."""
    if math.isinf(freedom):
        return NormalDist().inv_cdf(1 - level / 2)
    low, high = 0.0, 1.0
    while p_value(high, freedom) > level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if p_value(middle, freedom) > level else (low, middle)
    return high


def p_value(t: float, freedom: float) -> float:
    """Probability that Student's t with so many degrees of freedom lies at least this far from 0: I_x(f/2, 1/2) with x = f / (f + t^2)."""
    return 1.0 if math.isnan(t) else _incomplete_beta(freedom / (freedom + t * t), freedom / 2, 0.5)


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function by its continued fraction (Press et al. 2007, section 6.4)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 300):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = 1 + numerator / c, 1 / (1 + numerator * d)
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return front * fraction
