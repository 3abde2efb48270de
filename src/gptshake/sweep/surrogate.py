"""Learning rate and batch size together: a surface with few parameters, fitted to what was tried, says what to try next.

With u = log2(rate) - c log2(batch) and v = log2(batch) the loss near its bottom is a bowl in u and a bowl in v. Priors stand in for
points that are not there yet, so a few runs are enough; in return the surface is believed only near the points that made
it: proposals stay within a factor of 2.4 in rate and of 2 in batch of the best, and move on with it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptshake.sweep.space import Axis, Params, Point, Value, three_digits

Floats = NDArray[np.float64]
Position = tuple[float, float]  # log2 of rate and of batch, from the start
MOST = 14  # points, if the user does not say how many
MOSTLY = 11  # that it takes then, with one slot (docs/decisions/rate-and-batch.md)
GRID = 0.25  # log2 of the distance between two rates that may be proposed: a factor of 1.19
FINER = 3  # times that the grid is halved when all of it was tried
BELIEVED = 1.25  # log2: so far from the best, in u, the surface is believed
NOISE = 0.003  # of the loss, between seeds
MISFIT = 0.25  # of what a point lies above the best: far from the bottom the loss is no quadratic
WORSE = 0.02  # of the loss: so much worse than another rate of the same batch, a rate lies on the wrong side of the ridge
CLIFF = 0.05  # of the loss: so much worse, it lies beyond a cliff
SAME = 0.2  # log2: nearer than that to a wall without a cliff, nothing is proposed
CONVERGED = 0.0007  # of the loss: the search ends when less than this is expected of any further point
CS = [n / 10 for n in range(11)]  # values of c, weighted by how likely they are
USUAL_C, SPREAD_C = 0.5, 0.35
PRIOR_MEAN = np.array([0.0, 0.0, 0.0, 0.008, 0.004])  # level, slopes in u and v, curvatures in u and v; of the loss
PRIOR_SD = np.array([0.02, 0.03, 0.03, 0.008, 0.004])
LEAST = np.array([-np.inf, -np.inf, -np.inf, 0.002, 0.0003])  # curvatures are positive
HELD = 1e-5  # standard deviation of a curvature that came out smaller
DESIGN = ((0.0, 0), (1.0, 0), (-0.5, -1), (-1.0, 0), (0.5, 1), (0.5, -1), (-0.5, 1), (-1.0, -2), (1.0, 2), (1.25, 1), (-1.25, -1))
FIRST = 3  # points of the design before the surface has a say


@dataclass(frozen=True)
class Surface:
    """The fitted bowl, averaged over c: the loss above the best, as a share of it."""

    centre: Position
    c: float  # the mean
    parts: Sequence[tuple[float, float, Floats, Floats]]  # likelihood, c, weights and their covariance

    def __call__(self, positions: Sequence[Position]) -> tuple[Floats, Floats]:
        first = second = np.zeros(len(positions))
        for likelihood, c, weights, covariance in self.parts:
            rows = _features(positions, self.centre, c)
            mean = rows @ weights
            first = first + likelihood * mean
            second = second + likelihood * (mean**2 + ((rows @ covariance) * rows).sum(axis=1))
        return first, np.sqrt(np.maximum(second - first**2, 0.0))


def fit(points: Sequence[tuple[Position, float]]) -> Surface:
    """The surface that points and priors agree on.

    Args:
        points: position and loss, at least one; lower is better, all finite.
    """
    lowest = min(loss for _, loss in points)
    centre = min(points, key=lambda point: point[1])[0]
    above = np.log1p([(loss - lowest) / (abs(lowest) or 1.0) for _, loss in points])
    fits = [(c, *_solved([position for position, _ in points], above, centre, c)) for c in CS]
    misfits = [misfit + ((c - USUAL_C) / SPREAD_C) ** 2 - float(np.linalg.slogdet(covariance)[1]) for c, misfit, _, covariance in fits]
    likely = np.exp(-0.5 * (np.array(misfits) - min(misfits)))
    shares = (likely / likely.sum()).tolist()
    parts = [(share, c, weights, covariance) for share, (c, _, weights, covariance) in zip(shares, fits, strict=True)]
    return Surface(centre, sum(share * c for share, c, _, _ in parts), parts)


def _solved(positions: Sequence[Position], above: Floats, centre: Position, c: float) -> tuple[float, Floats, Floats]:
    """Misfit, weights and their covariance of the least squares with priors."""
    rows = _features(positions, centre, c)
    precision = 1 / (NOISE + MISFIT * above) ** 2
    mean, sd = PRIOR_MEAN.copy(), PRIOR_SD.copy()
    while True:
        covariance: Floats = np.linalg.inv((rows.T * precision) @ rows + np.diag(1 / sd**2)).astype(np.float64)
        weights = covariance @ ((rows.T * precision) @ above + mean / sd**2)
        low = (weights < 0.999 * LEAST) & (sd > HELD)
        if not low.any():
            misfit = float(precision @ (above - rows @ weights) ** 2 + (((weights - PRIOR_MEAN) / PRIOR_SD) ** 2).sum())
            return misfit, weights, covariance
        mean[low], sd[low] = LEAST[low], HELD


def _features(positions: Sequence[Position], centre: Position, c: float) -> Floats:
    x, y = (np.array(positions, dtype=np.float64) - np.array(centre)).T
    u = x - c * y
    return np.stack([np.ones_like(u), u, y, u**2, y**2], axis=1)


class SurrogateSearch:
    """One learning rate and one batch size, both on a log scale.

    Args:
        n_trials: go on refining up to so many points; None: stop when nothing is to be gained.
        slots: runs at once.
        deterministic: propose in rounds of ``slots`` points, so that proposals do not depend on which run ends first.
    """

    name = "plane"

    def __init__(self, rate: Axis, batch: Axis, *, n_trials: int | None, slots: int, deterministic: bool) -> None:
        self._rate, self._batch, self._n_trials, self._slots, self._deterministic = rate, batch, n_trials, slots, deterministic
        self.size: int | None = None
        low, high = rate.bounds
        self._start = min(max(_number(rate.declared) or math.sqrt(low * high), low), high)
        self._ends = math.log2(low / self._start), math.log2(high / self._start)
        self._batches = sizes(batch)
        declared = _number(batch.declared) or math.sqrt(batch.bounds[0] * batch.bounds[1])
        self._middle = min(range(len(self._batches)), key=lambda n: abs(math.log2(self._batches[n] / declared)))
        # The start, a larger rate, a smaller batch along the ridge, or a larger one if there is none; with more slots the ones around.
        self._design, mirrored = list[Position](), -1 if self._middle == 0 else 1
        for x, step in DESIGN[: max(FIRST, slots)]:
            index = min(max(self._middle + mirrored * step, 0), len(self._batches) - 1)
            position = (min(max(mirrored * x if step else x, self._ends[0]), self._ends[1]), self._size(index))
            self._design += [position] if _is_new(position, self._design, GRID) else []

    def expected(self) -> tuple[int, int]:
        return min(MOSTLY + self._slots // 2, MOST), MOST

    def propose(self, points: Sequence[Point]) -> Params | None:
        if is_finished(points, self._n_trials, MOST):
            return None
        done, open_round = list(points), list[Point]()
        if self._deterministic:
            first = max(len(self._design), self._slots)
            begun = 0 if len(points) < first else first + (len(points) - first) // self._slots * self._slots
            done, open_round = done[:begun], done[begun:]
            if any(point.state == "running" for point in done):
                return None
        elif len(points) >= max(len(self._design), self._slots) and sum(point.state == "running" for point in points) >= max(
            2, self._slots // 2
        ):
            return None  # a point that is chosen with most results outstanding is often of no use
        position = self._next(done, open_round, points)
        if position is None and open_round and all(point.state != "running" for point in open_round):
            position = self._next(list(points), [], points)  # a slot was free, but nothing was to be gained before its results
        if position is None:
            return None
        batch = min(self._batches, key=lambda value: abs(math.log2(value / self._batches[self._middle]) - position[1]))
        rate = self._start if position[0] == 0 else three_digits(self._rate, self._start * 2.0 ** position[0])
        return {self._rate.key: rate, self._batch.key: batch}

    def _next(self, done: Sequence[Point], open_round: Sequence[Point], points: Sequence[Point]) -> Position | None:
        """The design first, then what promises most; what runs is believed to come as the surface expects."""
        running = [self._at(point) for point in [*(point for point in done if point.state == "running"), *open_round]]
        ended = [(self._at(point), point.loss) for point in done if point.state not in ("running", "failed")]
        taken = [self._at(point) for point in points]
        walls = Walls(ended)
        for position in self._design:
            if walls.allow(position, USUAL_C) and _is_new(position, taken, GRID):
                return position
        finite = [(position, loss) for position, loss in ended if math.isfinite(loss)]
        if not finite:  # all have diverged: a quarter of the smallest rate
            x, y = min((position for position, _ in ended), default=(0.0, 0.0))
            position = (max(x - 2, self._ends[0]), y)
            return position if ended and not running and _is_new(position, taken, GRID) else None
        best, lowest = min(finite, key=lambda entry: entry[1])
        surface = fit(finite)
        if running:
            expected = lowest + (abs(lowest) or 1.0) * np.maximum(surface(running)[0], 0.0)
            surface = fit([*finite, *zip(running, map(float, expected), strict=True)])
        for halved in range(FINER):
            grid = GRID / 2**halved
            near = self._near(best, surface.c, grid)
            positions = [position for position in near if walls.allow(position, surface.c) and _is_new(position, taken, grid)]
            if positions:  # the largest expected improvement, of equals the nearest to the best, unless it is too small to go on
                level = float(surface([position for position, _ in finite])[0].min())
                gains = [expected_gain(level - float(mean), float(sd)) for mean, sd in zip(*surface(positions), strict=True)]
                most, _, position = max((gain, -math.dist(at, best), at) for gain, at in zip(gains, positions, strict=True))
                return position if most > CONVERGED or self._n_trials is not None else None
            if self._n_trials is None:
                break
        return None

    def _near(self, best: Position, c: float, grid: float) -> list[Position]:
        """What lies in reach of the best: its batch and the neighbours, rates of a grid that holds the start."""
        index = min(range(len(self._batches)), key=lambda n: abs(self._size(n) - best[1]))
        batches = [self._size(n) for n in range(index - 1, index + 2) if 0 <= n < len(self._batches)]
        rates = [n * grid for n in range(math.ceil(self._ends[0] / grid), math.floor(self._ends[1] / grid) + 1)]
        return [(x, y) for y in batches for x in [*rates, *self._ends] if abs(x - best[0] - c * (y - best[1])) <= BELIEVED]

    def _size(self, index: int) -> float:
        return math.log2(self._batches[index] / self._batches[self._middle])

    def _at(self, point: Point) -> Position:
        rate, batch = float(point.params[self._rate.key]), float(point.params[self._batch.key])
        return math.log2(rate / self._start), math.log2(batch / self._batches[self._middle])


class Walls:
    """Where rates are known to be wrong: from what diverged upwards, and beyond what is worse than another rate of the same batch.

    The best rate grows with the batch, so what is too large for one batch is so for every smaller one. For larger batches a wall
    moves with the ridge. A proposal goes at most half of the way to a cliff, and no nearer than a factor of 2 if nothing is known
    below it.
    """

    def __init__(self, ended: Sequence[tuple[Position, float]]) -> None:
        self._finite = [position for position, loss in ended if math.isfinite(loss)]
        self._high: list[tuple[Position, bool]] = []  # position, whether there is a cliff before it
        self._low: list[tuple[Position, bool]] = []
        for position, loss in ended:
            same = [(value, other[0]) for other, value in ended if abs(other[1] - position[1]) < 1e-9 and math.isfinite(value)]
            best, x = min(same, default=(-math.inf, -math.inf))
            if not same or loss > best + WORSE * abs(best):
                (self._high if x < position[0] else self._low).append((position, not same or loss > best + CLIFF * abs(best)))

    def allow(self, position: Position, c: float) -> bool:
        """Whether nothing says that the rate is wrong for its batch."""
        x, y = position
        known = [other + c * (y - size) for other, size in self._finite]
        for (wall, size), cliff in self._high:
            end = wall + c * max(y - size, 0.0)
            below = max((other for other in known if other < end), default=-math.inf)
            if x > (max((end + below) / 2, end - 1) if cliff else end - SAME):
                return False
        for (wall, size), cliff in self._low:
            end = wall - c * max(size - y, 0.0)
            above = min((other for other in known if other > end), default=math.inf)
            if x < (min((end + above) / 2, end + 1) if cliff else end + SAME):
                return False
        return True


def is_rate_and_batch(axes: Sequence[Axis]) -> bool:
    """Whether these are one learning rate and one batch size, in this order or the other, both as ranges."""
    if len(axes) != 2 or not all(axis.numeric for axis in axes):
        return False
    rate, batch = sorted(axes, key=lambda axis: "batch" in axis.key)
    named = rate.key.endswith("optimizer.lr") and batch.key.lstrip("+") in ("data.batch_size", "data.batch_tokens")
    return named and rate.log and batch.integer and batch.bounds[0] >= 1


def sizes(axis: Axis) -> list[int]:
    """Batches that may be proposed, in order: powers of two, or the configured one times powers of two and the ends of the range.

    What the configured number of tokens is a multiple of, the larger ones are, too, and the smaller ones while they are whole.
    """
    low, high = math.ceil(axis.bounds[0]), math.floor(axis.bounds[1])
    if axis.powers:
        return [int(value) for value in axis.finite or []]
    start = round(min(max(_number(axis.declared) or math.sqrt(low * high), low), high))
    found = [start << n for n in range((high // start).bit_length())]
    while start % 2 == 0 and start // 2 >= low:
        start //= 2
        found.append(start)
    ends = [end for end in (low, high) if all(abs(math.log2(size / end)) > 0.5 for size in found)]
    return sorted({*found, *ends})


def expected_gain(lead: float, sd: float) -> float:
    """Expected improvement of a normal value that lies ``lead`` below what is known, on average."""
    if sd < 1e-12:
        return max(lead, 0.0)
    z = lead / sd
    return lead * (1 + math.erf(z / math.sqrt(2))) / 2 + sd * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


def _is_new(position: Position, taken: Sequence[Position], grid: float) -> bool:
    return all(abs(position[0] - x) > 0.8 * grid or abs(position[1] - y) > 0.1 for x, y in taken)


def _number(value: Value | None) -> float | None:
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def is_finished(points: Sequence[Point], n_trials: int | None, most: int) -> bool:
    """Whether there are as many points as were asked for, or where nobody asked, as many as a search may take."""
    return len(points) >= most if n_trials is None else sum(point.state != "failed" for point in points) >= n_trials
