"""Curves made ready to be drawn (a running mean without lag, fewer points that look the same), and the colours of every picture and page.

Takes and gives arrays; needs no matplotlib. The colours are of Okabe and Ito's palette (2008), made for colour-blind readers; its
yellow is left out, for it is lost on white.
"""

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gptshake.record.metrics import Columns

Floats = NDArray[np.float64]
LARGEST = 1e300  # a sum of many is finite
REFERENCES = (("uniform", "ln V"), ("unigram", "unigram"), ("bigram", "bigram"))  # of data.entropy: what needs no model

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9"
INK, GREY, LINE = "#1F2328", "#6B7280", "#E5E7EB"
SERIES = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, INK)  # for curves in one picture, in this order


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
    """The lowest and the highest point of every interval and the last of all, so that a flat line does not end early; in order."""
    kept = extremes(y, intervals)
    kept = np.union1d(kept, [len(y) - 1]) if len(y) else kept
    return x[kept], y[kept]


def column(columns: Columns, name: str) -> tuple[Floats, Floats]:
    """Tokens and values of the rows in which the value is there and finite, also after some are summed."""
    tokens, values = np.asarray(columns["train/tokens"]), np.asarray(columns[name])
    known = (np.abs(tokens) < LARGEST) & (np.abs(values) < LARGEST)  # not so of NaN
    return tokens[known], values[known]


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Heights for labels, from the highest down, so that neighbours are at least ``gap`` apart and none is moved up."""
    return list(itertools.accumulate(heights, lambda above, height: min(height, above - gap)))
