"""The split: shares, stability, and the characters that go where."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.data.split import NAMES, by_documents, by_position, id_hash

LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=30).map(lambda lengths: np.array(lengths, np.uint64))
FRACTIONS = st.tuples(st.floats(0.01, 0.5), st.floats(0, 0.49))


@given(LENGTHS, FRACTIONS)
def test_by_position_every_character_is_in_one_split_and_in_order(lengths: np.ndarray, fractions: tuple[float, float]) -> None:
    pieces = by_position(lengths, *fractions)
    starts = np.cumsum(lengths) - lengths
    read = [int(starts[d]) + c for name in NAMES for d, first, last in pieces[name].tolist() for c in range(first, last)]
    assert read == list(range(int(lengths.sum())))


@given(st.integers(1, 10**9))
def test_a_tenth_by_position_is_nanogpts_split(n: int) -> None:
    pieces = by_position(np.array([n]), 0.1, 0)
    cut = int(n * 0.9)
    assert pieces["train"].tolist() == ([[0, 0, cut]] if cut else [])
    assert pieces["val"].tolist() == [[0, cut, n]]
    assert len(pieces["test"]) == 0


@given(st.lists(st.text(max_size=5), unique=True, max_size=40), FRACTIONS)
def test_by_documents_each_is_whole_on_one_side_and_stays_when_the_corpus_grows(ids: list[str], fractions: tuple[float, float]) -> None:
    def sides(names: list[str]) -> dict[str, str]:
        pieces = by_documents(np.array([id_hash(name) for name in names], np.uint64), np.full(len(names), 7), *fractions)
        assert all(rows[:, 1:].tolist() == [[0, 7]] * len(rows) for rows in pieces.values())
        return {names[d]: side for side in NAMES for d in pieces[side][:, 0]}

    half = ids[: len(ids) // 2]
    whole = sides(ids)
    assert sorted(whole) == sorted(ids)
    assert sides(half) == {name: whole[name] for name in half}


def test_by_documents_the_shares_are_those_asked_for() -> None:
    places = np.array([id_hash(str(number)) for number in range(20_000)], np.uint64)
    sizes = {name: len(rows) / 20_000 for name, rows in by_documents(places, np.ones(20_000), 0.05, 0.1).items()}
    assert sizes == pytest.approx({"train": 0.85, "val": 0.05, "test": 0.1}, abs=0.01)


def test_the_place_of_an_id_is_frozen() -> None:
    assert id_hash("") == 0xE3B0C44298FC1C14  # the first 8 bytes of the well-known SHA-256 of nothing
    assert id_hash("\udcff") != id_hash("?")  # a file name that is no UTF-8
