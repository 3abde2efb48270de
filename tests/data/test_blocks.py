"""Blocks and their order: closed forms and bijections."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.data.blocks import block_ids, block_starts, gather, n_blocks, permute
from gptshake.errors import DataError


@given(st.integers(1, 500), st.integers(2, 10**12))
def test_every_token_but_the_first_is_a_target_at_most_once_and_few_are_left(block_size: int, n_tokens: int) -> None:
    if n_tokens <= block_size:
        with pytest.raises(DataError, match=f"{block_size + 1 - n_tokens:,} are missing"):
            n_blocks(n_tokens, block_size)
    else:
        n = n_blocks(n_tokens, block_size)
        assert n >= 1
        assert 0 <= (n_tokens - 1) - n * block_size < block_size


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**70))
def test_permute_is_a_bijection(n: int, key: int) -> None:
    assert np.array_equal(np.sort(permute(np.arange(n), n, key)), np.arange(n))


@given(st.integers(1, 2**62), st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**62), min_size=1, max_size=20, unique=True))
def test_permute_stays_inside_and_apart_in_huge_ranges(n: int, key: int, index: list[int]) -> None:
    inside = np.unique(np.array(index) % n)
    result = permute(inside, n, key)
    assert result.min() >= 0 and result.max() < n
    assert len(np.unique(result)) == len(inside)


def test_permute_looks_random() -> None:
    n, keys = 10, 4000
    rows = np.stack([permute(np.arange(n), n, key) for key in range(keys)])
    table = np.stack([np.bincount(rows[:, place], minlength=n) for place in range(n)])
    assert np.sum((table - keys / n) ** 2 / (keys / n)) < 150  # chi-square of 81 degrees of freedom: mean 81, deviation 13
    order = permute(np.arange(100_000), 100_000, 7)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.02
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.02


def test_permute_takes_a_key_for_each_index() -> None:
    index, keys = np.arange(50), np.arange(50, dtype=np.uint64) % 3
    expected = [permute(np.array([i]), 50, int(key))[0] for i, key in zip(index, keys, strict=True)]
    assert permute(index, 50, keys).tolist() == expected


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 2**40))
def test_every_epoch_reads_every_block_once(n: int, epoch: int, seed: int) -> None:
    assert np.sort(block_ids(epoch * n, n, n, seed)).tolist() == list(range(n))


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(0, 200), st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 99))
def test_the_order_does_not_depend_on_how_it_is_cut_into_batches(n: int, first: int, sizes: list[int], seed: int) -> None:
    starts = first + np.concatenate([[0], np.cumsum(sizes)[:-1]])
    parts = [block_ids(int(start), size, n, seed) for start, size in zip(starts, sizes, strict=True)]
    assert np.array_equal(np.concatenate(parts), block_ids(first, sum(sizes), n, seed))


@settings(deadline=None)
@given(st.integers(1, 12), st.integers(0, 60), st.integers(0, 4), st.integers(0, 2**40))
def test_with_a_random_offset_an_epoch_still_reads_all_tokens_but_a_few_once(block_size: int, more: int, epoch: int, seed: int) -> None:
    n_tokens = 2 * block_size + more
    n = n_blocks(n_tokens, block_size, random_offset=True)
    starts = np.sort(block_starts(epoch * n, n, n, seed, block_size, random_offset=True))
    assert 0 <= starts[0] < block_size and starts[-1] + block_size < n_tokens
    assert np.array_equal(np.diff(starts), np.full(n - 1, block_size))
    assert n_tokens - 1 - n * block_size < 2 * block_size - 1


def test_random_offsets_are_those_of_their_epochs_and_reach_everywhere() -> None:
    n, block_size = 7, 16
    starts = block_starts(0, 400 * n, n, 3, block_size, random_offset=True)
    offsets = (starts - block_ids(0, 400 * n, n, 3) * block_size).reshape(400, n)
    assert np.array_equal(offsets, np.repeat(offsets[:, :1], n, axis=1))
    assert set(offsets[:, 0].tolist()) == set(range(block_size))
    assert np.array_equal(starts[100:200], block_starts(100, 100, n, 3, block_size, random_offset=True))
    assert np.array_equal(block_starts(5, 9, n, 3, block_size), block_ids(5, 9, n, 3) * block_size)


def test_a_text_too_short_for_a_random_offset_is_a_sentence() -> None:
    assert n_blocks(16, 8, random_offset=True) == 1
    with pytest.raises(DataError, match=r"data\.offset=random needs 16: 1 are missing.*at most 7"):
        n_blocks(15, 8, random_offset=True)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = {tuple(block_ids(epoch * 100, 100, 100, seed).tolist()) for epoch in range(5) for seed in range(5)}
    assert len(orders) == 25


def test_the_order_is_frozen() -> None:
    """Golden: a changed order would break every resumed run."""
    assert block_ids(0, 10, 10, 0).tolist() == [3, 9, 8, 1, 2, 4, 0, 5, 6, 7]
    assert block_ids(10**15, 3, 10**9, 1).tolist() == [504901999, 362337342, 746725942]
    assert block_starts(0, 3, 10, 0, 64, random_offset=True).tolist() == [238, 622, 558]


def test_a_far_position_costs_no_more_than_the_first() -> None:
    start = time.perf_counter()
    for _ in range(20):
        block_ids(10**17, 64, 10**10, 3)
    assert time.perf_counter() - start < 20  # a permutation in memory would never end


@given(st.integers(1, 9), st.integers(10, 60))
def test_gather_gives_inputs_and_shifted_targets(block_size: int, n_tokens: int) -> None:
    tokens = np.arange(n_tokens, dtype=np.uint16)
    ids = np.arange(n_blocks(n_tokens, block_size))[::-1]
    rows = gather(tokens, ids * block_size, block_size)
    assert rows.dtype == np.int64 and rows.shape == (len(ids), block_size + 1)
    assert np.array_equal(rows[:, 0], ids * block_size)
    assert np.array_equal(rows[:, 1:], rows[:, :-1] + 1)


def test_an_epoch_may_be_limited_to_the_first_blocks() -> None:
    assert [n_blocks(1001, 10, limit=limit) for limit in (None, 3, 1000)] == [100, 3, 100]
