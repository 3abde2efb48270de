"""Rate and batch together on surfaces in closed form: few runs to within 1 % of the best, never beyond a wall, a pure function of the points."""

import math
import random
from collections.abc import Callable

import pytest
import sweep_driver

from gptshake.sweep.search import SampledSearch, search_for
from gptshake.sweep.space import Axis, Params, Point
from gptshake.sweep.surrogate import DESIGN, MOST, Position, SurrogateSearch, Walls, fit, is_rate_and_batch, sizes

LR = Axis("optimizer.lr", 1e-5, 3e-2, log=True, declared=2e-3)
BATCH = Axis("data.batch_size", 1, 512, log=True, integer=True, powers=True, declared=32)
Loss = Callable[[float, int], float]


def surface(c: float, rate: float, batch: int, cliff: float = math.inf, *, plateau: float = math.inf) -> Loss:
    """The best is 2.5 at ``batch``; ``rate`` is the best one at batch 32; runs diverge, or end on a plateau, ``cliff`` octaves above it."""

    def loss(lr: float, size: int) -> float:
        u = math.log2(lr / rate) - c * math.log2(size / 32)
        v = math.log2(size / batch)
        return 2.5 * (1 + 0.01 * u * u * (1.6 if u > 0 else 1) + 0.004 * v * v + (plateau if u > cliff else 0))

    return loss


def plane(
    n_trials: int | None = None, slots: int = 1, *, deterministic: bool = False, lr: Axis = LR, batch: Axis = BATCH
) -> SurrogateSearch:
    return SurrogateSearch(lr, batch, n_trials=n_trials, slots=slots, deterministic=deterministic)


def at(point: Point) -> tuple[float, int]:
    return float(point.params["optimizer.lr"]), int(point.params["data.batch_size"])


def drive(
    search: SurrogateSearch, loss: Loss, *, slots: int = 1, seed: int = 0, noise: float = 0.003, failed: frozenset[int] = frozenset()
) -> list[Point]:
    """Run a search to its end; which of the running trials ends first is drawn."""
    noises = [random.Random(number).gauss(0, noise) for number in range(60)]

    def measured(params: Params, number: int) -> float:
        return loss(float(params["optimizer.lr"]), int(params["data.batch_size"])) * (1 + noises[number])

    return sweep_driver.drive(search, measured, slots=slots, states=dict.fromkeys(failed, "failed"), order=random.Random(seed))


def above(points: list[Point], loss: Loss) -> float:
    """How far the true loss at the answer lies above the best, as a share of it."""
    best = min((point for point in points if point.value is not None), key=lambda point: point.value or 0.0)
    grid = min(loss(2e-3 * 2 ** (n / 8), 2**k) for n in range(-60, 32) for k in range(10))
    return loss(*at(best)) / grid - 1


SURFACES = {
    "round": surface(0.5, 2e-3, 32),
    "c is 0": surface(0.0, 3e-3, 8),
    "c is 1": surface(1.0, 1.2e-3, 8),
    "best is the smallest batch": surface(0.5, 3e-3, 1),
    "larger batch": surface(0.5, 3e-3, 128),
    "cliff": surface(0.5, 2.83e-3, 8, 0.5, plateau=0.2),
    "wall": surface(0.5, 2.83e-3, 8, 0.5),
    "wall, c is 0": surface(0.0, 2e-3, 16, 0.9),
    "rate too large": surface(0.5, 5e-4, 16, 1.0),
    "rate too small": surface(0.5, 8e-3, 16, 1.0),
}


@pytest.mark.parametrize("kind", SURFACES)
def test_ten_runs_come_within_one_percent_of_the_best(kind: str) -> None:
    loss = SURFACES[kind]
    points = drive(plane(), loss)
    assert above(points[:10], loss) <= 0.01
    assert len(points) <= MOST


@pytest.mark.parametrize("kind", SURFACES)
def test_no_trial_is_further_than_a_factor_of_eight_from_the_best_rate_of_its_batch(kind: str) -> None:
    loss = SURFACES[kind]
    for lr, size in map(at, drive(plane(), loss)):
        best = min((2e-3 * 2 ** (n / 8) for n in range(-60, 32)), key=lambda rate: loss(rate, size))
        assert max(lr / best, best / lr) <= 8


