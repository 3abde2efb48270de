"""What to try next, as pure functions of what was tried: a grid of lists, one numeric axis, several axes.

A search has no memory of its own, so a study that is continued goes on as if nothing had happened.
"""

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gptshake.estimate.basin import fit
from gptshake.sweep.space import Axis, Params, Value

MOST = 20  # points of a search along one axis
SAME = 0.035  # closer than that, in steps, two points are one: a factor of 1.05
CLOSE = 0.25  # the vertex is settled if a point lies this near, in steps: a factor of 1.4
STEP_BITS = 2.0  # log2 of a step on a log axis: a factor of 4
STEPS = 8  # on a linear axis, from end to end


@dataclass(frozen=True)
class Point:
    """A point that was tried, or is being tried."""

    number: int
    params: Params
    value: float | None  # lower is better
    state: str  # running, ok, pruned, diverged, failed


class Search(Protocol):
    """Proposes points."""

    size: int | None  # points in all, if that is known in advance

    def propose(self, points: Sequence[Point]) -> Params | None:
        """The next point, given all others in the order of their numbers.

        Returns:
            A whole point; an empty one if the study's sampler shall choose; None if there is nothing to try now: the search is
            over if nothing is running.
        """


class Grid:
    """Every combination of lists once, the last axis fastest, in Hydra's order."""

    def __init__(self, axes: Sequence[Axis]) -> None:
        values = [axis.finite or [] for axis in axes]
        self._all = [dict(zip((axis.key for axis in axes), point, strict=True)) for point in itertools.product(*values)]
        self.size: int | None = len(self._all)

    def propose(self, points: Sequence[Point]) -> Params | None:
        """The first combination that was not tried."""
        tried = [point.params for point in points]
        return next((point for point in self._all if point not in tried), None)


class Line:
    """One numeric axis: a coarse grid around the declared value, grown until it holds the minimum, then the vertex of a parabola.

    A step is a factor of 4 on a log axis: learning rates half or twice the best cost 0.4 %, so a point within a step of the best
    is close enough for a parabola to name it.

    Args:
        axis: what varies.
        n_trials: go on refining up to so many points; None: stop when the vertex is settled.
        slots: with more than one, a free slot gets the likeliest next point although results are outstanding; with one the
            proposals do not depend on the order in which points finish.
    """

    def __init__(self, axis: Axis, *, n_trials: int | None, slots: int) -> None:
        self._axis, self._n_trials, self._slots = axis, n_trials, slots
        self.size: int | None = None
        low, high = axis.bounds
        self._low, self._high = self._place(low), self._place(high)
        start = axis.declared if isinstance(axis.declared, (int, float)) else None
        wish = self._place(start) if start is not None and (start > 0 or not axis.log) else (self._low + self._high) / 2
        self._start = min(max(wish, self._low), self._high)

    def propose(self, points: Sequence[Point]) -> Params | None:
        """The next value."""
        if len(points) >= (self._n_trials or MOST):
            return None
        tried = [self._at(point) for point in points]
        running = [self._at(point) for point in points if point.state == "running"]
        known = sorted((self._at(point), _loss(point)) for point in points if point.state not in ("running", "failed"))
        wishes = self._coarse(1)
        if known and (not running or self._slots > 1):
            wishes += self._narrower(known)
        if running and len(running) < self._slots:
            wishes += self._coarse(self._slots)
        if not running and self._n_trials is not None:
            wishes += self._refined(tried, known)
        place = next((wish for wish in wishes if all(abs(wish - other) > SAME for other in tried)), None)
        return None if place is None else {self._axis.key: self._value(place)}

    def _coarse(self, steps: int) -> list[float]:
        """The start and its neighbours, so many steps up and down; the ends of the range where they would lie outside."""
        around = [self._start, *(self._start + sign * step for step in range(1, steps + 1) for sign in (1, -1))]
        inside = [min(max(place, self._low), self._high) for place in around]
        return [place for index, place in enumerate(inside) if all(abs(place - other) > CLOSE for other in inside[:index])]

    def _narrower(self, known: list[tuple[float, float]]) -> list[float]:
        """Outwards where the best lies at the edge of what is known, else the vertex unless a point is close to it."""
        best, lowest = min(known, key=lambda entry: (entry[1], abs(entry[0] - self._start)))
        if math.isinf(lowest):  # all of them diverged: down
            return [max(known[0][0] - 1, self._low)]
        below, above = [x for x, _ in known if x < best], [x for x, _ in known if x > best]
        outward = [min(best + 1, self._high)] if not above and best < self._high - SAME else []
        outward += [max(best - 1, self._low)] if not below and best > self._low + SAME else []
        if outward:
            return outward
        left, right = max(below, default=best), min(above, default=best)
        parabola = fit(known)
        if parabola is None:
            return [(best + side) / 2 for side in (right, left) if abs(side - best) > 2 * CLOSE]
        vertex = min(max(parabola.vertex, left), right)
        return [vertex] if all(abs(vertex - x) > CLOSE for x, _ in known) else []

    def _refined(self, tried: list[float], known: list[tuple[float, float]]) -> list[float]:
        """Middles of the gaps between tried points, those next to the best first."""
        best = min(known, key=lambda entry: entry[1])[0] if known else self._start
        edges = sorted({*tried, self._low, self._high})
        gaps = [(left + right) / 2 for left, right in itertools.pairwise(edges) if right - left > 2 * SAME]
        return sorted(gaps, key=lambda middle: (round(abs(middle - best) * 2), -min(abs(middle - edge) for edge in edges), middle))

    def _at(self, point: Point) -> float:
        return self._place(float(point.params[self._axis.key]))

    def _place(self, value: float) -> float:
        """A value in steps."""
        if self._axis.log:
            return math.log2(value) / STEP_BITS
        low, high = self._axis.bounds
        return STEPS * (value - low) / (high - low)

    def _value(self, place: float) -> Value:
        low, high = self._axis.bounds
        start = self._axis.declared
        if isinstance(start, (int, float)) and low <= start <= high and abs(place - self._start) < 1e-9:
            return start
        exact = 2.0 ** (STEP_BITS * place) if self._axis.log else low + place / STEPS * (high - low)
        return readable(self._axis, exact)


