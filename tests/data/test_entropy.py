"""Entropies against closed forms and a plain count."""

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.data import entropy
from gptshake.data.entropy import entropies


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


def test_a_cycle_has_no_bigram_entropy_and_a_uniform_unigram() -> None:
    found = entropies(np.tile(np.arange(8, dtype=np.uint16), 1000), 8)
    assert found["unigram"] == pytest.approx(math.log(8))
    assert found["bigram"] == pytest.approx(0, abs=1e-9)


def test_independent_tokens_gain_nothing_from_context() -> None:
    found = entropies(np.random.default_rng(0).integers(0, 4, 400_000).astype(np.uint16), 4)
    assert found["bigram"] == pytest.approx(found["unigram"], abs=1e-4)