@pytest.mark.parametrize("kind", ["wall", "wall, c is 0", "rate too large"])
def test_nothing_is_proposed_at_or_above_a_rate_that_diverged_with_that_batch_or_a_larger_one(kind: str) -> None:
    points = drive(plane(n_trials=16), SURFACES[kind])
    diverged = [(point.number, *at(point)) for point in points if point.state == "diverged"]
    assert diverged
    for number, rate, size in diverged:
        assert all(lr < rate for later, (lr, batch) in enumerate(map(at, points)) if later > number and batch <= size)


def test_the_declared_point_comes_first_and_exactly_then_a_larger_rate_and_a_smaller_batch() -> None:
    points = drive(plane(lr=Axis("optimizer.lr", 1e-5, 3e-2, log=True, declared=1.2345e-3)), SURFACES["round"])
    assert [at(point) for point in points[:3]] == [(1.2345e-3, 32), (2.47e-3, 32), (8.73e-4, 16)]


def test_at_the_smallest_batch_the_design_goes_to_a_larger_one() -> None:
    batch = Axis("data.batch_size", 32, 512, log=True, integer=True, powers=True, declared=32)
    assert [size for _, size in map(at, drive(plane(batch=batch), SURFACES["round"])[:3])] == [32, 32, 64]


def test_everything_diverged_leads_down_to_the_end_of_the_range() -> None:
    rates = [lr for lr, _ in map(at, drive(plane(), lambda lr, size: math.inf))]
    assert rates == sorted(rates, reverse=True) and rates[-1] == 1e-5


@pytest.mark.parametrize("cut", range(0, 10, 3))
def test_a_continued_search_proposes_what_the_uninterrupted_one_did(cut: int) -> None:
    points = drive(plane(n_trials=10), SURFACES["cliff"])
    assert plane(n_trials=10).propose(points[:cut]) == points[cut].params


@pytest.mark.parametrize("slots", [2, 4])
def test_the_finishing_order_changes_nothing_where_proposals_are_deterministic(slots: int) -> None:
    first, other = (drive(plane(slots=slots, deterministic=True), SURFACES["wall"], slots=slots, seed=seed) for seed in (0, 1))
    assert first == other


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
def test_every_slot_has_work_at_the_start_and_no_point_is_tried_twice(slots: int) -> None:
    search, points = plane(slots=slots), list[Point]()
    for number in range(slots):
        params = search.propose(points)
        assert params is not None
        points.append(Point(number, params, None, "running"))
    ended = [at(point) for point in drive(search, SURFACES["c is 0"], slots=slots)]
    assert len(set(ended)) == len(ended)


