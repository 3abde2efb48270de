"""What to try next, as pure functions of what was tried: a grid of lists, one numeric axis, several axes.

A search has no memory of its own, so a study that is resumed proposes what it would have proposed anyway.
"""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from gptshake.estimate.lr_fit import Parabola, fit, on_a_cliff
from gptshake.sweep.space import Axis, Params, Point, Value, three_digits
from gptshake.sweep.surrogate import SurrogateSearch, is_finished, is_rate_and_batch

MOST = 20  # points of a search along one axis
ENOUGH = 8  # points from which on a search that was given no number of them only goes outwards
SECONDS = 4  # runs with a second seed at most; two, unless the best stands on a cliff
SAME = 0.035  # closer than that, in steps, two points are one: a factor of 1.05
CLOSE = 0.25  # in steps: a factor of 1.4
FLAT = 0.01  # of the loss: rates that differ by less may all lie on the plateau above a cliff, so a lower one is wanted
UNEVEN = 0.05  # the same where the rate above the best is as level: seeds differ by percents on a plateau
PARTS = 32  # of a gap, at whose ends its bound is worked out
NARROW = 0.125  # in steps, a factor of 1.19: a narrower gap beside the best is not looked into
WORTH = 0.02  # of the loss: what a gap must promise, and how much worse a neighbour above may be before it could stand on a cliff
KINK = 0.4  # of the loss a step, 20 % for a factor of 2: how far slopes in a gap may differ from its chord's; measured ones reach 11 %
STEP_BITS = 2.0  # log2 of a step on a log axis: a factor of 4
COARSE = (0, 1, -1, 0.5, -0.5, 2, -2, 1.5, -1.5)  # the first points, in steps from the start
MOSTLY = 6  # points that a search along one axis takes: 5.6 on average (docs/decisions/line-search.md)
NEAR = 0.3  # in steps, a factor of 1.5
USUAL = 0.016  # of the loss: what a step away from the best costs, about; 0.4 % for a factor of 2
AROUND = 8  # factor around the configured value within which a search over several axes begins
FEW = 12  # trials up to which quasi-random points do better than a sampler that learns from them
STEPS = 8  # on a linear axis, from end to end


class Search(Protocol):
    """Proposes points."""

    name: str  # as in study.json
    size: int | None  # points in all, if that is known in advance

    def propose(self, points: Sequence[Point]) -> Params | None:
        """The next point, given all others in the order of their numbers.

        Returns:
            A whole point; an empty one if the study's sampler shall choose; None if there is nothing to try now: the search is
            over if nothing is running.
        """

    def expected(self) -> tuple[int, int] | None:
        """How many points it takes if it ends by itself, mostly and at most; None if it does not, or has a size."""
        return None


class GridSearch(Search):
    """Every combination of lists once, the last axis fastest, in Hydra's order."""

    name = "grid"

    def __init__(self, axes: Sequence[Axis]) -> None:
        values = [axis.finite or [] for axis in axes]
        self._all = [dict(zip((axis.key for axis in axes), point, strict=True)) for point in itertools.product(*values)]
        self.size: int | None = len(self._all)

    def propose(self, points: Sequence[Point]) -> Params | None:
        tried = [point.params for point in points]
        return next((point for point in self._all if point not in tried), None)


