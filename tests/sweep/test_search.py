"""What the searches propose: in closed form where there is one, as behaviour on bowls with cliffs, failures and slots elsewhere."""

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import sweep_driver
from hypothesis import given, settings
from hypothesis import strategies as st

from gptshake.sweep.search import MOST, GridSearch, LineSearch, SampledSearch, Search, lower_bound, search_for, second_seeds
from gptshake.sweep.search import start_of as starting_values
from gptshake.sweep.space import Axis, Params, Point, three_digits
from gptshake.sweep.study import decode, encode

LR = Axis("lr", 1e-5, 3e-2, log=True, declared=1e-3)
Loss = Callable[[float], float]


def bowl(best: float, cliff: float = math.inf) -> Loss:
    """Twice the best costs 0.5 %; above the cliff runs diverge."""
    return lambda lr: 2.0 * (1 + 0.005 * math.log2(lr / best) ** 2) if lr < cliff else math.inf


def drive(search: Search, loss: Loss, **options: Any) -> list[Point]:
    """Along one axis; options as of the driver."""
    return sweep_driver.drive(search, lambda params, _: loss(*map(float, params.values())), **options)


def values(points: list[Point]) -> list[float]:
    return [float(value) for point in points for value in point.params.values()]


def best_of(points: list[Point]) -> float:
    return values([min((point for point in points if point.value is not None), key=lambda point: point.value or 0.0)])[0]


# Grids


def test_a_grid_is_the_product_in_hydras_order() -> None:
    grid = GridSearch([Axis("a", choices=(1, 2)), Axis("b", choices=("x", "y"))])
    points: list[Point] = []
    while (params := grid.propose(points)) is not None:
        points.append(Point(len(points), params, 1.0, "ok"))
    assert grid.size == 4
    assert [tuple(point.params.values()) for point in points] == [(1, "x"), (1, "y"), (2, "x"), (2, "y")]


@pytest.mark.parametrize("state", ["running", "ok", "pruned", "diverged", "failed"])
def test_a_grid_point_is_tried_once_however_it_ended(state: str) -> None:
    assert GridSearch([Axis("a", choices=(1, 2))]).propose([Point(0, {"a": 1}, None, state)]) == {"a": 2}


# One numeric axis


def test_the_declared_value_comes_first_and_exactly_then_its_neighbours() -> None:
    axis = Axis("lr", 1e-5, 3e-2, log=True, declared=1.2345e-3)
    assert values(drive(LineSearch(axis, n_trials=None, slots=1), bowl(1e-3)))[:3] == [1.2345e-3, 4.94e-3, 3.09e-4]


def test_without_a_declared_value_the_search_starts_in_the_middle() -> None:
    assert LineSearch(Axis("lr", 1e-4, 1e-2, log=True), n_trials=None, slots=1).propose([]) == {"lr": 1e-3}
    assert LineSearch(Axis("p", 0.0, 0.5), n_trials=None, slots=1).propose([]) == {"p": 0.25}


@pytest.mark.parametrize(("declared", "start"), [(1.0, 3e-2), (1e-9, 1e-5)])
def test_a_declared_value_outside_the_range_starts_at_the_nearest_end(declared: float, start: float) -> None:
    line = LineSearch(Axis("lr", 1e-5, 3e-2, log=True, declared=declared), n_trials=None, slots=1)
    assert line.propose([]) == {"lr": start}


def test_the_search_goes_outwards_until_the_minimum_lies_inside() -> None:
    tried = values(drive(LineSearch(LR, n_trials=None, slots=1), bowl(3e-5)))
    assert tried[:5] == [1e-3, 4e-3, 2.5e-4, 6.25e-5, 1.56e-5]
    assert len(tried) <= 7


@pytest.mark.parametrize("end", ["low", "high"])
def test_a_minimum_beyond_the_range_ends_the_search_at_its_end(end: str) -> None:
    points = drive(LineSearch(LR, n_trials=None, slots=1), bowl(1e-8 if end == "low" else 10.0))
    assert best_of(points) == (1e-5 if end == "low" else 3e-2)