@pytest.mark.parametrize("slots", [2, 4, 8])
def test_after_the_first_points_at_most_half_of_many_slots_run_ahead_of_the_results(slots: int) -> None:
    search, loss, points = plane(slots=slots), SURFACES["best is the smallest batch"], list[Point]()
    for number in range(max(3, slots)):
        params = search.propose(points)
        assert params is not None
        points.append(Point(number, params, loss(*at(Point(number, params, None, "running"))), "ok"))
    while (params := search.propose(points)) is not None:
        points.append(Point(len(points), params, None, "running"))
    assert sum(point.state == "running" for point in points) == max(2, slots // 2)


@pytest.mark.parametrize("off", [1 / 4, 4])
def test_no_first_point_is_further_than_a_factor_of_eight_from_the_best_rate_where_the_declared_one_is_off_by_four(off: float) -> None:
    for x, step in DESIGN[:4]:
        for c in (0.0, 0.5, 1.0):
            assert abs(x - c * step - math.log2(off)) <= 3


def test_failed_points_are_gone_around_and_use_up_no_trial() -> None:
    points = drive(plane(n_trials=9), SURFACES["round"], failed=frozenset({0, 2, 5}))
    assert sum(point.state == "ok" for point in points) == 9 and len(set(map(at, points))) == 12
    assert above(points, SURFACES["round"]) <= 0.01


@pytest.mark.parametrize("n_trials", [1, 3, 25])
def test_an_explicit_number_of_trials_is_used_up(n_trials: int) -> None:
    assert len(drive(plane(n_trials=n_trials), SURFACES["cliff"])) == n_trials


def test_a_loss_to_maximize_comes_turned_around_and_is_searched_alike() -> None:
    """The controller gives the search values with the sign turned, so all are below 0."""
    loss = SURFACES["round"]
    points = drive(plane(), lambda lr, size: -5 + loss(lr, size), noise=0.0)
    assert above(points, loss) <= 0.01


# The surface


@pytest.mark.parametrize("c", [0.2, 0.8])
def test_c_is_fitted_to_points_that_tell_it(c: float) -> None:
    places = [(x / 2, float(y)) for x in range(-4, 5) for y in (-2, -1, 0, 1, 2)]
    found = fit([((x, y), 2.0 * (1 + 0.01 * (x - c * y) ** 2 + 0.004 * y * y)) for x, y in places])
    assert found.c == pytest.approx(c, abs=0.05)


def test_one_point_leaves_c_at_one_half_and_the_bowl_around_it() -> None:
    found = fit([((0.0, 0.0), 2.0)])
    mean, sd = found([(0.0, 0.0), (1.0, 0.0), (-1.0, 0.0)])
    assert found.c == pytest.approx(0.5)
    assert mean.tolist() == pytest.approx([0.0, 0.008, 0.008], abs=1e-3) and sd[0] < sd[1]


def test_a_wall_holds_for_smaller_batches_and_moves_with_the_ridge_for_larger_ones() -> None:
    ended: list[tuple[Position, float]] = [((0.0, 0.0), 2.0), ((2.0, 0.0), math.inf)]
    walls = Walls(ended)
    assert [walls.allow((x, 0.0), 0.5) for x in (0.9, 1.1, 2.0)] == [True, False, False]  # half of the way
    assert not walls.allow((2.0, -2.0), 0.5)
    assert walls.allow((1.9, 2.0), 0.5) and not walls.allow((2.1, 2.0), 0.5)


# The axes


def test_batches_are_powers_of_two_or_the_declared_one_times_powers_of_two_and_the_ends() -> None:
    assert sizes(Axis("data.batch_size", 3, 40, log=True, integer=True, powers=True)) == [4, 8, 16, 32]
    assert sizes(Axis("data.batch_tokens", 1000, 20000, log=True, integer=True, declared=3072)) == [1000, 1536, 3072, 6144, 12288, 20000]
    assert sizes(Axis("data.batch_size", 10, 12, integer=True, declared=11)) == [11]


WIDE = Axis("data.batch_size", 8, 256, integer=True, declared=32)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ([LR, BATCH], True),
        ([BATCH, LR], True),
        ([LR, WIDE], True),
        ([LR, Axis("+data.batch_tokens", 1024, 65536, log=True, integer=True, powers=True)], True),
        ([LR, Axis("data.batch_size", choices=(8, 16))], False),
        ([Axis("optimizer.lr", 1e-4, 1e-2), BATCH], False),
        ([Axis("optimizer.lr", choices=(1e-3, 2e-3)), BATCH], False),
        ([LR, Axis("model.dropout", 0.0, 0.3)], False),
        ([LR, BATCH, Axis("model.dropout", 0.0, 0.3)], False),
        ([BATCH, WIDE], False),
    ],
)
def test_one_rate_and_one_batch_are_searched_together_unless_a_sampler_is_named(axes: list[Axis], expected: bool) -> None:
    assert is_rate_and_batch(axes) is expected
    search = search_for(axes, n_trials=None, slots=1, seed=0, deterministic=False)
    assert isinstance(search, SurrogateSearch) is expected
    named = search_for(axes, n_trials=None, slots=1, seed=0, deterministic=False, sampler=True)
    assert isinstance(named, SampledSearch) or not any(axis.numeric for axis in axes)
