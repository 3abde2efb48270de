"""Entropies of a token stream: what a model that knows nothing, frequencies, or one token of context would reach.

The three horizontal lines of every loss plot, in nats per token, in closed form from counts. Of the stream itself, so
the bigram line is a bound for that text, not an estimate for new text: with a large vocabulary and little text it lies low.
Pairs are counted in at most ``PAIRS`` tokens, all of a smaller stream, as those of a large vocabulary would fill the memory.
"""

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

PAIRS = 1 << 24  # tokens: 1 s and 0.2 GB with a large vocabulary
SCORED = 1 << 20  # tokens of a text that ``references`` looks at
_NAMES = {"uniform": "guessing", "unigram": "unigram", "bigram": "bigram"}
_CHUNK = 1 << 20  # tokens counted at once
_TABLE = 1 << 22  # pairs of ids up to which a table counts them; sorting is ten times slower


class TokenStream(Protocol):
    """Ids below the vocabulary's size: an array, a memory map, or a file that is read slice by slice."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice) -> npt.NDArray[np.unsignedinteger[Any]]: ...


def counts(tokens: TokenStream, vocab_size: int, limit: int | None = None) -> npt.NDArray[np.int64]:
    """How often each id occurs, shape (vocab_size,); in at most ``limit`` tokens, evenly spread over the stream."""
    found = np.zeros(vocab_size, np.int64)
    for start, stop in windows(len(tokens), limit or len(tokens)):
        found += np.bincount(tokens[start:stop], minlength=vocab_size)
    return found


def entropies(tokens: TokenStream, vocab_size: int) -> dict[str, float]:
    """Entropies of a stream of ids below ``vocab_size``, n >= 2, in nats per token.

    ``uniform`` = ln V; ``unigram`` = H(x_t), of all tokens; ``bigram`` = H(x_t | x_{t-1}), over neighbouring pairs of all tokens, or of
    ``PAIRS`` of them in evenly spread windows.
    """

    def entropy(found: npt.NDArray[Any]) -> float:
        share = found[found > 0] / found.sum()
        return max(0.0, float(-(share * np.log(share)).sum()))

    pairs, found = _pairs(tokens, vocab_size)
    of_first = np.bincount(pairs // vocab_size, weights=found)
    unigram = entropy(counts(tokens, vocab_size))
    return {"uniform": math.log(vocab_size), "unigram": unigram, "bigram": entropy(found) - entropy(of_first)}


def references(train: TokenStream, held_out: TokenStream, vocab_size: int) -> dict[str, float]:
    """What frequencies counted in the training text reach on another text, in nats per token of that one: a loss to compare with.

    Both are ids below ``vocab_size``, n >= 2 each; of a long ``held_out`` evenly spread windows are read. ``uniform`` = ln V; ``unigram``: each
    token counted once more than it occurs; ``bigram``: smoothed with the unigram by as much as a token has different followers (Witten and
    Bell 1991). Training pairs are counted as in ``entropies``.
    """
    of_token = counts(train, vocab_size) + 1
    unigram = of_token / of_token.sum()
    pairs, found = _pairs(train, vocab_size)
    first = (pairs // vocab_size).astype(np.int64)
    followed = np.bincount(first, weights=found, minlength=vocab_size)
    kinds = np.maximum(np.bincount(first, minlength=vocab_size), 1)
    sums, n = np.zeros(2), 0
    for start, stop in windows(len(held_out) - 1, SCORED):
        ids = np.asarray(held_out[start : stop + 1]).astype(np.int64)
        before, target = ids[:-1], ids[1:]
        looked_up = (before * vocab_size + target).astype(pairs.dtype)
        at = np.minimum(np.searchsorted(pairs, looked_up), len(pairs) - 1)
        times = np.where(pairs[at] == looked_up, found[at], 0)
        bigram = (times + kinds[before] * unigram[target]) / (followed[before] + kinds[before])
        sums -= np.log(unigram[target]).sum(), np.log(bigram).sum()
        n += len(target)
    return {"uniform": math.log(vocab_size), "unigram": sums[0] / n, "bigram": sums[1] / n}


def loss_in_words(loss: float, lines: dict[str, float]) -> str:
    """A loss in words, beside ``references`` of the same text and tokens: ``val loss 2.30: better than bigram 2.44``."""
    equal = [name for name in lines if f"{lines[name]:.2f}" == f"{loss:.2f}"]
    beaten = sorted((name for name in lines if loss < lines[name]), key=lines.__getitem__)
    others = sorted((name for name in lines if loss >= lines[name]), key=lines.__getitem__)
    shown = {"equal to": equal[:1]} if equal else {"better than": beaten[:1], "worse than": others[-1:]}
    parts = [f"{words} {_NAMES[name]} {lines[name]:.2f}" for words, names in shown.items() for name in names]
    where = "nats per token on the same text; unigram and bigram are counted in the training text"
    return f"val loss {loss:.2f}: {' and '.join(parts)} ({where})"


def windows(n: int, limit: int) -> Iterator[tuple[int, int]]:
    """Ranges of at most ``_CHUNK`` positions that cover 0 … n-1, or evenly spread ones of about ``limit`` positions in all."""
    size = min(_CHUNK, limit)
    step = size if n <= limit else -(-size * n // limit)
    for start in range(0, n, step):
        yield start, min(start + size, n)


def _pairs(tokens: TokenStream, vocab_size: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Distinct pairs of neighbours, as first * V + second, and how often each occurs."""
    if vocab_size**2 <= _TABLE:
        table = np.zeros(vocab_size**2, np.int64)
        for found in _windows_of_pairs(tokens, vocab_size):
            table += np.bincount(found, minlength=len(table))
        return np.flatnonzero(table), table[table > 0]
    every = np.empty(sum(stop - start for start, stop in windows(len(tokens), PAIRS)), np.uint32 if vocab_size <= 1 << 16 else np.uint64)
    filled = 0
    for found in _windows_of_pairs(tokens, vocab_size):
        every[filled : filled + len(found)] = found
        filled += len(found)
    return np.unique(every[:filled], return_counts=True)


def _windows_of_pairs(tokens: TokenStream, vocab_size: int) -> Iterator[npt.NDArray[np.int64]]:
    for start, stop in windows(len(tokens), PAIRS):
        part = np.asarray(tokens[start : stop + 1]).astype(np.int64)  # one token more: the pair across the border
        yield part[:-1] * vocab_size + part[1:]