class LineSearch:
    """One numeric axis: steps away from the configured value until the best lies inside, then half-way in gaps that may hide a lower loss.

    A step is a factor of 4 on a log axis; positions ``x`` are in steps. A gap beside the best is looked into while the loss in it may
    lie 2 % below the best by ``lower_bound`` and it is wider than a factor of 1.19. So a bowl that is round takes three or four runs,
    and a cliff beside the best is approached until the slope on this side of it promises no more.

    Args:
        n_trials: go on refining up to so many points; None: stop when no gap promises more.
        slots: with more than one, a free slot gets at once what the outstanding results would call for if they came as
            expected; with one the proposals do not depend on the order in which points finish.
    """

    name = "line"

    def __init__(self, axis: Axis, *, n_trials: int | None, slots: int) -> None:
        self._axis, self._n_trials, self._slots = axis, n_trials, slots
        self._is_rate = axis.log and any(word in axis.key for word in ("lr", "rate"))  # has a plateau above a cliff
        self.size: int | None = None
        low, high = axis.bounds
        self._low, self._high = self._x(low), self._x(high)
        declared = axis.declared if isinstance(axis.declared, (int, float)) else None
        start = self._x(declared) if declared is not None and (declared > 0 or not axis.log) else (self._low + self._high) / 2
        self._start = self._inside(start)

    def expected(self) -> tuple[int, int]:
        """As of any search. Slots that guess ahead take more."""
        guesses = self._slots - 1
        most = max(ENOUGH, math.ceil(self._high - self._low) + 1) + guesses
        return min(MOSTLY + guesses // 2, most, MOST), min(most, MOST)

    def propose(self, points: Sequence[Point]) -> Params | None:
        if is_finished(points, self._n_trials, MOST):
            return None
        at = [(self._x(float(point.params[self._axis.key])), point) for point in points]
        failed = [x for x, point in at if point.state == "failed"]
        running = [x for x, point in at if point.state == "running"]
        known = sorted((x, point.loss) for x, point in at if point.state not in ("running", "failed"))
        taken = [*running, *(x for x, _ in known)]
        waits = bool(running) and self._slots == 1  # for the whole round, so that the order of its ends is no matter
        # The start and its neighbours, with more slots what likely comes after; the ends of the range where they would lie outside.
        coarse = [self._inside(self._start + step) for step in COARSE[: 2 if known else max(2, self._slots)]]
        candidates = [x for index, x in enumerate(coarse) if all(abs(x - other) > CLOSE for other in coarse[:index])]
        if not waits:
            candidates += self._next(taken, known, running)
        for candidate in candidates:
            positions = [candidate]
            if not waits and any(abs(candidate - other) <= SAME for other in failed):  # those beside it, if none there has come through
                beside = all(abs(candidate - other) > CLOSE + SAME for other in taken)
                positions = [self._inside(candidate - CLOSE), self._inside(candidate + CLOSE)] if beside else []
            for x in positions:
                if all(abs(self._x(float(self._value(x))) - other) > SAME for other in [*taken, *failed]):
                    return {self._axis.key: self._value(x)}
        return None

    def _next(self, taken: list[float], known: list[tuple[float, float]], running: list[float]) -> list[float]:
        """What the results call for; then, while some are outstanding, what they would call for if they came as expected; then refinement.

        Refinement takes the middles of the gaps between points, the widest first; the further from the best, the narrower a gap looks.
        """
        candidates = self._narrower(known) if known else []
        if running and len(running) < self._slots and known:
            expected = _expected_bowl(known)
            candidates += self._narrower(sorted([*known, *((x, expected(x)) for x in running)]))
        if self._n_trials is not None:
            best = min(known, key=lambda entry: entry[1])[0] if known else self._start
            edges = sorted({*taken, self._low, self._high})
            gaps = [(right - left, (left + right) / 2) for left, right in itertools.pairwise(edges)]
            gaps.sort(key=lambda gap: (-gap[0] / (0.5 + abs(gap[1] - best)) ** 1.5, gap[1]))
            candidates += [middle for _, middle in gaps]
        return candidates

    def _narrower(self, known: list[tuple[float, float]]) -> list[float]:
        """Outwards where the best lies at the end of what is known, else half-way in the gaps beside it, the most promising first."""
        best, lowest = min(known, key=lambda entry: (entry[1], abs(entry[0] - self._start)))
        if math.isinf(lowest):  # all of them diverged: down
            return [max(known[0][0] - 1, self._low)]
        at = known.index((best, lowest))
        if at == len(known) - 1 and best < self._high - SAME:
            return [min(best + 1, self._high)]
        lower, least = known[0]
        above = known[at + 1][1] if at + 1 < len(known) else lowest
        flat = UNEVEN if above < lowest + UNEVEN * abs(lowest) else FLAT
        plateau = self._is_rate and len(known) < ENOUGH and least < lowest + flat * abs(lowest)
        if lower > self._low + SAME and (at == 0 or plateau):
            return [max(lower - 1, self._low)]
        gaps = [left for left in (at - 1, at) if 0 <= left < len(known) - 1 and known[left + 1][0] - known[left][0] > NARROW]
        bounds = sorted((lower_bound(known, left), left) for left in gaps if len(known) < ENOUGH)
        return [(known[left][0] + known[left + 1][0]) / 2 for bound, left in bounds if bound < lowest - WORTH * abs(lowest)]

    def _inside(self, x: float) -> float:
        return min(max(x, self._low), self._high)

    def _x(self, value: float) -> float:
        low, high = self._axis.bounds
        return math.log2(value) / STEP_BITS if self._axis.log else STEPS * (value - low) / (high - low)

    def _value(self, x: float) -> Value:
        low, high = self._axis.bounds
        start = self._axis.declared
        if isinstance(start, (int, float)) and low <= start <= high and abs(x - self._start) < 1e-9:
            return start
        return three_digits(self._axis, 2.0 ** (STEP_BITS * x) if self._axis.log else low + x / STEPS * (high - low))


def _expected_bowl(known: list[tuple[float, float]]) -> Parabola:
    """The bowl as far as it is known; with fewer than three points the width that such bowls mostly have."""
    finite = sorted((loss, x) for x, loss in known if math.isfinite(loss))
    parabola = fit(known)
    if parabola or not finite:
        return parabola or Parabola(1.0, known[0][0] - 1, 0.0)
    (lowest, best), bend = finite[0], USUAL * (abs(finite[0][0]) or 1.0)
    vertex = best
    if len(finite) > 1:
        loss, x = finite[1]
        vertex = (best + x) / 2 - (loss - lowest) / (2 * bend * (x - best))
    return Parabola(bend, vertex, lowest - bend * (best - vertex) ** 2)


class SampledSearch(Search):
    """Several axes: what the config declares, then quasi-random points, then whatever the study's sampler chooses.

    The points are an additive recurrence with the generalised golden ratio (Roberts 2018), shifted by the seed (Cranley and
    Patterson 1976): even over the axes together, and none of them depends on how many there will be. A logarithmic axis is begun
    within a factor of 8 of its configured value, for most of so long a range is far from any use; the sampler has all of it.
    """

    name = "sampled"

    def __init__(self, axes: Sequence[Axis], *, n_startup: int, seed: int) -> None:
        self._axes, self._n_startup = list(axes), n_startup
        self.size: int | None = None
        draw = random.Random(seed)
        self._shift = [draw.random() for _ in axes]
        golden = 2.0
        for _ in range(60):  # the root of x^(d+1) = x + 1
            golden = (1 + golden) ** (1 / (len(self._axes) + 1))
        self._alpha = [golden ** -(index + 1) for index in range(len(self._axes))]

    def propose(self, points: Sequence[Point]) -> Params | None:
        tried = [point.params for point in points]
        return next((point for point in map(self._point, range(self._n_startup + 1)) if point not in tried), {})

    def _point(self, number: int) -> Params:
        point: Params = {}
        for axis, shift, alpha in zip(self._axes, self._shift, self._alpha, strict=True):
            start = _configured(axis)
            if number == 0 and start is not None:
                point[axis.key] = start
                continue
            if axis.log and not axis.powers and isinstance(start, (int, float)):  # the part of the axis that lies around it
                low, high = axis.bounds
                axis = replace(axis, low=max(low, start / AROUND), high=min(high, start * AROUND))
            point[axis.key] = value_at(axis, (shift + number * alpha) % 1 if number else 0.5)
        return point


def search_for(axes: Sequence[Axis], *, n_trials: int | None, slots: int, seed: int, deterministic: bool, sampler: bool = False) -> Search:
    """The search that fits the axes.

    Args:
        n_trials: as the user said; None: as many as it takes.
        slots: runs at once.
        seed: of quasi-random points.
        deterministic: whether proposals may not depend on which run finishes first.
        sampler: whether the user named a sampler, which then searches one range, too.
    """
    if not any(axis.numeric for axis in axes) or (len(axes) == 1 and axes[0].finite is not None and not sampler):
        return GridSearch(axes)
    if len(axes) == 1 and not sampler:
        waits = deterministic or slots <= 2  # guessing ahead spends a fifth more runs; from three slots on it buys time with them
        return LineSearch(axes[0], n_trials=n_trials, slots=1 if waits else slots)
    if is_rate_and_batch(axes) and not sampler:
        rate, batch = sorted(axes, key=lambda axis: "batch" in axis.key)
        return SurrogateSearch(rate, batch, n_trials=n_trials, slots=slots, deterministic=deterministic)
    number = n_trials or MOST
    return SampledSearch(axes, n_startup=number if number <= FEW and not sampler else number // 4, seed=seed)


def second_seeds(first: Sequence[tuple[float, float]], again: Mapping[float, float]) -> list[float]:
    """Where a second seed is wanted once a line search is over: at the best and at the better one of its neighbours.

    A point that stands on a cliff with one seed and not with the other is no answer; then those that follow it are asked for, up to
    ``SECONDS`` in all.

    Args:
        first: (value, loss) of the points that came to their end.
        again: value -> loss with the second seed, infinite if it diverged.
    """
    steady = sorted(point for point in first if point[0] not in again or not on_a_cliff([point[1], again[point[0]]]))
    if not steady:
        return []
    at = steady.index(min(steady, key=lambda point: point[1]))
    beside = sorted(steady[max(at - 1, 0) : at] + steady[at + 1 : at + 2], key=lambda point: point[1])
    wanted = [value for value, _ in [steady[at], *beside[:1]] if value not in again]
    return wanted[: max(0, SECONDS - len(again))]


def lower_bound(known: Sequence[tuple[float, float]], left: int) -> float:
    """How low the loss may be in a gap beside the best point.

    A bowl lies above the lines through its neighbours: the two points left of the gap, and the two right of it. Such a line counts
    only on a side that bends upwards there. Above the best a neighbour that is more than 2 % worse may stand on a cliff, which can
    begin anywhere and ends in a plateau, so its line does not count. Below the best no slope differs from the gap's chord by more than
    ``KINK``, or the slope of that cliff would promise everything there; where a neighbour within ``NEAR`` above the best shows that there
    is no cliff, its line counts instead.

    Args:
        known: (position in steps, loss), in order of positions; an infinite loss is a wall.
        left: index of the point at the gap's left end; this or the next one is the best.
    """

    def slope_from(index: int) -> float | None:
        """Of the line through two neighbours, a step; None where one is missing or infinite."""
        if not 0 <= index < len(known) - 1:
            return None
        (start, a), (end, b) = known[index], known[index + 1]
        return (b - a) / (end - start) if math.isfinite(a) and math.isfinite(b) else None

    (start, a), (end, b) = known[left], known[left + 1]
    unit, width = abs(min(a, b)) or 1.0, end - start
    slope, before, after = (b - a) / width, slope_from(left - 1), slope_from(left + 1)
    best_is_left = a < b
    bounds: list[Callable[[float], float]] = []
    if before is not None and before <= slope:
        bounds.append(lambda x: a + before * x)
    if after is not None and after >= slope and not (best_is_left and b > a + WORTH * unit):
        bounds.append(lambda x: b - after * (width - x))
    smooth = after is not None and after >= slope and known[left + 2][0] - end < NEAR and not on_a_cliff([b, known[left + 2][1]])
    if not best_is_left and not smooth:
        chord = slope if math.isfinite(a) else 0.0
        bounds.append(lambda x: b - (chord + KINK * unit * x / width) * (width - x))
    elif not bounds:  # the best lies at the lower end of the range
        bounds.append(lambda x: a - USUAL * unit * x)
    return min(max(bound(width * part / PARTS) for bound in bounds) for part in range(1, PARTS + 1))


def start_of(axes: Sequence[Axis]) -> Params | None:
    start = {axis.key: value for axis in axes if (value := _configured(axis)) is not None}
    return start if axes and len(start) == len(axes) else None


def _configured(axis: Axis) -> Value | None:
    """The configured value if the axis has it, of powers of two the nearest in the range; None if it lies outside."""
    declared = axis.declared
    if not axis.numeric:
        return declared if declared in axis.choices else None
    low, high = axis.bounds
    if not isinstance(declared, (int, float)) or not low <= declared <= high:
        return None
    return min(axis.finite or [], key=lambda power: abs(math.log2(float(power) / declared))) if axis.powers else declared


def value_at(axis: Axis, fraction: float) -> Value:
    """The value at a fraction from 0 to 1 of an axis."""
    if (values := axis.finite) is not None:
        return values[min(int(fraction * len(values)), len(values) - 1)]
    low, high = axis.bounds
    return three_digits(axis, low * (high / low) ** fraction if axis.log else low + fraction * (high - low))
