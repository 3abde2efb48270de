"""The rules of range tests against golden values, curves whose answer is known, and whatever hypothesis thinks of."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.estimate.lr_range import active_range, geometric_rates, has_diverged, mean_curve, rules, smooth, still_falls

LOSSES = st.lists(st.floats(0.1, 20), min_size=1, max_size=300)


def ramp(rates: list[float], lowest: float = -2.0, width: float = 1.0) -> list[float]:
    """Losses that fall from 4 to 2 around a tenth of the best rate, and rise steeply beyond it; places in log10."""
    places = [math.log10(rate) for rate in rates]
    return [4 - 2 / (1 + math.exp(-(x - lowest + 1) / (0.25 * width))) + 2 * math.exp(3 * (x - lowest - 1)) for x in places]


def golden() -> tuple[list[float], list[float]]:
    rates, losses = [1e-7 * 1e8 ** (i / 100) for i in range(100)], list[float]()
    for rate in rates:
        x = math.log10(rate)
        losses.append(4.2 - 2 / (1 + math.exp(-(x + 3) / 0.35)) + math.exp(3 * (x + 0.2)))
        if has_diverged(losses):
            break
    return rates, losses


def test_the_rules_are_those_that_people_know() -> None:
    """Values of fastai's own functions on this curve."""
    rates, losses = golden()
    assert len(losses) == 94
    found = rules(rates, losses, 100)
    assert found is not None
    known = {"valley": 1.318257e-4, "steep": 8.317638e-4, "minimum": 3.311311e-3, "slide": 1.905461e-6}
    assert {name: vars(found)[name] for name in known} == pytest.approx(known, rel=1e-6)


def test_our_own_start_lies_between_the_end_of_the_fall_and_the_lowest_loss() -> None:
    rates, losses = golden()
    found = rules(rates, losses, 100)
    assert found is not None and found.slide is not None
    lowest = 10 * found.minimum
    assert found.steep < found.middle < found.one_cycle < lowest


def test_what_breaks_is_left_out() -> None:
    rates, losses = golden()
    whole = rules(rates, losses, 100)
    assert rules(rates, [*losses[:-5], math.nan, *losses[-4:]], 100) == whole
    assert rules(rates, [*losses[:-5], math.inf, *losses[-4:]], 100) == whole


@pytest.mark.parametrize("losses", [[3.0] * 100, [2 + i / 100 for i in range(100)], [math.nan], [], [4.0, 3.0, 2.0]])
def test_a_curve_that_never_falls_says_nothing(losses: list[float]) -> None:
    assert rules(geometric_rates(1e-6, 1, 100), losses) is None
    assert losses == [4.0, 3.0, 2.0] or active_range(geometric_rates(1e-6, 1, 100), losses) is None


@settings(max_examples=20)
@given(st.floats(-4, -1), st.floats(0.5, 1.0))
def test_the_answer_moves_with_the_curve(lowest: float, width: float) -> None:
    rates = geometric_rates(1e-6, 10, 300)
    found = rules(rates, ramp(rates, lowest, width))
    assert found is not None
    assert abs(math.log10(found.middle) - lowest) < 0.6
    assert found.steep == pytest.approx(10 ** (lowest - 1), rel=0.25)


@given(LOSSES)
def test_smoothing_stays_within_its_curve_and_leaves_a_constant_alone(losses: list[float]) -> None:
    found = smooth(losses)
    assert len(found) == len(losses) and min(losses) - 1e-9 <= min(found) and max(found) <= max(losses) + 1e-9
    assert smooth([1.5] * len(losses)) == pytest.approx([1.5] * len(losses))


def test_smoothing_does_not_lag() -> None:
    """A straight line stays where it is; an exponential mean of 0.98 would lie 49 steps behind."""
    line = [4 - 0.01 * i for i in range(200)]
    assert smooth(line) == pytest.approx(line)
    corner = [max(0.0, i - 100.0) for i in range(200)]
    assert next(i for i, value in enumerate(smooth(corner)) if value > 0.5) in range(98, 102)


@pytest.mark.parametrize(
    ("losses", "diverged"), [([], False), ([4.0, 2.0, 7.9], False), ([4.0, 2.0, 8.1], True), ([math.nan], True), ([2.0, math.inf], True)]
)
def test_a_ramp_has_diverged_at_four_times_its_best_or_without_a_number(losses: list[float], diverged: bool) -> None:
    assert has_diverged(losses) is diverged


def test_the_mean_goes_as_far_as_the_shortest() -> None:
    assert mean_curve([[1.0, 2.0, 3.0], [3.0, 4.0]]) == [2.0, 3.0]


@given(st.floats(-4, -1))
def test_a_closer_look_holds_the_fall_and_the_lowest_loss(lowest: float) -> None:
    rates = geometric_rates(1e-6, 10, 100)
    found = active_range(rates, ramp(rates, lowest))
    assert found is not None
    low, high = found
    assert rates[0] <= low < 10 ** (lowest - 1) and 10**lowest < high <= rates[-1]


def test_a_curve_that_is_lowest_at_its_end_has_not_seen_the_far_side() -> None:
    assert still_falls([4.0 - 0.01 * i for i in range(100)])
    assert not still_falls(ramp(geometric_rates(1e-6, 1, 100)))


def test_rates_go_up_by_equal_factors_from_end_to_end() -> None:
    rates = geometric_rates(1e-6, 1, 7)
    assert rates == pytest.approx([1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1])
