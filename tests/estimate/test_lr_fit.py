"""The parabola through measured points in closed form, and what is claimed to be sure about its bottom."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.estimate.lr_fit import Parabola, fit, middle_of_ties, near_optimal_interval, on_a_cliff, pooled, seed_freedom, seed_sd
from gptshake.estimate.significance import LEAST_SD

PAIR = 1.959964 * math.sqrt(2)  # standard deviations by which two values differ at 5 %

STEPS = (-4.0, -2.0, 0.0, 2.0, 4.0)  # log2 of a value


def bowl(curvature: float, vertex: float, bottom: float) -> list[tuple[float, float]]:
    parabola = Parabola(curvature, vertex, bottom)
    return [(2.0**x, parabola(x)) for x in STEPS]


@given(st.floats(0.001, 1.0), st.floats(-3.0, 3.0), st.floats(0.5, 10.0))
def test_the_vertex_of_a_parabola_is_found(curvature: float, vertex: float, bottom: float) -> None:
    exact = Parabola(curvature, vertex, bottom)
    found = fit([(x, exact(x)) for x in (vertex - 1.5, vertex - 0.25, vertex + 1.0)])
    assert found is not None
    assert found.curvature == pytest.approx(curvature, rel=1e-3)
    assert found.vertex == pytest.approx(vertex, abs=1e-3)
    assert found.bottom == pytest.approx(bottom, rel=1e-6)


def test_too_few_points_and_a_hill_have_no_parabola() -> None:
    assert fit([(0, 1.0), (1, 2.0)]) is None
    assert fit([(0, 1.0), (0, 1.1), (1, 2.0)]) is None
    assert fit([(0, 1.0), (1, 2.0), (2, math.inf)]) is None
    assert fit([(0, 1.0), (1, 2.0), (2, 1.0)]) is None


def test_a_steep_side_does_not_bend_the_parabola() -> None:
    exact = Parabola(0.01, 0.5, 2.0)
    points = [(x, exact(x)) for x in (-2.0, 0.0, 2.0)]
    found = fit([*points, (4.0, 9.0)])
    assert found is not None and found.vertex == pytest.approx(0.5, abs=0.01)


def test_a_cliff_beside_the_best_keeps_the_answer_on_this_side() -> None:
    """Real runs (six layers, byte pairs, 250 steps): the best of a grid was 2.9e-3, and from 4.2e-3 on it lost 5 % and more."""
    found = near_optimal_interval(
        [(5.33e-4, 3.1426), (1.07e-3, 2.989), (2.13e-3, 2.8965), (8.51e-3, 3.2041), (3.4e-2, 3.2306)], log=True, sd=None
    )
    assert found is not None and 2.0e-3 < found.best < 3.0e-3


@given(st.floats(0.005, 0.1), st.floats(0.005, 0.1), st.lists(st.floats(0.1, 1.0), max_size=3))
def test_the_vertex_stays_nearer_to_the_best_than_to_its_neighbours(left: float, right: float, beyond: list[float]) -> None:
    """Whatever runs further away have lost, a tenth and more."""
    points = [(-1.0, 2 + 2 * left), (0.0, 2.0), (1.0, 2 + 2 * right), *((2.0 + i, 2 + 2 * loss) for i, loss in enumerate(beyond))]
    found = fit(points)
    assert found is not None and abs(found.vertex) < 0.5 + 1e-3


def test_runs_that_only_noise_tells_from_the_best_count_too() -> None:
    exact = Parabola(0.002, 0.0, 2.0)
    noisy = [(x, exact(x) * (1 + error)) for x, error in ((-1, 0.001), (-0.5, -0.001), (0, 0.0), (0.5, 0.001), (1, -0.001))]
    found = fit(noisy)
    three = fit(noisy[:3])
    assert found is not None and three is not None and abs(found.vertex) < 0.35 < abs(three.vertex)


def test_the_interval_ends_where_the_parabola_leaves_the_noise() -> None:
    exact = Parabola(0.01, 0.5, 2.0)
    found = near_optimal_interval(
        [(2.0**x, exact(x)) for x in (-3.0, -1.0, 0.5, 2.0, 3.5)], log=True, sd=0.015 / PAIR
    )  # 0.015 = 0.01 * 1.22^2
    assert found is not None and found.edge is None and not found.assumed
    assert math.log2(found.best) == pytest.approx(0.5, abs=1e-6)
    assert math.log2(found.low) == pytest.approx(0.5 - math.sqrt(1.5), abs=1e-6)
    assert math.log2(found.high) == pytest.approx(0.5 + math.sqrt(1.5), abs=1e-6)


@pytest.mark.parametrize(("curvature", "reach"), [(0.01, 2.0), (0.003, 4.0)])
def test_without_measured_noise_the_interval_reaches_to_values_that_are_clearly_worse(curvature: float, reach: float) -> None:
    """0.5 % of 2.0 is assumed, so a loss of 0.028 above the best is clearly worse: 0.04 is, 0.012 is not."""
    found = near_optimal_interval(bowl(curvature, 0.0, 2.0), log=True, sd=None)
    assert found is not None and found.assumed and found.sd == pytest.approx(0.01)
    assert (math.log2(found.low), math.log2(found.high)) == (-reach, reach)


def test_few_measured_seeds_are_pooled_with_what_is_usual() -> None:
    """Two degrees of freedom at 1 % and two at 0.5 % of the level: the root of the mean of the squares, with four."""
    assert pooled(0.02, 2, 2.0) == (pytest.approx(math.sqrt((0.02**2 + 0.01**2) / 2)), 4)
    assert pooled(0.02, 1e9, 2.0)[0] == pytest.approx(0.02)
    assert pooled(0.02, math.inf, 2.0) == (0.02, math.inf)


@pytest.mark.parametrize(("freedom", "t"), [(2, 2.776445), (4, 2.446912), (28, 2.042272), (math.inf, 1.959964)])
def test_an_interval_is_wider_where_few_seeds_measured_its_noise(freedom: float, t: float) -> None:
    """The sd is as usual, so only the degrees of freedom count: two more than were measured."""
    exact = Parabola(0.02, 0.0, 1.0)
    found = near_optimal_interval([(2.0**x, exact(x)) for x in (-3.0, -1.5, 0.0, 1.5, 3.0)], log=True, sd=0.005, freedom=freedom)
    assert found is not None and not found.assumed
    assert math.log2(found.low) == pytest.approx(-math.sqrt(t * math.sqrt(2) * 0.005 / 0.02), abs=1e-5)


def test_two_seeds_measure_no_noise() -> None:
    found, assumed = (
        near_optimal_interval(bowl(0.01, 0.0, 2.0), log=True, sd=1e-6, freedom=1),
        near_optimal_interval(bowl(0.01, 0.0, 2.0), log=True, sd=None),
    )
    assert found == assumed


def test_the_mean_of_four_runs_has_half_the_noise_of_one() -> None:
    found = near_optimal_interval(bowl(0.01, 0.0, 2.0), log=True, sd=0.02, runs=4)
    assert found is not None and found.sd == pytest.approx(0.01)


def test_still_seeds_do_not_make_a_skewed_bowl_surer_than_its_parabola() -> None:
    found = near_optimal_interval(bowl(0.01, 0.0, 2.0), log=True, sd=0.0)
    assert found is not None and found.sd == 0
    assert math.log2(found.low) == pytest.approx(-math.sqrt(PAIR * LEAST_SD * 2.0 / 0.01), abs=1e-6)


@pytest.mark.parametrize(("beyond", "reaches"), [(2.2, True), (math.inf, True), (2.05, False)])
def test_where_a_cliff_follows_the_interval_reaches_to_it_for_it_may_begin_anywhere(beyond: float, reaches: bool) -> None:
    found = near_optimal_interval([(2.0**-2, 2.04), (1.0, 2.0), (2.0**2, beyond), (2.0**4, 2.5)], log=True, sd=0.001)
    assert found is not None and (found.high == 2.0**2) is reaches and found.low > 2.0**-2


def test_a_seed_that_diverged_or_lost_5_percent_stands_on_a_cliff() -> None:
    assert on_a_cliff([3.713, 3.027]) and on_a_cliff([2.0, math.inf]) and on_a_cliff([2.0, math.nan])
    assert not on_a_cliff([2.0, 2.09]) and not on_a_cliff([2.0])


def test_a_linear_axis_stays_linear() -> None:
    exact = Parabola(4.0, 0.3, 1.0)
    found = near_optimal_interval([(x, exact(x)) for x in (0.1, 0.2, 0.3, 0.41, 0.5)], log=False, sd=0.04 / PAIR)
    assert found is not None
    assert (found.best, found.low, found.high) == pytest.approx((0.3, 0.2, 0.4), abs=1e-6)


def test_the_best_at_an_end_is_an_edge() -> None:
    falling, rising = [(1.0, 3.0), (2.0, 2.0), (4.0, 1.0)], [(1.0, 1.0), (2.0, 2.0), (4.0, 3.0)]
    high, low = near_optimal_interval(falling, log=True, sd=None), near_optimal_interval(rising, log=True, sd=None)
    assert high is not None and (high.edge, high.best) == ("high", 4.0)
    assert low is not None and (low.edge, low.best) == ("low", 1.0)


def test_a_diverged_point_bounds_the_interval_and_bends_nothing() -> None:
    points = bowl(0.001, 0.0, 2.0)
    free, bounded = (
        near_optimal_interval(points, log=True, sd=0.01),
        near_optimal_interval([*points, (2.0**1.5, math.inf)], log=True, sd=0.01),
    )
    assert free is not None and bounded is not None
    assert bounded.best == pytest.approx(free.best)
    assert free.high > 2.0**1.5 and bounded.low == pytest.approx(free.low)


def test_nothing_is_known_when_everything_diverged() -> None:
    assert near_optimal_interval([(1.0, math.inf), (2.0, math.nan)], log=True, sd=None) is None
    assert near_optimal_interval([], log=True, sd=None) is None


@given(st.lists(st.tuples(st.floats(1e-5, 1.0), st.floats(0.5, 5.0) | st.just(math.inf)), min_size=1, max_size=12), st.booleans())
def test_the_interval_holds_the_best_and_stays_inside_what_was_tried(points: list[tuple[float, float]], log: bool) -> None:
    found = near_optimal_interval(points, log=log, sd=None)
    if found is not None:
        tried, slack = [value for value, _ in points], 1 + 1e-9
        assert min(tried) <= found.low * slack and found.high <= max(tried) * slack
        assert found.low <= found.best * slack and found.best <= found.high * slack


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_an_objective_of_any_size_has_the_same_interval(scale: float) -> None:
    points, seeds = [(1e-3, 2.4), (2e-3, 2.25), (4e-3, 2.3)], [[2.25, 2.3], [2.3, 2.31], [2.4, 2.4]]
    found = near_optimal_interval(points, log=True, sd=seed_sd(seeds), freedom=3)
    scaled = [[value * scale for value in row] for row in seeds]
    other = near_optimal_interval([(x, y * scale) for x, y in points], log=True, sd=seed_sd(scaled), freedom=3)
    assert found and other and (found.low, found.high) == pytest.approx((other.low, other.high))


def test_noise_is_pooled_over_repeated_points() -> None:
    assert seed_sd([[1.0, 3.0], [5.0, 5.0, 8.0], [7.0]]) == pytest.approx(math.sqrt((2.0 + 6.0) / 3))
    assert seed_sd([[1.0], [2.0]]) is None and seed_freedom([[1.0, 3.0], [5.0, 5.0, 8.0], [7.0], []]) == 3


@pytest.mark.parametrize(
    ("losses", "answer"),
    [
        ((2.1, 2.0, 2.011, 2.2), 2e-3),  # 0.55 % is a difference
        ((2.1, 2.0, 2.009, 2.2), 4e-3),  # 0.45 % is none: half-way from 2e-3 to 8e-3
        ((2.009, 2.008, 2.0, 2.2), 4e-3),  # of two ties the better one, and only neighbours
        ((2.1, 2.0, math.inf, 2.0), 2e-3),  # never across a value that diverged
        ((2.0, 2.1, 2.2, 2.001), 5e-4),
    ],
)
def test_the_middle_is_taken_of_two_neighbours_whose_difference_may_be_noise(losses: tuple[float, ...], answer: float) -> None:
    assert middle_of_ties(list(zip((5e-4, 2e-3, 8e-3, 3.2e-2), losses, strict=True))) == pytest.approx(answer)


def test_the_only_value_is_the_answer() -> None:
    assert middle_of_ties([(2e-3, 2.0)]) == 2e-3
