"""Figures of an evaluation in closed form, and the error of a ratio against documents that are drawn again."""

import math

import numpy as np
import pytest

from gptshake.estimate.evaluation import figures, ratio


def test_documents_of_one_length_have_the_standard_error_of_a_mean() -> None:
    found, error = ratio(np.array([1.0, 2.0, 6.0]), np.array([1, 1, 1]))
    assert found == 3.0 and error == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))


def test_documents_that_all_cost_the_same_have_no_error_and_one_document_has_none_that_is_known() -> None:
    assert ratio(np.array([2.0, 8.0, 20.0]), np.array([1, 4, 10])) == (2.0, 0.0)
    assert ratio(np.array([3.0]), np.array([2])) == (1.5, None)


def test_the_error_is_the_spread_of_the_ratio_among_samples_of_documents() -> None:
    draw = np.random.default_rng(0)
    sizes = draw.integers(50, 2000, 400)
    parts = sizes * draw.normal(2, 0.3, 400)
    again = [draw.integers(0, 400, 400) for _ in range(2000)]
    spread = np.std([parts[drawn].sum() / sizes[drawn].sum() for drawn in again])
    assert ratio(parts, sizes)[1] == pytest.approx(spread, rel=0.05)


def test_the_figures_of_two_documents_by_hand() -> None:
    found = {"nats": [3.0, 5.0], "hidden": [0.0, 1.0], "tokens": [2, 2], "bytes": [4, 6], "characters": [4, 5], "words": [1, 2]}
    one = figures({name: np.array(values) for name, values in found.items()})
    assert one["loss"] == 2.0 and one["perplexity"] == pytest.approx(math.exp(2.0))
    assert one["bpb"] == pytest.approx(9 / math.log(2) / 10) and one["bpc"] == pytest.approx(9 / math.log(2) / 9)
    assert one["word_perplexity"] == pytest.approx(math.exp(8 / 3)) and one["byte_perplexity"] == pytest.approx(math.exp(0.8))
    assert one["loss_error"] == pytest.approx(math.sqrt(2 * ((3 - 4) ** 2 + (5 - 4) ** 2)) / 4)
