"""The published laws, at the values that were worked out when they were chosen, and where they stop being laws."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.estimate import laws

N, D, B = st.floats(1e4, 1e12), st.floats(1e4, 1e14), st.floats(1, 1e8)


@pytest.mark.parametrize(
    ("n", "d", "lr", "batch"),
    [
        (10.6e6, 1e7, 2.5e-3, 6e3),
        (10.6e6, 1e8, 4e-3, 21e3),  # the Step Law alone says 5e-3
        (31.5e6, 1e7, 1.1e-3, 6e3),
        (31.5e6, 1e8, 2.3e-3, 21e3),
        (85e6, 1e7, 5.6e-4, 6e3),
        (85e6, 1e8, 1.1e-3, 21e3),
        (85e6, 2.6e9, 3.1e-3, 138e3),
    ],
)
def test_advice_at_the_laws_own_batch(n: float, d: float, lr: float, batch: float) -> None:
    recommended = laws.recommended_lr(n, d, laws.step_law_batch(d))
    assert recommended.lr == pytest.approx(lr, rel=0.05)
    assert recommended.batch == pytest.approx(batch, rel=0.05)


@pytest.mark.parametrize(("steps", "lr"), [(200, 4.4e-3), (800, 6.7e-3), (3200, 1.03e-2)])
def test_the_step_law_without_its_cap_at_nanogpts_smallest_shape(steps: int, lr: float) -> None:
    assert laws.step_law_lr(786_432, steps * 12 * 64) == pytest.approx(lr, rel=0.03)


def test_the_laws_hold_for_adam_and_adamw_wherever_they_come_from() -> None:
    targets = ("gptshake.optim.adamw.adamw", "torch.optim.AdamW", "mine.Adam", "gptshake.optim.sgd.sgd", "lion.Lion", "torch.optim.Adamax")
    assert [laws.hold_for(target) for target in targets] == [True, True, True, False, False, False]


def test_deepseeks_own_runs() -> None:
    """Bi et al. 2024: 7B on 2T tokens (C = 8.4e22 to 1e23 by their count) used 4.2e-4 and 9.4M tokens (2304 x 4096)."""
    assert laws.deepseek(8.9e22) == (pytest.approx(4.2e-4, rel=0.03), pytest.approx(9.4e6, rel=0.05))


def test_kaplan_says_a_low_rate_for_every_size() -> None:
    assert laws.kaplan_lr(1.5e9) == pytest.approx(2.9e-4, rel=0.01)
    assert laws.kaplan_lr(10.6e6) < laws.step_law_lr(10.6e6, 2e8)


@given(N, D, B)
def test_advice_grows_with_the_batch_up_to_the_laws_and_no_further(n: float, d: float, batch: float) -> None:
    law = laws.step_law_batch(d)
    at, above, below = (laws.recommended_lr(n, d, tokens).lr for tokens in (law, 4 * law, law / 4))
    assert above == at and below == pytest.approx(at / 2)
    recommended = laws.recommended_lr(n, d, batch)
    assert recommended.low < recommended.lr < recommended.high == 2 * recommended.lr and recommended.lr <= at


def test_the_range_is_wide_where_the_law_is_unsure() -> None:
    def ratio(n: float, d: float, batch: float, **more: bool) -> float:
        recommended = laws.recommended_lr(n, d, batch, **more)
        return round(recommended.lr / recommended.low)

    assert ratio(85e6, 2.6e9, 138e3) == 2
    assert ratio(10e6, 2.6e9, 138e3) == 8
    assert ratio(85e6, 2.6e9, 138e3, characters=True) == 8
    assert ratio(85e6, 2.6e9, 2.6e9 / 200) == 8


def test_the_sentence_says_when_a_law_is_stretched_and_how() -> None:
    assert laws.law_sentence(85e6, 2.6e9, 138e3) == "lr 3.1e-3, batch 140k tokens"
    assert laws.law_sentence(31.5e6, 2.6e9, 138e3).endswith("(fitted on 59M+ parameters: extrapolated)")
    assert laws.law_sentence(85e6, 1e8, 21e3) == "lr 1.1e-3, batch 21k tokens (fitted on 2B+ tokens: extrapolated)"
    assert laws.law_sentence(85e6, 1e8, 21e3, characters=True).endswith("(fitted on 2B+ tokens, not on characters: extrapolated)")
    assert laws.law_sentence(85e6, 2.6e9, 138e3, characters=True).endswith("(not fitted on characters: extrapolated)")
    assert "up to 1.07B parameters and up to 100B tokens" in laws.law_sentence(7e9, 2e12, 4e6)
    assert "59M+ parameters and 2B+ tokens" in laws.law_sentence(1e6, 1e6, 1e3)


def test_weight_decay_by_timescale_is_near_what_large_runs_used() -> None:
    """GPT-3 small on 300B tokens at half a million a step and 6e-4 used 0.1; a tenth of the batch wants a tenth of the decay."""
    wd = laws.timescale_weight_decay(85e6, 300e9, 524288, 6e-4)
    assert 0.05 < wd < 0.5
    assert laws.timescale_weight_decay(85e6, 300e9, 52428.8, 6e-4) == pytest.approx(wd / 10)
    assert laws.timescale_weight_decay(85e6, 300e9, 524288, 1.2e-3) == pytest.approx(wd / 2)


def test_beta2_of_gpt3s_batch_is_gpt3s_and_a_small_batch_wants_a_long_memory() -> None:
    assert laws.half_life_beta2(524288, 300e9) == pytest.approx(0.95, abs=2e-3)
    assert laws.half_life_beta2(32768, 300e9) == pytest.approx(0.9968, abs=1e-4)
    assert laws.half_life_beta2(1e6, 1e6) == 0.9 and laws.half_life_beta2(64, 300e9) == 0.9999


@given(B, D)
def test_beta2_stays_a_beta(batch: float, d: float) -> None:
    assert 0.9 <= laws.half_life_beta2(batch, d) <= 0.9999


@pytest.mark.parametrize("n", [100.0, 2.7e9, 13e9, 175e9, 1e13])
def test_kaplan_says_no_rate_outside_of_its_range(n: float) -> None:
    assert laws.kaplan_sentence(n) == "Kaplan none (fitted on 768 to 1.5B parameters)"


@pytest.mark.parametrize("n", [768.0, 10.6e6, 1.5e9])
def test_kaplan_says_a_rate_inside(n: float) -> None:
    assert re.fullmatch(r"Kaplan lr [\d.]+e-[34]", laws.kaplan_sentence(n))


@pytest.mark.parametrize(("flops", "stretched"), [(1e14, True), (1e17, False), (2e19, False), (3e23, True)])
def test_deepseek_says_where_it_was_fitted(flops: float, stretched: bool) -> None:
    assert ("fitted on 1e17 to 2e19 FLOPs: extrapolated" in laws.deepseek_sentence(flops)) is stretched


@given(st.floats(3, 15), st.floats(3, 16), st.floats(2, 9))
def test_every_law_is_positive_or_silent(n: float, d: float, batch: float) -> None:
    recommended = laws.recommended_lr(10**n, 10**d, 10**batch)
    assert 0 < recommended.low < recommended.lr < recommended.high and recommended.batch > 0
    words = " ".join([laws.law_sentence(10**n, 10**d, 10**batch), laws.kaplan_sentence(10**n), laws.deepseek_sentence(6 * 10 ** (n + d))])
    assert not re.search(r"(lr|batch) -|nan|inf", words)
