"""The search for a micro-batch: which sizes are tried, and which two are told."""

from collections.abc import Callable
from itertools import takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.estimate.batch_size import Tried, fastest, is_saturated, largest, next_size

Seconds = Callable[[int], float]


def search(
    room: int, seconds: Seconds = lambda size: 0.01 * size, batch: int = 32, most: int | None = None, *, saturates: bool
) -> list[Tried]:
    """All trials on a device that has room for so many sequences and takes so long for a pass."""
    tried: list[Tried] = []
    while (size := next_size(tried, batch, most=most, saturates=saturates)) is not None:
        tried.append(Tried(size, size <= room, size, seconds(size), 0.001))
        assert len(tried) < 100
    return tried


def sizes(tried: list[Tried]) -> list[int]:
    return [row.size for row in tried]


def test_sizes_are_doubled_and_then_the_gap_is_halved() -> None:
    assert sizes(search(50, saturates=False)) == [1, 2, 4, 8, 16, 32, 64, 48, 56, 52, 50]


@given(st.integers(1, 100_000), st.integers(1, 512), st.booleans())
def test_the_largest_that_fits_is_found_to_within_a_sixteenth_and_no_size_is_tried_twice(room: int, batch: int, saturates: bool) -> None:
    tried = search(room, lambda size: 1e-6 + 1e-9 * size, batch, saturates=saturates)
    assert len({row.size for row in tried}) == len(tried)
    if any(not row.fits for row in tried):
        assert room - max(1, room // 15) <= largest(tried).size <= room
    else:
        assert saturates and is_saturated(tried, batch)


def test_a_device_that_gets_no_faster_is_not_filled() -> None:
    """Its passes take as long per sequence from 8 sequences on."""
    tried = search(10**6, lambda size: 0.1 * max(size, 8), saturates=True)
    assert sizes(tried) == [1, 2, 4, 8, 16, 32]
    assert fastest(tried, 32).size == 8 and largest(tried).size == 32


def test_one_slow_size_does_not_end_the_search() -> None:
    assert sizes(search(10**6, lambda size: {4: 9.0}.get(size, 0.1 * max(size, 8)), saturates=True)) == [1, 2, 4, 8, 16, 32]


def test_no_size_above_the_batch_is_wanted_by_a_run() -> None:
    assert sizes(search(10**6, lambda size: 0.1, 48, 48, saturates=True)) == [1, 2, 4, 8, 16, 32, 48]
    assert sizes(search(10**6, batch=1, most=1, saturates=True)) == [1]


def test_a_search_goes_on_from_what_is_known() -> None:
    tried = search(10**6, lambda size: 0.1, 8, 8, saturates=True)
    assert next_size(tried, 32, most=32, saturates=True) == 16


def test_where_nothing_fits_nothing_more_is_tried() -> None:
    assert sizes(search(0, saturates=True)) == [1]


def test_the_smaller_of_two_that_are_as_fast_is_taken() -> None:
    tried = search(40, lambda size: {16: 0.161, 32: 0.32}.get(size, 0.02 * size), batch=32, saturates=False)
    assert fastest(tried, 32).size == 16
    assert fastest(tried, 8).size <= 8 < fastest(tried, 8, beyond=True).size


def test_the_update_is_paid_once_a_step() -> None:
    """At one second each, 32 passes of one sequence and an update take 33 s; one pass of 64 sequences is a step of its own."""
    one, all_of_it = Tried(1, True, 1, 1.0, 1.0), Tried(64, True, 1, 1.0, 1.0)
    assert one.rate(32) == pytest.approx(32 / 33, rel=2e-3)
    assert all_of_it.rate(32) == pytest.approx(64 / 2, rel=2e-3)


def test_doubling_stops_at_the_first_that_does_not_fit() -> None:
    tried = search(5, saturates=False)
    assert sizes(list(takewhile(lambda row: row.fits, tried))) == [1, 2, 4] and sizes(tried)[3:] == [8, 6, 5]
