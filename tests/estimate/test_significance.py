"""The t-tests against Student's own table and closed forms, and what a study of pure noise claims."""

import math

import pytest

from gptshake.estimate.significance import holm, least_difference, one_sample, p_value, t_quantile, welch

CAUCHY = [0.1, 1.0, 3.0, 12.706, 1e3]


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    [(1, 12.7062), (2, 4.3027), (3, 3.1824), (5, 2.5706), (10, 2.2281), (12, 2.1788), (30, 2.0423), (1000, 1.9623), (math.inf, 1.9600)],
)
def test_the_quantiles_are_students(freedom: float, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=6e-5)


@pytest.mark.parametrize("t", CAUCHY)
def test_p_values_have_their_closed_forms(t: float) -> None:
    assert p_value(t, 1) == pytest.approx(1 - 2 * math.atan(t) / math.pi, rel=1e-9)  # Cauchy
    assert p_value(-t, 2) == pytest.approx(1 - t / math.sqrt(2 + t * t), rel=1e-6)


def test_a_paired_test_is_the_one_sample_test_of_the_differences() -> None:
    test = one_sample([0.01, -0.01, 0.005])
    assert test is not None and test.freedom == 2
    assert (test.mean, test.error, test.p) == pytest.approx((1 / 600, 0.0060093, 0.807496), rel=1e-4)
    assert test.half_width == pytest.approx(4.302653 * test.error)
    assert one_sample([1.0]) is None


def test_welch_has_the_degrees_of_freedom_of_welch_and_satterthwaite() -> None:
    test = welch(2.0 - 10.0, (1.0, 3), (math.sqrt(80 / 3), 4))  # 1, 2, 3 against 4, 8, 12, 16
    a, b = 1 / 3, (80 / 3) / 4
    assert test.freedom == pytest.approx((a + b) ** 2 / (a**2 / 2 + b**2 / 3))
    assert (test.mean, test.error) == pytest.approx((-8.0, math.sqrt(a + b)))


@pytest.mark.parametrize(("gaps", "p"), [([0.0, 0.0, 0.0], 1.0), ([0.5, 0.5, 0.5], 0.0)])
def test_differences_that_do_not_vary_are_none_or_certain(gaps: list[float], p: float) -> None:
    test = one_sample(gaps)
    assert test is not None and test.p == p


def test_holm_steps_down_and_ends_at_the_first_that_is_not_significant() -> None:
    assert holm([0.04, 0.01, 0.02]) == [True, True, True]  # 0.01 <= 0.05/3, 0.02 <= 0.05/2, 0.04 <= 0.05
    assert holm([0.06, 0.01, 0.03]) == [False, True, False]
    assert holm([0.02, 0.03, 0.04]) == [False, False, False]
    assert holm([]) == []


def test_two_values_of_a_known_spread_differ_at_2_77_standard_deviations() -> None:
    assert least_difference(0.01) == pytest.approx(0.027718, abs=1e-5)
    assert least_difference(0.01, 2) == pytest.approx(4.302653 * math.sqrt(2) * 0.01)
