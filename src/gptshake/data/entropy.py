"""Entropies of a token stream: what a model that knows nothing, frequencies, or one token of context would reach.

The three horizontal lines of every loss plot, in nats per token, in closed form from counts. Of the stream itself, so
the bigram line is a bound for that text, not an estimate for new text: with a large vocabulary and little text it lies low.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

_CHUNK = 1 << 22  # tokens counted at once; bounds the memory


def entropies(tokens: npt.NDArray[np.unsignedinteger[Any]], vocab_size: int) -> dict[str, float]:
    """Entropies of a stream, in nats per token.

    Args:
        tokens: ids below ``vocab_size``, shape (n,), n >= 2; may be a memory map.
        vocab_size: number of ids.
    Returns:
        ``uniform`` = ln V; ``unigram`` = H(x_t); ``bigram`` = H(x_t | x_{t-1}), over the n - 1 neighbouring pairs.
    """
    single = np.zeros(vocab_size, np.int64)
    pairs, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for start in range(0, len(tokens), _CHUNK):
        part = np.asarray(tokens[start : start + _CHUNK + 1]).astype(np.int64)  # one token more: the pair across the border
        single += np.bincount(part[:_CHUNK], minlength=vocab_size)
        pairs, counts = _add(pairs, counts, *_count(part[:-1] * vocab_size + part[1:], vocab_size**2))
    of_first = np.bincount(pairs // vocab_size, weights=counts)
    return {"uniform": math.log(vocab_size), "unigram": _entropy(single), "bigram": _entropy(counts) - _entropy(of_first)}


def _count(values: npt.NDArray[np.int64], limit: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Distinct values and how often each occurs; by table where the table is small, as sorting is ten times slower."""
    if limit > _CHUNK:
        return np.unique(values, return_counts=True)
    table = np.bincount(values, minlength=1)
    found = np.flatnonzero(table)
    return found, table[found]


def _add(
    a: npt.NDArray[np.int64], counts_a: npt.NDArray[np.int64], b: npt.NDArray[np.int64], counts_b: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Sum of two counts, each given as distinct values and how often they occur."""
    values, inverse = np.unique(np.concatenate([a, b]), return_inverse=True)
    counts = np.zeros(len(values), np.int64)
    np.add.at(counts, inverse, np.concatenate([counts_a, counts_b]))
    return values, counts


def _entropy(counts: npt.NDArray[Any]) -> float:
    share = counts[counts > 0] / counts.sum()
    return max(0.0, float(-(share * np.log(share)).sum()))
