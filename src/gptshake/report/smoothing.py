"""Curves of many thousand steps made ready to be drawn: a mean without lag, and fewer points that look the same.

Takes and gives arrays. Beside ``curves.py`` because a page without pictures needs no matplotlib.
"""

import itertools

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def smooth(values: Floats) -> Floats:
    """A centred running mean over 4 % of the run, without the lag of an exponential one.

    Near the start, where the loss falls fast, it looks only a quarter of the way back and as far ahead.
    """
    n = len(values)
    index = np.arange(n)
    reach = np.minimum(max(1, n // 50), (index + 3) // 4)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    first, last = index - reach, np.minimum(index + reach + 1, n)
    return np.asarray((sums[last] - sums[first]) / (last - first))


def extremes(values: Floats, intervals: int) -> NDArray[np.intp]:
    """Where the lowest and the highest value of every interval are, in order; everywhere if there are not more."""
    if len(values) <= 2 * intervals:
        return np.arange(len(values))
    edges = np.linspace(0, len(values), intervals + 1).astype(int)
    return np.unique([int(a + pick(values[a:b])) for a, b in itertools.pairwise(edges) for pick in (np.argmin, np.argmax)])


def thin(x: Floats, y: Floats, intervals: int = 1000) -> tuple[Floats, Floats]:
    """The lowest and the highest point of every interval, in order; all points if there are not more."""
    kept = extremes(y, intervals)
    return x[kept], y[kept]