class Sampled:
    """Several axes: what the config declares, then quasi-random points, then whatever the study's sampler chooses.

    The points are an additive recurrence with the generalised golden ratio (Roberts 2018), shifted by the seed (Cranley and
    Patterson 1976): even in every projection, and none of them depends on how many there will be.
    """

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
        """The next point, or an empty one for the sampler."""
        number = len(points)
        if number > self._n_startup:
            return {}
        places = [0.5] * len(self._axes) if number == 0 else [(s + number * a) % 1 for s, a in zip(self._shift, self._alpha, strict=True)]
        point = {axis.key: _spread(axis, place) for axis, place in zip(self._axes, places, strict=True)}
        return point | {axis.key: axis.declared for axis in self._axes if number == 0 and _is_inside(axis) and axis.declared is not None}


def search_for(axes: Sequence[Axis], *, n_trials: int | None, slots: int, seed: int, deterministic: bool) -> Search:
    """The search that fits the axes.

    Args:
        axes: what varies.
        n_trials: as the user said; None: as many as it takes.
        slots: runs at once.
        seed: of quasi-random points.
        deterministic: whether proposals may not depend on which run finishes first.
    """
    numeric = [axis for axis in axes if axis.numeric]
    if not numeric or (len(axes) == 1 and axes[0].finite is not None):
        return Grid(axes)
    if len(axes) == 1:
        return Line(axes[0], n_trials=n_trials, slots=1 if deterministic else slots)
    return Sampled(axes, n_startup=max(4, (n_trials or MOST) // 4), seed=seed)


def _loss(point: Point) -> float:
    """A pruned or diverged point bounds the search on its side."""
    return point.value if point.state == "ok" and point.value is not None else math.inf


def _is_inside(axis: Axis) -> bool:
    if not axis.numeric:
        return axis.declared in axis.choices
    low, high = axis.bounds
    return isinstance(axis.declared, (int, float)) and low <= axis.declared <= high


def _spread(axis: Axis, place: float) -> Value:
    """The value at a place from 0 to 1 along an axis."""
    values = axis.finite
    if values is not None:
        return values[min(int(place * len(values)), len(values) - 1)]
    low, high = axis.bounds
    return readable(axis, low * (high / low) ** place if axis.log else low + place * (high - low))


def readable(axis: Axis, exact: Value) -> Value:
    """A value in three digits, which are enough for people and for losses; values of lists stay as they are."""
    if not axis.numeric or axis.powers or isinstance(exact, str):
        return exact
    low, high = axis.bounds
    inside = min(max(float(f"{exact:.3g}"), low), high)
    return round(inside) if axis.integer else float(inside)