@pytest.mark.parametrize(("key", "runs"), [("optimizer.lr", 4), ("optimizer.weight_decay", 3)])
def test_a_declared_value_at_the_minimum_takes_three_runs_and_a_flat_one_of_a_rate_a_fourth_below(key: str, runs: int) -> None:
    axis = Axis(key, 1e-5, 3e-2, log=True, declared=1e-3)
    assert len(drive(LineSearch(axis, n_trials=None, slots=1), bowl(1e-3))) == runs


@pytest.mark.parametrize("start", [0.03, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_a_start_on_an_uneven_plateau_above_the_cliff_leads_down_to_the_bowl(start: float) -> None:
    """The plateau is 30 % worse and moves by 2 % either way, as seeds do there."""
    axis = Axis("optimizer.lr", start / 300, start * 300, log=True, declared=start)
    points = drive(
        LineSearch(axis, n_trials=None, slots=1),
        lambda lr: bowl(1e-3)(lr) if lr < 3e-3 else 2.6 * (1 + 0.02 * math.cos(1.1 * math.log2(lr))),
    )
    assert bowl(1e-3)(best_of(points)) < 1.005 * 2.0 and len(points) <= 8


def test_a_minimum_half_way_between_two_points_takes_a_run_there() -> None:
    points = drive(LineSearch(LR, n_trials=None, slots=1), bowl(2e-3))
    assert values(points)[3:] == [6.25e-5, 2e-3]


@pytest.mark.parametrize("off", [1 / 32, 1 / 8, 1 / 3, 1, 3, 8])
def test_the_answer_is_within_half_a_percent_of_the_best_loss(off: float) -> None:
    best = 1e-3 / off
    points = drive(LineSearch(LR, n_trials=None, slots=1), bowl(best, cliff=8 * best))
    assert bowl(best)(best_of(points)) <= 1.005 * bowl(best)(best)
    assert len(points) <= 7


def test_a_diverged_neighbour_bounds_the_search() -> None:
    points = drive(LineSearch(LR, n_trials=None, slots=1), bowl(2e-3, cliff=3e-3))
    assert max(values(points)) == 4e-3
    assert best_of(points) == 2e-3


def test_everything_diverged_leads_down_to_the_end_of_the_range() -> None:
    tried = values(drive(LineSearch(LR, n_trials=None, slots=1), lambda lr: math.inf))
    assert tried[-1] == 1e-5


def test_a_pruned_point_never_counts_as_the_best() -> None:
    """It is a wall: the search goes on between the neighbours of the best, never beyond."""
    points = [Point(0, {"lr": 1e-3}, 2.0, "ok"), Point(1, {"lr": 4e-3}, 1.0, "pruned"), Point(2, {"lr": 2.5e-4}, 2.1, "ok")]
    line, tried = LineSearch(LR, n_trials=None, slots=1), set[float]()
    while (proposed := line.propose(points)) is not None:
        rate = float(proposed["lr"])
        tried.add(rate)
        points.append(Point(len(points), proposed, bowl(1e-3)(rate), "ok"))
    assert tried and all(2.5e-4 < rate < 4e-3 for rate in tried)


@pytest.mark.parametrize("failed", [[0], [1], [2], [3], [0, 1], [1, 3]])
def test_the_search_goes_around_failed_points(failed: list[int]) -> None:
    points = drive(LineSearch(LR, n_trials=None, slots=1), bowl(2e-3), states=dict.fromkeys(failed, "failed"))
    alive = [point for point in points if point.state == "ok"]
    assert len(set(values(points))) == len(points)
    assert min(values(alive)) < best_of(points) < max(values(alive))
    assert bowl(2e-3)(best_of(points)) <= 1.005 * 2.0


def test_failed_points_do_not_use_up_the_trials_asked_for() -> None:
    points = drive(LineSearch(LR, n_trials=8, slots=1), bowl(2e-3), states={1: "failed", 4: "failed"})
    assert sum(point.state == "ok" for point in points) == 8


@pytest.mark.parametrize("n_trials", [1, 2, 8, 16, 25])
def test_an_explicit_number_of_trials_is_used_up(n_trials: int) -> None:
    points = drive(LineSearch(LR, n_trials=n_trials, slots=1), bowl(2e-3))
    assert len(points) == n_trials


def test_refinement_is_denser_around_the_best() -> None:
    tried = sorted(math.log2(value / 2e-3) for value in values(drive(LineSearch(LR, n_trials=12, slots=1), bowl(2e-3))))
    near = [right - left for left, right in pairwise(tried) if abs(left + right) < 2]
    assert max(near) <= 0.6 < max(right - left for left, right in pairwise(tried))


@given(seed=st.integers(0, 10**6), best=st.floats(1e-5, 3e-2), slots=st.integers(2, 5))
@settings(max_examples=40, deadline=None)
def test_the_finishing_order_changes_nothing_where_the_search_waits(seed: int, best: float, slots: int) -> None:
    first, other = (drive(LineSearch(LR, n_trials=None, slots=1), bowl(best), slots=slots, order=random.Random(seed + k)) for k in (0, 1))
    assert first == other


@given(best=st.floats(3e-5, 1e-2), cut=st.integers(0, 8))
def test_a_continued_search_proposes_what_the_uninterrupted_one_did(best: float, cut: int) -> None:
    points = drive(LineSearch(LR, n_trials=8, slots=1), bowl(best))
    assert LineSearch(LR, n_trials=8, slots=1).propose(points[:cut]) == (points[cut].params if cut < len(points) else None)


def test_a_waiting_search_is_silent_while_decisive_runs_are_out_and_a_hurried_one_is_not() -> None:
    points = [Point(0, {"lr": 1e-3}, 2.0, "ok"), Point(1, {"lr": 4e-3}, 1.99, "ok"), Point(2, {"lr": 2.5e-4}, None, "running")]
    assert LineSearch(LR, n_trials=None, slots=1).propose(points) is None
    hurried = LineSearch(LR, n_trials=None, slots=2).propose(points)
    assert hurried is not None and float(hurried["lr"]) > 4e-3


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8])
def test_every_slot_has_work_at_the_start(slots: int) -> None:
    line, points = LineSearch(LR, n_trials=None, slots=slots), list[Point]()
    for number in range(slots):
        params = line.propose(points)
        assert params is not None
        points.append(Point(number, params, None, "running"))


