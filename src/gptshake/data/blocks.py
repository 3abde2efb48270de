"""Which tokens a training step reads: block arithmetic and an order that can be computed at any position.

A token stream is cut into blocks that do not overlap. The order of an epoch is a keyed bijection of the block numbers (a
Feistel network with cycle walking), so the block at position 10 billion costs as much as the first one, nothing is
stored, and a resumed run continues exactly. The cost: a permutation from 8 Feistel rounds, not from all n! of them, at
0.1 to 0.5 us per block. Everything is a pure function of numbers; numpy only.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gptshake.errors import DataError

Ints = npt.NDArray[np.integer[Any]]
_U64 = npt.NDArray[np.uint64]
_ROUNDS = 8
_GOLDEN = 0x9E3779B97F4A7C15
_64_BITS = (1 << 64) - 1


def n_blocks(n_tokens: int, block_size: int, *, random_offset: bool = False, limit: int | None = None) -> int:
    """Number of training blocks in a token stream.

    A block needs ``block_size`` inputs and as many targets shifted by one, so neighbours share one token: every token but
    the first is a target at most once, and at most ``block_size - 1`` tokens at the end are not used. Where an epoch may begin
    at any of the first ``block_size`` tokens, each has as many blocks as fit behind the last of them.

    Args:
        n_tokens: length of the stream, in tokens.
        block_size: context length, in tokens; > 0.
        random_offset: whether epochs begin at random offsets (see ``block_starts``).
        limit: most blocks to count; None: all.
    Raises:
        DataError: if not even one block fits; says how many tokens are missing.
    """
    needed = 2 * block_size if random_offset else block_size + 1
    if n_tokens < needed:
        missing, with_offset = needed - n_tokens, " with data.offset=random" if random_offset else ""
        raise DataError(
            f"The training text has {n_tokens:,} tokens, but one block of {block_size:,}{with_offset} needs {needed:,}: "
            f"{missing:,} are missing. Give more text or a smaller model.block_size "
            f"(at most {n_tokens // 2 if random_offset else max(n_tokens - 1, 0):,})."
        )
    found = (n_tokens - needed) // block_size + 1
    return found if limit is None else min(found, limit)


def permute(index: Ints, n: int, key: int | _U64) -> npt.NDArray[np.int64]:
    """Where a keyed permutation of 0 … n-1 sends each index, in its shape; for every key (one for all, or one per index) a bijection.

    Source: Luby and Rackoff 1988 (Feistel rounds); Black and Rogaway 2002 (cycle walking). The network permutes the next
    power of four, which is less than 4 n; what falls outside [0, n) goes through again, 4 times on average at worst.
    """
    half = ((n - 1).bit_length() + 1) // 2
    keys = np.broadcast_to(np.asarray(key & _64_BITS if isinstance(key, int) else key, np.uint64), np.shape(index)).reshape(-1)
    result = _feistel(np.asarray(index, np.uint64).reshape(-1), keys, half)
    outside = np.flatnonzero(result >= n)
    while outside.size:
        result[outside] = _feistel(result[outside], keys[outside], half)
        outside = outside[result[outside] >= n]
    return result.astype(np.int64).reshape(np.shape(index))


def block_ids(first: int, count: int, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Numbers of the blocks read at the positions ``first`` … ``first + count - 1`` of an endless training run, shape (count,).

    Position p belongs to epoch p // n of ``n`` blocks, and every epoch has its own permutation, so each block comes exactly once in an
    epoch and batches run on across an epoch's end.
    """
    epoch, index = np.divmod(np.arange(first, first + count, dtype=np.int64), n)
    return permute(index, n, _epoch_keys(epoch, seed))


def block_starts(first: int, count: int, n: int, seed: int, block_size: int, *, random_offset: bool = False) -> npt.NDArray[np.int64]:
    """Where the blocks of ``block_ids`` begin in the stream: positions of their first tokens, shape (count,).

    With ``random_offset`` all blocks of an epoch begin later by one number that the seed draws from [0, block_size) for each epoch;
    tokens that then lie before the first block or behind the last are left out in that epoch.
    """
    starts = block_ids(first, count, n, seed) * block_size
    if not random_offset:
        return starts
    epoch = np.arange(first, first + count, dtype=np.int64) // n
    drawn = _mix(_epoch_keys(epoch, seed) ^ np.uint64(_GOLDEN)) % np.uint64(block_size)
    return starts + drawn.astype(np.int64)


def gather(tokens: npt.NDArray[np.unsignedinteger[Any]], starts: Ints, block_size: int) -> npt.NDArray[np.int64]:
    """Blocks of a stream as rows: int64 (count, block_size + 1), inputs [:, :-1], targets [:, 1:]; of a memory map only these are read."""
    inside = np.asarray(starts, np.int64)[:, None] + np.arange(block_size + 1)
    blocks: npt.NDArray[np.int64] = np.asarray(tokens)[inside].astype(np.int64)
    return blocks


def _epoch_keys(epoch: npt.NDArray[np.int64], seed: int) -> _U64:
    return _mix(_mix(np.array([seed & _64_BITS], np.uint64)) + epoch.astype(np.uint64))


def _feistel(values: _U64, keys: _U64, half: int) -> _U64:
    """A keyed bijection of the numbers of ``2 * half`` bits; shapes (n,)."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for number in range(_ROUNDS):
        left, right = right, left ^ (_mix(right + keys + np.uint64(number * _GOLDEN & _64_BITS)) & mask)
    return (left << bits) | right


def _mix(values: _U64) -> _U64:
    """A bijection of 64-bit numbers in which every input bit reaches every output bit (the finaliser of SplitMix64)."""
    values = values + np.uint64(_GOLDEN)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
