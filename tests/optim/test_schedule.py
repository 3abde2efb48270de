"""Schedules against the papers' numbers, torch's own one-cycle, and the properties that every schedule has."""

from collections.abc import Callable
from functools import partial
from math import cos, pi

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import ConfigError
from gptshake.optim.schedule import (
    Factors,
    Schedule,
    TokenCount,
    auto_warmup,
    constant,
    cosine,
    gpt3,
    linear,
    one_cycle,
    planned_warmup,
    warmup_steps,
    warmup_tokens,
    wsd,
)

PAPER = 300_000_000_000  # tokens of every GPT-3 training
ALL: dict[str, Schedule] = {
    "gpt3": gpt3,
    "cosine": cosine,
    "constant": constant,
    "one_cycle": one_cycle,
    "linear": linear,
    "wsd": partial(wsd, shape="linear"),
    "wsd sqrt": wsd,
}

every_schedule = pytest.mark.parametrize("schedule", ALL.values(), ids=ALL.keys())


@pytest.mark.parametrize(
    ("tokens", "factor"),
    [
        (3_750_000, 0.01),
        (187_500_000, 0.5),
        (375_000_000, 1.0),
        ((375_000_000 + 260_000_000_000) // 2, 0.55),
        (260_000_000_000, 0.1),
        (280_000_000_000, 0.1),
        (PAPER, 0.1),
    ],
)
def test_gpt3_is_the_papers_schedule(tokens: int, factor: float) -> None:
    assert gpt3(tokens, PAPER).lr == pytest.approx(factor, rel=1e-9)
    assert gpt3(tokens, PAPER, warmup=375e6, decay=260e9).lr == pytest.approx(factor, rel=1e-9)


def test_gpt3_keeps_its_shape_in_a_short_run() -> None:
    total = 1_000_000
    assert gpt3(5_000, total).lr == pytest.approx(0.5)  # warm-up is 1 %
    assert gpt3(10_000, total).lr == pytest.approx(1.0)
    assert gpt3(866_667, total).lr == pytest.approx(0.1)
    assert gpt3(total, total) == Factors(pytest.approx(0.1), None)


def test_cosine_is_its_formula() -> None:
    for tokens in range(1, 1001):
        expected = tokens / 100 if tokens < 100 else 0.2 + 0.8 * (1 + cos(pi * (tokens - 100) / 900)) / 2
        assert cosine(tokens, 1000, warmup=0.1, floor=0.2).lr == pytest.approx(expected, rel=1e-12)


def test_constant_rises_and_stays_even_beyond_the_end() -> None:
    assert [constant(tokens, 1000, warmup=100).lr for tokens in (1, 50, 100, 1000, 5000)] == [0.01, 0.5, 1.0, 1.0, 1.0]


def test_linear_goes_straight_to_zero() -> None:
    assert [linear(tokens, 1000, warmup=200).lr for tokens in (100, 200, 600, 1000, 2000)] == [0.5, 1.0, 0.5, 0.0, 0.0]
    assert linear(600, 1000, warmup=200, floor=0.1).lr == pytest.approx(0.55)


@pytest.mark.parametrize(("shape", "halfway"), [("linear", 0.5), ("sqrt", 1 - 0.5**0.5)])
def test_wsd_stays_and_then_cools_down(shape: str, halfway: float) -> None:
    """MiniCPM decays over the last tenth; Haegele et al. 2024, equation of 1-sqrt: 1 - sqrt((n - (N - D)) / D)."""
    schedule = partial(wsd, warmup=0.01, cooldown=0.1, shape=shape)
    assert [schedule(tokens, 1000).lr for tokens in (5, 10, 500, 900, 1000, 3000)] == [0.5, 1.0, 1.0, 1.0, 0.0, 0.0]
    assert schedule(950, 1000).lr == pytest.approx(halfway)
    assert schedule(950, 1000, floor=0.2).lr == pytest.approx(0.2 + 0.8 * halfway)


def test_wsd_before_its_cooldown_does_not_know_how_long_the_run_is() -> None:
    for tokens in range(50, 600, 50):
        assert wsd(tokens, 1000, warmup=50) == wsd(tokens, 7000, warmup=50) == constant(tokens, 1000, warmup=50)


@pytest.mark.parametrize("warmup", [0, 0.0])
def test_without_warm_up_the_first_step_has_the_peak(warmup: float) -> None:
    assert constant(1, 1000, warmup=warmup).lr == 1.0
    assert gpt3(1, 1000, warmup=warmup).lr == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(("pct_start", "n_steps"), [(0.3, 10), (0.3, 1000), (0.25, 123), (0.9, 50)])
def test_one_cycle_is_torchs_on_the_same_grid(pct_start: float, n_steps: int) -> None:
    """torch's grid begins with the rate before the first step and puts the peak at pct x steps - 1; ours counts tokens from 0."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.9, 0.95))
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=3e-3, total_steps=n_steps + 1, pct_start=(pct_start * n_steps + 1) / (n_steps + 1)
    )
    for step in range(n_steps + 1):
        ours = one_cycle(step * 512, n_steps * 512, pct_start=pct_start)
        group = optimizer.param_groups[0]
        assert 3e-3 * ours.lr == pytest.approx(group["lr"], rel=1e-9)
        assert ours.beta1 == pytest.approx(group["betas"][0], rel=1e-9)
        if step < n_steps:
            optimizer.step()
            theirs.step()


def test_one_cycle_begins_peaks_and_ends_where_it_says() -> None:
    assert one_cycle(300, 1000) == Factors(pytest.approx(1.0), pytest.approx(0.85))
    assert one_cycle(1000, 1000) == Factors(pytest.approx(4e-6), pytest.approx(0.95))
    assert one_cycle(0, 1000) == Factors(pytest.approx(0.04), pytest.approx(0.95))


totals = st.integers(10_000, 10**12)
shares = st.floats(0, 1)


@every_schedule
@given(total=totals, share=shares)
def test_factors_are_between_0_and_the_peak(schedule: Schedule, total: int, share: float) -> None:
    factors = schedule(max(1, int(share * total)), total)
    assert 0 <= factors.lr <= 1
    assert factors.beta1 is None or 0.85 <= factors.beta1 <= 0.95


@every_schedule
@given(total=totals, first=shares, second=shares)
def test_the_rate_rises_once_and_never_again(schedule: Schedule, total: int, first: float, second: float) -> None:
    peak = max(range(0, 1001), key=lambda mille: schedule(max(1, total * mille // 1000), total).lr)
    early, late = sorted(max(1, int(share * total)) for share in (first, second))
    if late <= total * (peak - 1) // 1000:
        assert schedule(early, total).lr <= schedule(late, total).lr + 1e-12
    if early >= total * (peak + 1) // 1000:
        assert schedule(early, total).lr >= schedule(late, total).lr - 1e-12


@every_schedule
@given(total=st.integers(10_000, 10**9), share=shares, times=st.integers(2, 30))
def test_a_longer_run_has_the_same_shape(schedule: Schedule, total: int, share: float, times: int) -> None:
    tokens = max(1, int(share * total))
    assert schedule(tokens * times, total * times).lr == pytest.approx(schedule(tokens, total).lr, rel=1e-9)


@every_schedule
@given(total=totals, beyond=st.integers(0, 10**12))
def test_after_the_end_nothing_changes(schedule: Schedule, total: int, beyond: int) -> None:
    assert schedule(total + beyond, total) == schedule(total, total)


@pytest.mark.parametrize("schedule", [ALL[name] for name in ALL if name != "wsd sqrt"])  # a square root begins vertically
@given(total=st.integers(10**6, 37 * 10**9), share=shares)
def test_there_is_no_jump(schedule: Schedule, total: int, share: float) -> None:
    tokens = max(1, int(share * total))
    step = total // 10**6
    assert abs(schedule(tokens + step, total).lr - schedule(tokens, total).lr) < 2e-4  # the steepest is gpt3's warm-up over 1 %


def test_fractions_and_tokens_say_the_same() -> None:
    for tokens in range(1, 1001, 37):
        assert cosine(tokens, 1000, warmup=0.05).lr == pytest.approx(cosine(tokens, 1000, warmup=50).lr)
        assert gpt3(tokens, 1000, warmup=0.05, decay=0.5).lr == pytest.approx(gpt3(tokens, 1000, warmup="50", decay=500).lr)


@pytest.mark.parametrize(
    ("schedule", "word"),
    [
        (partial(gpt3, warmup="soon"), "warmup=soon"),
        (partial(gpt3, decay=-0.5), "decay=-0.5"),
        (partial(gpt3, floor=1.5), "floor=1.5"),
        (partial(gpt3, warmup=0.5, decay=0.3), "does not end before"),
        (partial(cosine, warmup=1001), "warmup=1001"),
        (partial(cosine, warmup=1000), "does not end before"),
        (partial(constant, warmup=float("nan")), "warmup=nan"),
        (partial(linear, floor=-0.1), "floor=-0.1"),
        (partial(wsd, shape="cubic"), "shape=cubic"),
        (partial(wsd, warmup=0.5, cooldown=0.6), "does not end before"),
        (partial(wsd, cooldown=2000), "cooldown=2000"),
        (partial(one_cycle, pct_start=0.0), "pct_start"),
        (partial(one_cycle, pct_start=1.0), "pct_start"),
        (partial(one_cycle, div_factor=0.5), "div_factor"),
        (partial(one_cycle, beta1_min=0.99), "beta1_min"),
    ],
)
def test_values_out_of_sense_are_refused(schedule: Callable[[int, int], Factors], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        schedule(10, 1000)


@pytest.mark.parametrize(
    ("schedule", "tokens", "steps"),
    [
        (partial(cosine, warmup=0.02), 20, 2),  # 2 % of 1,000 tokens, at 10 a step
        (partial(cosine, warmup=0.99), 990, 99),
        (partial(linear, warmup=1), 1, 0),  # from 1 on tokens; the first step has the peak
        (partial(constant, warmup=25), 25, 3),
        (gpt3, 10, 0),  # at most 1 %
        (one_cycle, None, 30),
        (lambda tokens, total: Factors(1.0), None, None),
        (lambda tokens, total, warmup=0.1: Factors(1.0), None, None),  # of a user's own, with a meaning of its own
    ],
)
def test_the_warm_up_in_tokens_and_in_steps(schedule: Schedule, tokens: float | None, steps: int | None) -> None:
    assert warmup_tokens(schedule, 1000) == tokens and warmup_steps(schedule, 1000, 10) == steps


def test_a_settled_warm_up_stays_whatever_the_length_of_the_run() -> None:
    for total in (100, 10_000):
        assert [constant(tokens, total, warmup=TokenCount(0.5)).lr for tokens in (1, 50)] == [1.0, 1.0]
        assert wsd(5, total, warmup=TokenCount(10.0)).lr == 0.5


@pytest.mark.parametrize(
    ("steps_of_run", "per_step", "beta2", "expected"),
    [
        (1_000, 2_048, 0.95, 160 * 2_048),  # four times 2 / (1 - beta2) steps
        (1_000, 32_768, 0.95, 160 * 32_768),  # steps of the run's own batch, whatever it is
        (5_000, 2_048, 0.99, 800 * 2_048),
        (50_000, 2_048, 0.999, 8_000 * 2_048),
        (500, 2_048, 0.95, 150 * 2_048),  # at most 30 % of the run
        (125, 2_048, 0.95, 37 * 2_048),  # whole steps
        (3, 2_048, 0.95, 0),
        (1_000, 2_048, None, 160 * 2_048),  # no beta2: as many as with 0.95
        (572_205, 524_288, 0.95, 375e6),  # GPT-3's 300e9 tokens
        (2_387, 524_288, 0.95, 375e6),  # 375e6 tokens are 716 steps, 30 % of the run, and fit
        (2_386, 524_288, 0.95, 160 * 524_288),  # now they do not
    ],
)
def test_the_automatic_warm_up(steps_of_run: int, per_step: int, beta2: float | None, expected: float) -> None:
    total = steps_of_run * per_step
    assert auto_warmup(total, per_step, beta2) == pytest.approx(expected, rel=1e-12)
    assert min(2 / (1 - (beta2 or 0.95)) * per_step, 0.3 * total - per_step) <= expected <= 0.3 * total
    for schedule in (gpt3, cosine, constant, linear, wsd):
        settled = planned_warmup(schedule, total, per_step, beta2)
        assert settled == pytest.approx(expected, rel=1e-12)
        assert partial(schedule, warmup=settled)(max(1, round(settled or 0)), total).lr == pytest.approx(1.0, abs=1e-3)


@given(total=st.integers(1, 10**13), per_step=st.integers(1, 10**7), beta2=st.none() | st.floats(0, 0.99999))
def test_the_automatic_warm_up_is_at_most_30_percent_and_ends_before_every_decay(total: int, per_step: int, beta2: float | None) -> None:
    assert 0 <= auto_warmup(total, per_step, beta2) <= 0.3 * total + 1e-6 * per_step
    for cooldown in (0.1, 0.4, 0.65, 0.95):
        schedule = partial(wsd, cooldown=cooldown)
        settled = planned_warmup(schedule, total, per_step, beta2)
        assert 0 <= partial(schedule, warmup=settled)(total, total).lr <= 1


def test_a_typed_warm_up_wins_and_a_schedule_without_one_or_of_a_users_own_is_left_alone() -> None:
    assert planned_warmup(partial(cosine, warmup=0.02), 1_000_000, 2_048, 0.95) == 20_000
    assert planned_warmup(partial(wsd, warmup=3e4), 1_000_000, 2_048, 0.95) == 30_000
    assert planned_warmup(one_cycle, 1_000_000, 2_048, 0.95) is None
    assert planned_warmup(lambda tokens, total, warmup="auto": Factors(1.0), 1_000_000, 2_048, 0.95) is None


@pytest.mark.parametrize("decay", [0.25, 2e5])
def test_the_automatic_warm_up_of_gpt3_ends_half_way_to_a_typed_decay(decay: float) -> None:
    """A fifth to a quarter of the run is less than the 30 % that its steps would take."""
    schedule = partial(gpt3, decay=decay)
    settled = planned_warmup(schedule, 1_000_000, 10_000, 0.95)
    assert settled == (decay if decay > 1 else 250_000) / 2 // 10_000 * 10_000
    assert partial(schedule, warmup=settled)(int(settled), 1_000_000).lr == 1.0