def test_slots_with_trials_to_do_never_idle() -> None:
    running = [Point(3, {"lr": 2e-3}, None, "running")]
    points = [Point(0, {"lr": 1e-3}, 2.0, "ok"), Point(1, {"lr": 4e-3}, 2.01, "ok"), Point(2, {"lr": 2.5e-4}, 2.1, "ok"), *running]
    assert LineSearch(LR, n_trials=12, slots=2).propose(points) is not None


AXES = [
    LR,
    Axis("lr", 1e-4, 1e-2, log=True),
    Axis("p", 0.0, 0.5, declared=0.1),
    Axis("t", 1000.0, 1010.0),
    Axis("n", 1, 100, integer=True, declared=7),
    Axis("n", 1, 17, integer=True),
    Axis("b", 8, 4096, log=True, integer=True, declared=64),
    Axis("b", 1, 10**6, integer=True),
]
STATES = st.sampled_from(["ok"] * 6 + ["diverged", "pruned", "failed"])


@given(axis=st.sampled_from(AXES), slots=st.integers(1, 6), n_trials=st.none() | st.integers(1, 20), data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_value_is_proposed_twice_or_outside_the_range(axis: Axis, slots: int, n_trials: int | None, data: st.DataObject) -> None:
    ends = dict(enumerate(data.draw(st.lists(STATES, max_size=12))))
    losses = random.Random(data.draw(st.integers(0, 10**6)))
    states = {number: state for number, state in ends.items() if state != "ok"}
    points = drive(
        LineSearch(axis, n_trials=n_trials, slots=slots), lambda _: 1 + losses.random(), slots=slots, states=states, order=losses
    )
    tried, (low, high) = values(points), axis.bounds
    assert all(low <= value <= high for value in tried)
    assert len(set(tried)) == len(tried)
    assert not axis.integer or all(isinstance(point.params[axis.key], int) for point in points)
    assert len(tried) <= (MOST if n_trials is None else n_trials + len(states))
    if axis.log and not axis.integer:
        assert all(right / left > 1.04 for left, right in pairwise(sorted(tried)))


# Several axes

PLANE = [LR, Axis("batch", 8, 256, log=True, integer=True, powers=True, declared=32), Axis("schedule", choices=("a", "b"), declared="b")]


def start_of(search: Search) -> list[Params]:
    points: list[Point] = []
    while params := search.propose(points):
        points.append(Point(len(points), params, 1.0, "ok"))
    return [point.params for point in points]


def test_the_declared_point_comes_first_and_after_the_start_the_sampler_decides() -> None:
    sampled = SampledSearch(PLANE, n_startup=6, seed=3)
    start = start_of(sampled)
    assert start[0] == {"lr": 1e-3, "batch": 32, "schedule": "b"}
    assert len(start) == 7


def test_an_axis_without_a_declared_value_starts_in_its_middle() -> None:
    first = SampledSearch([Axis("lr", 1e-4, 1e-2, log=True), Axis("p", 0.0, 0.5, declared=0.1)], n_startup=4, seed=0).propose([])
    assert first == {"lr": 1e-3, "p": 0.1}


def test_quasi_random_points_step_by_powers_of_the_plastic_number() -> None:
    golden = 1.324717957244746  # g^3 = g + 1
    start = start_of(SampledSearch([Axis("a", 0.0, 1.0), Axis("b", 0.0, 1.0)], n_startup=12, seed=0))[1:]
    for key, step in (("a", 1 / golden), ("b", 1 / golden**2)):
        moves = [(float(right[key]) - float(left[key])) % 1 for left, right in pairwise(start)]
        assert moves == pytest.approx([step] * 11, abs=2e-3)


@pytest.mark.parametrize("seed", range(5))
def test_quasi_random_points_leave_no_corner_empty(seed: int) -> None:
    start = start_of(SampledSearch([Axis("a", 0.0, 1.0), Axis("b", 0.0, 1.0)], n_startup=32, seed=seed))[1:]
    cells = {(int(4 * float(point["a"])), int(4 * float(point["b"]))) for point in start}
    assert len(cells) >= 15  # of 16; independent random points fill 14 on average


def test_the_seed_chooses_the_quasi_random_points() -> None:
    one, again, other = (start_of(SampledSearch(PLANE, n_startup=6, seed=seed)) for seed in (0, 0, 1))
    assert one == again != other


def test_more_points_begin_with_the_fewer() -> None:
    few, many = (start_of(SampledSearch(PLANE, n_startup=n, seed=5)) for n in (4, 8))
    assert many[: len(few)] == few


def test_points_tried_first_take_nothing_from_the_start() -> None:
    sampled = SampledSearch(PLANE, n_startup=4, seed=0)
    queued = Point(0, {"lr": 3e-4, "batch": 64, "schedule": "a"}, 2.0, "ok")
    assert sampled.propose([queued]) == sampled.propose([])


def test_a_start_that_lost_a_point_makes_it_up_without_repeating_another() -> None:
    sampled = SampledSearch(PLANE, n_startup=4, seed=0)
    start = start_of(sampled)
    left = [Point(number, params, 1.0, "ok") for number, params in enumerate(start) if number != 2]
    assert sampled.propose(left) == start[2]


@pytest.mark.parametrize(
    ("axes", "kind"),
    [
        ([Axis("a", choices=(1, 2)), Axis("b", choices=("x",))], GridSearch),
        ([Axis("batch", 8, 256, log=True, integer=True, powers=True)], GridSearch),
        ([Axis("n_layer", 1, 8, integer=True)], GridSearch),
        ([LR], LineSearch),
        ([Axis("steps", 1, 500, integer=True)], LineSearch),
        ([LR, Axis("a", choices=(1, 2))], SampledSearch),
        ([LR, Axis("p", 0.0, 0.5)], SampledSearch),
    ],
)
def test_the_axes_choose_the_search(axes: list[Axis], kind: type) -> None:
    assert isinstance(search_for(axes, n_trials=None, slots=2, seed=0, deterministic=False), kind)


def test_a_sampler_that_was_named_searches_one_range_too_and_soon() -> None:
    search = search_for([LR], n_trials=8, slots=2, seed=0, deterministic=False, sampler=True)
    assert isinstance(search, SampledSearch) and len(start_of(search)) == 3


@pytest.mark.parametrize(("n_trials", "startup"), [(None, 5), (8, 8), (12, 12), (40, 10)])
def test_a_few_trials_are_all_start_of_many_it_is_a_quarter(n_trials: int | None, startup: int) -> None:
    search = search_for([LR, Axis("p", 0.0, 0.5)], n_trials=n_trials, slots=1, seed=0, deterministic=True)
    assert len(start_of(search)) == startup + 1


@pytest.mark.parametrize(
    ("axis", "exact", "short"),
    [
        (LR, 0.00123456, 0.00123),
        (Axis("p", 0.0, 0.5), 0.0137251, 0.0137),
        (Axis("p", 0.0, 0.5), 0.0, 0.0),
        (Axis("t", 1000.0, 1010.0), 1003.4567, 1003.46),
        (Axis("n", 1, 10**6, integer=True), 152.4, 152),
        (Axis("a", choices=("x",)), "x", "x"),
    ],
)
def test_values_are_short_for_people_and_fine_enough_for_the_range(axis: Axis, exact: float | str, short: float | str) -> None:
    assert three_digits(axis, exact) == short


# Loss over learning rate as measured (docs/benchmarks.md): a slope that bends, a narrow bottom, a cliff.
MEASURED = [
    *((1e-4, 4.327), (1.46e-4, 4.014), (2.14e-4, 3.816), (3.13e-4, 3.708), (4.58e-4, 3.65), (6.69e-4, 3.616), (9.79e-4, 3.592)),
    *(
        (1.43e-3, 3.56),
        (2.09e-3, 3.481),
        (3.06e-3, 3.33),
        (4.48e-3, 3.301),
        (6.55e-3, 3.655),
        (9.59e-3, 3.654),
        (1.4e-2, 3.671),
        (3e-2, 3.753),
    ),
]


@pytest.mark.parametrize("declared", [5e-4, 1e-3, 2e-3, 4e-3, 8e-3])
def test_a_narrow_bottom_beside_a_cliff_is_found(declared: float) -> None:
    def measured(rate: float) -> float:
        (x, y), (right, above) = next(pair for pair in itertools.pairwise(MEASURED) if rate <= pair[1][0])
        return y + (above - y) * math.log(rate / x) / math.log(right / x)

    points = drive(LineSearch(Axis("lr", 1e-4, 3e-2, log=True, declared=declared), n_trials=None, slots=1), measured)
    assert len(points) <= 8 and min(point.value for point in points if point.value) < 1.01 * 3.301


# Bits per byte over learning rates of short runs with a warm-up of 1 % or of 40 steps: the best stands beside a cliff.
CLIFFS = {
    "500 steps, 1 %": [(1e-3, 3.224), (2e-3, 2.995), (2.83e-3, 2.928), (4e-3, 3.466), (8e-3, 3.583)],
    "500 steps, 40": [(4e-3, 2.800), (8e-3, 2.729), (1.6e-2, 3.634)],
    "250 steps, 1 %": [(1e-3, 3.491), (2e-3, 3.425), (4e-3, 3.618), (8e-3, 3.836)],
    "250 steps, 40": [(2e-3, 3.349), (4e-3, 3.212), (8e-3, 3.185), (1.6e-2, 3.700)],
    "1,000 steps, 1 %": [(1e-3, 2.766), (2e-3, 2.607), (4e-3, 2.996), (8e-3, 3.330)],
    "1,000 steps, 40": [(2e-3, 2.569), (4e-3, 2.459), (8e-3, 2.397), (1.6e-2, 3.515)],
}


def between(points: list[tuple[float, float]], rate: float) -> float:
    """Straight lines through the points in log rate; the plateau goes on to the right, the slope to the left."""
    x, y = [math.log2(rate / 1e-3) for rate, _ in points], [loss for _, loss in points]
    at = math.log2(rate / 1e-3)
    if at >= x[-1]:
        return y[-1] + 0.05 * (at - x[-1])
    i = max(0, sum(place <= at for place in x) - 1)
    return y[i] + (y[i + 1] - y[i]) * (at - x[i]) / (x[i + 1] - x[i])


@pytest.mark.parametrize("name", CLIFFS)
@pytest.mark.parametrize("off", [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8])
def test_the_best_beside_a_cliff_is_found_from_starts_that_are_far_off(name: str, off: float) -> None:
    best, lowest = min(CLIFFS[name], key=lambda point: point[1])
    declared = float(f"{best * off:.3g}")
    points = drive(LineSearch(replace(LR, high=0.3, declared=declared), n_trials=None, slots=1), lambda rate: between(CLIFFS[name], rate))
    assert len(points) <= 8
    assert min(point.value for point in points if point.value) <= 1.01 * lowest


def test_a_start_on_the_plateau_above_a_cliff_comes_down_from_it() -> None:
    """Losses measured with one seed: the plateau is flat, and its own lowest point is no minimum."""
    plateau = [(4e-3, 3.079), (5.66e-3, 3.024), (8e-3, 3.713), (1.6e-2, 3.600), (3.2e-2, 3.706)]
    axis = replace(LR, high=0.3, declared=8e-3)
    points = drive(LineSearch(axis, n_trials=None, slots=1), lambda rate: between(plateau, rate))
    assert len(points) <= 8 and min(point.value for point in points if point.value) <= 1.01 * 3.024


def test_a_plateau_whose_losses_differ_by_percents_is_left_downwards_too() -> None:
    """Bytes, 125 steps, one seed: the best rate of those on the plateau is 4 % better than the start, and 13 % worse than the best of all."""
    measured = [(1e-3, 3.859), (2e-3, 3.670), (4e-3, 3.775), (8e-3, 4.330), (1.6e-2, 4.163), (3.2e-2, 4.148), (6.4e-2, 4.27), (0.128, 4.4)]
    axis = replace(LR, high=0.5, declared=8e-3)
    points = drive(LineSearch(axis, n_trials=None, slots=1), lambda rate: between(measured, rate))
    assert len(points) <= 8 and min(point.value for point in points if point.value) <= 1.01 * 3.670


def test_below_the_best_a_gap_is_bounded_by_its_chord_however_steep_the_cliff_is() -> None:
    """2.1 - 0.1 x - 0.8 x (1 - x) is lowest at x = 9/16."""
    assert lower_bound([(-1, 2.1), (0, 2.0), (1, math.inf)], 0) == pytest.approx(2.1 - 0.9 * 0.5625 + 0.8 * 0.5625**2)


@pytest.mark.parametrize("cliff", [[(1, math.inf)], [(1, 2.3)], [(1, 2.3), (2, 2.35)], [(1, 2.05), (2, 3.0)]])
def test_before_a_cliff_the_slope_on_this_side_bounds_a_gap(cliff: list[tuple[float, float]]) -> None:
    assert lower_bound([(-1, 2.1), (0, 2.0), *cliff], 1) == pytest.approx(1.9)


def test_a_bowl_lies_above_the_lines_of_both_sides() -> None:
    """2 - 0.1 x and 2.01 - 0.19 (1 - x) cross at x = 0.62."""
    assert lower_bound([(-1, 2.1), (0, 2.0), (1, 2.01), (2, 2.2)], 1) == pytest.approx(2 - 0.1 * 0.18 / 0.29, abs=0.002)


@pytest.mark.parametrize("start", [-2.0, -1.0, 0.0, 1.0, 2.0])
def test_a_round_bowl_of_noise_free_losses_takes_six_runs_at_most(start: float) -> None:
    points = drive(LineSearch(replace(LR, declared=1e-3 * 2**start), n_trials=None, slots=1), bowl(1e-3))
    assert len(points) <= 6


def test_the_best_and_its_better_neighbour_get_a_second_seed() -> None:
    first = [(1.0, 2.2), (2.0, 2.0), (3.0, 2.1), (9.0, 2.05)]
    assert second_seeds(first, {}) == [2.0, 3.0]
    assert second_seeds(first, {2.0: 2.02, 3.0: 2.08}) == []
    assert second_seeds(first[1:2], {}) == [2.0] and second_seeds([], {}) == []


@pytest.mark.parametrize("again", [math.inf, 2.4])
def test_a_best_that_stands_on_a_cliff_with_the_second_seed_makes_room_for_others(again: float) -> None:
    first = [(1.0, 2.2), (2.0, 2.1), (3.0, 2.0), (4.0, 3.0)]
    assert second_seeds(first, {3.0: again, 2.0: 2.1}) == [1.0]
    assert second_seeds(first, {3.0: again, 2.0: again, 1.0: again}) == [4.0]
    assert second_seeds(first, dict.fromkeys((5.0, 6.0, 7.0, 8.0), 2.0)) == []  # four in all


@pytest.mark.parametrize(("declared", "first"), [(12, 16), (11, 8), (32, 32), (500, 32)])
def test_of_powers_of_two_the_nearest_to_the_declared_value_comes_first(declared: int, first: int) -> None:
    axes = [Axis("batch", 8, 64, log=True, integer=True, powers=True, declared=declared), Axis("p", 0.0, 1.0, declared=0.25)]
    search = search_for(axes, n_trials=None, slots=1, seed=0, deterministic=False)
    assert search.propose([]) == {"batch": first, "p": 0.25}


def test_a_long_range_is_begun_around_its_declared_value() -> None:
    axes = [Axis("lr", 1e-6, 1.0, log=True, declared=2e-3), Axis("p", 0.0, 0.5)]
    points = start_of(search_for(axes, n_trials=12, slots=1, seed=3, deterministic=False))
    rates = [float(point["lr"]) for point in points]
    assert rates[0] == 2e-3 and all(2e-3 / 8 * 0.99 <= rate <= 2e-3 * 8 * 1.01 for rate in rates)
    assert max(float(point["p"]) for point in points) > 0.4


@pytest.mark.parametrize(("low", "high", "declared", "first"), [(8, 13, 12, 8), (9, 40, 10, 16), (8, 64, 12, 16), (8, 64, 32, 32)])
def test_a_search_over_powers_of_two_starts_inside_its_range(low: int, high: int, declared: int, first: int) -> None:
    batch = Axis("data.batch_size", low, high, log=True, integer=True, powers=True, declared=declared)
    assert starting_values([batch]) == {"data.batch_size": first}


@pytest.mark.parametrize(("low", "high"), [(8, 256), (1e-3, 2.0), (1e-3, 1e-2)])
def test_powers_of_two_are_stored_as_exponents_below_one_too(low: float, high: float) -> None:
    axis = Axis("x", low, high, log=True, integer=True, powers=True)
    assert [decode(axis, encode(axis, value)) for value in axis.finite or []] == axis.finite
    assert all(low <= float(value) <= high for value in axis.finite or [])


@pytest.mark.parametrize(("slots", "mostly", "most"), [(1, 6, 8), (3, 7, 10), (4, 7, 11), (8, 9, 15)])
def test_a_line_takes_no_more_points_than_it_says(slots: int, mostly: int, most: int) -> None:
    for best in (3e-5, 1e-3, 8e-3, 2.5e-2):
        line = LineSearch(Axis("lr", 1e-5, 3e-2, log=True, declared=8e-3), n_trials=None, slots=slots)
        assert line.expected() == (mostly, most)
        assert len(drive(line, bowl(best), slots=slots)) <= most


def test_a_linear_line_may_need_a_point_at_each_of_its_nine_places() -> None:
    assert LineSearch(Axis("p", 0.0, 0.5), n_trials=None, slots=1).expected() == (6, 9)


def test_a_gap_below_the_best_is_looked_into_once_no_cliff_is_near_above() -> None:
    """Twenty steps of a tiny network: steep on the left, where nothing was tried within a factor of 4, and smooth on the right."""
    tried = [(8e-3, 6.107), (3.2e-2, 4.866), (4.53e-2, 5.044), (6.4e-2, 5.609), (0.128, 6.184)]
    known = [(math.log2(rate) / 2, loss) for rate, loss in tried]
    assert lower_bound(known[:2] + known[3:], 0) > 0.98 * 4.866  # 6.4e-2 may stand on a cliff
    assert lower_bound(known, 0) < 0.98 * 4.866
