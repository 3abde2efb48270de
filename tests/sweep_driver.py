"""Runs a search to its end without any run: the driver of the tests of searches."""

import math
import random
from collections.abc import Callable, Mapping

from gptshake.sweep.search import Search
from gptshake.sweep.space import Params, Point


def drive(
    search: Search,
    loss: Callable[[Params, int], float],
    *,
    slots: int = 1,
    states: Mapping[int, str] | None = None,
    order: random.Random | None = None,
) -> list[Point]:
    """The points that a search proposes.

    Args:
        search: any.
        loss: of a point and its number; not finite: the run diverged.
        slots: runs at once.
        states: numbers of points that end otherwise -> how.
        order: draws which of the running points ends first; None: the oldest.
    """
    points: list[Point] = []
    while len(points) < 60:
        running = [point for point in points if point.state == "running"]
        params = search.propose(points) if len(running) < slots else None
        if params is not None:
            points.append(Point(len(points), params, None, "running"))
        elif running:
            done = order.choice(running) if order else running[0]
            value = loss(done.params, done.number)
            state = (states or {}).get(done.number, "ok" if math.isfinite(value) else "diverged")
            points[done.number] = Point(done.number, done.params, value if state == "ok" else None, state)
        else:
            return points
    raise AssertionError("the search does not end")
