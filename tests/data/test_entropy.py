"""Entropies against closed forms and a plain count."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.data import entropy
from gptshake.data.entropy import entropies, loss_in_words, references


def plain(ids: list[int]) -> tuple[float, float]:
    def h(counts: Counter[object]) -> float:
        n = sum(counts.values())
        return -sum(c / n * math.log(c / n) for c in counts.values())

    return h(Counter(ids)), h(Counter(pairwise(ids))) - h(Counter(ids[:-1]))


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.sampled_from([3, 5, 1 << 22]), st.sampled_from([7, 5000]))
def test_entropies_are_those_of_a_plain_count_in_any_chunks(ids: list[int], chunk: int, vocab_size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "_CHUNK", chunk)
        found = entropies(np.array(ids, np.uint16), vocab_size)
    assert (found["unigram"], found["bigram"]) == pytest.approx(plain(ids), abs=1e-9)
    assert found["uniform"] == math.log(vocab_size)


@pytest.mark.parametrize("vocab_size", [9, 3000, 100_000])
def test_pairs_of_a_long_stream_are_counted_in_windows_of_all_of_it(vocab_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entropy, "PAIRS", 4000)
    monkeypatch.setattr(entropy, "_CHUNK", 500)
    draw = np.random.default_rng(1)
    halves = [np.tile([1, 2], 20_000), draw.integers(0, 8, 40_000)]
    found = entropies(np.concatenate(halves).astype(np.uint32), vocab_size)
    assert found["unigram"] == pytest.approx(plain(np.concatenate(halves).tolist())[0])  # of all tokens
    assert found["bigram"] == pytest.approx(plain(np.concatenate(halves).tolist())[1], abs=0.05)


@given(st.integers(1, 5000), st.integers(1, 3000), st.integers(1, 400))
def test_windows_cover_everything_or_are_spread_evenly(n: int, limit: int, chunk: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(entropy, "_CHUNK", chunk)
        found = list(entropy.windows(n, limit))
    covered = [place for start, stop in found for place in range(start, stop)]
    assert len(set(covered)) == len(covered) and min(covered) == 0 and max(covered) < n
    if n <= limit:
        assert covered == list(range(n))
    else:
        assert len(covered) <= limit + min(chunk, limit)
        assert n - found[-1][0] <= 2 * n * min(chunk, limit) / limit + 1


def test_a_cycle_has_no_bigram_entropy_and_a_uniform_unigram() -> None:
    found = entropies(np.tile(np.arange(8, dtype=np.uint16), 1000), 8)
    assert found["unigram"] == pytest.approx(math.log(8))
    assert found["bigram"] == pytest.approx(0, abs=1e-9)


def test_independent_tokens_gain_nothing_from_context() -> None:
    found = entropies(np.random.default_rng(0).integers(0, 4, 400_000).astype(np.uint16), 4)
    assert found["bigram"] == pytest.approx(found["unigram"], abs=1e-4)


@given(
    train=st.lists(st.integers(0, 5), min_size=2, max_size=60),
    other=st.lists(st.integers(0, 7), min_size=2, max_size=60),
    wide=st.booleans(),
)
def test_references_are_the_mean_over_each_target_of_another_text(train: list[int], other: list[int], wide: bool) -> None:
    size = 5000 if wide else 8  # counted by sorting, or in a table
    found = references(np.array(train, np.uint16), np.array(other, np.uint16), size)
    unigram = {token: (train.count(token) + 1) / (len(train) + size) for token in range(8)}
    pairs = [*pairwise(train)]

    def bigram(first: int, token: int) -> float:
        times, followers = pairs.count((first, token)), [b for a, b in pairs if a == first]
        kinds = len(set(followers)) or 1
        return (times + kinds * unigram[token]) / (len(followers) + kinds)

    assert found["uniform"] == math.log(size)
    assert found["unigram"] == pytest.approx(-np.mean([math.log(unigram[token]) for token in other[1:]]))
    assert found["bigram"] == pytest.approx(-np.mean([math.log(bigram(*pair)) for pair in pairwise(other)]))


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (2.3, "val loss 2.30: better than bigram 2.44 ("),
        (2.9, "val loss 2.90: better than unigram 3.10 and worse than bigram 2.44 ("),
        (3.5, "val loss 3.50: better than guessing 4.16 and worse than unigram 3.10 ("),
        (3.096, "val loss 3.10: equal to unigram 3.10 ("),
        (5.0, "val loss 5.00: worse than guessing 4.16 ("),
    ],
)
def test_a_loss_is_compared_with_the_next_line_on_either_side(loss: float, said: str) -> None:
    assert loss_in_words(loss, {"uniform": 4.159, "unigram": 3.1, "bigram": 2.44}).startswith(said)
