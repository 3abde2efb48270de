"""The noise scale from norms: exact where gradients are known, honest where they are not, and a sentence for every case."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.estimate.noise_scale import LEAST, Estimate, Measurement, noise_scale_text, ratio_band, running_estimates


def exact(signal: float, noise: float, b: int = 2, batch: int = 8, step: int = 1) -> Measurement:
    """The norms that gradients of this signal and noise have on average."""
    return Measurement(step, 64 * step, b, batch, signal + noise / b, signal + noise / batch)


def drawn(n: int, signal: float, noise: float, b: int = 2, parts: int = 4, seed: int = 0, d: int = 50) -> list[Measurement]:
    """Measurements of real vectors: a fixed mean and Gaussian noise of known size."""
    draw = np.random.default_rng(seed)
    mean = np.full(d, math.sqrt(signal / d))
    found = []
    for step in range(1, n + 1):
        gradients = mean + draw.normal(0, math.sqrt(noise / d / b), (parts, d))
        found.append(Measurement(step, 64 * step, b, b * parts, float((gradients**2).sum(1).mean()), float((gradients.mean(0) ** 2).sum())))
    return found


@given(signal=st.floats(1e-3, 1e3), noise=st.floats(1e-3, 1e3), b=st.integers(1, 8), parts=st.integers(2, 9))
def test_signal_and_noise_are_what_they_are_made_of(signal: float, noise: float, b: int, parts: int) -> None:
    one = exact(signal, noise, b, b * parts)
    assert one.signal == pytest.approx(signal, rel=1e-6, abs=1e-9 * noise)
    assert one.noise == pytest.approx(noise, rel=1e-6, abs=1e-9 * signal * b * parts)


def test_the_golden_measurement() -> None:
    one = Measurement(240, 184_320, 3, 12, 7.7633333333, 2.6383333333)  # |G|^2 0.93 and S 20.5: nanoGPT, Shakespeare's characters
    assert (one.signal, one.noise) == (pytest.approx(0.93), pytest.approx(20.5))
    assert one.noise / one.signal == pytest.approx(22.04, abs=0.01)


def test_the_mean_and_its_error_are_those_of_plain_statistics_when_all_weigh_the_same() -> None:
    measured = drawn(40, 1.0, 20.0)
    last = running_estimates(measured, memory=math.inf)[-1]
    signals, noises = np.array([one.signal for one in measured]), np.array([one.noise for one in measured])
    assert last.signal == pytest.approx(signals.mean()) and last.noise == pytest.approx(noises.mean())
    assert last.signal_error == pytest.approx(signals.std(ddof=1) / math.sqrt(40))


def test_the_average_forgets_and_its_error_is_that_of_the_measurements_it_remembers() -> None:
    measured = [*drawn(500, 9.0, 20.0), *drawn(500, 1.0, 20.0, seed=1)]
    weights = np.cumprod([1.0, *([1 - 1 / 50] * 499)])[::-1]
    signals = np.array([one.signal for one in measured[:500]])
    at_500 = running_estimates(measured)[499]
    mean = (weights * signals).sum() / weights.sum()
    share = (weights**2).sum() / weights.sum() ** 2
    variance = (weights * (signals - mean) ** 2).sum() / weights.sum() / (1 - share)
    assert at_500.signal == pytest.approx(mean) and at_500.signal_error == pytest.approx(math.sqrt(variance * share))
    assert running_estimates(measured)[-1].signal == pytest.approx(1.0, abs=0.6)


@pytest.mark.parametrize("seed", range(3))
def test_the_band_holds_the_truth(seed: int) -> None:
    told = [
        one for run in range(60) if (one := running_estimates(drawn(60, 1.0, 20.0, seed=100 * seed + run), math.inf)[-1]).scale is not None
    ]
    inside = [one.low <= 20.0 <= one.high for one in told if one.low is not None and one.high is not None]
    assert len(inside) >= 55 and np.mean(inside) >= 0.88


def test_nothing_is_told_before_the_signal_is_two_errors_above_zero() -> None:
    estimates = running_estimates(drawn(300, 0.01, 50.0))
    for one in estimates:
        assert (one.scale is not None) == (one.signal > 2 * one.signal_error and one.noise > 0 and one.measurements >= LEAST)
    assert estimates[0].signal_error == math.inf and estimates[0].scale is None
    assert running_estimates(drawn(300, 0.0, 50.0))[-1].scale is None


def test_no_signal_is_seldom_taken_for_one() -> None:
    told = [running_estimates(drawn(50, 0.0, 20.0, seed=seed), math.inf)[-1].scale is not None for seed in range(200)]
    assert np.mean(told) < 0.06


@given(top=st.floats(0.1, 100), bottom=st.floats(0.1, 100), share=st.floats(0, 0.49), top_share=st.floats(0, 0.49))
def test_the_ratio_lies_in_its_band(top: float, bottom: float, share: float, top_share: float) -> None:
    band = ratio_band(top, bottom, (top * top_share) ** 2, 0.0, (bottom * share) ** 2)
    assert band is not None
    assert 0 <= band[0] <= top / bottom * (1 + 1e-9) and top / bottom <= band[1] * (1 + 1e-9)


def test_the_band_grows_without_bound_as_the_signal_nears_two_errors() -> None:
    highs = [ratio_band(20.0, 1.0, 0.0, 0.0, error**2) for error in (0.1, 0.4, 0.499, 0.4999999)]
    assert [round(band[1]) for band in highs[:2] if band] == [25, 100]
    assert highs[2] and highs[3] and highs[3][1] > 100 * highs[2][1] > 10_000
    assert ratio_band(20.0, 1.0, 0.0, 0.0, 0.26) is None and ratio_band(-1.0, 1.0, 0.0, 0.0, 0.0) is None


def told(scale: float, batch: int) -> str:
    known = Estimate(300, 300_000, 300, 1.0, 0.1, scale, 0.8 * scale, 1.3 * scale)
    return noise_scale_text([known], batch, 64)


def test_the_sentence_says_what_to_do() -> None:
    assert told(427, 128).startswith(
        "noise scale: 427 sequences = 27.3k tokens (342 to 555) after 300k tokens. Batch 128 (8.19k tokens) is 0.3 x critical"
    )
    assert "you may double it for nearly the same tokens (data.batch_size=256: 0.62 x the steps, at most 1.23 x the tokens)" in told(
        427, 128
    )
    assert "about right" in told(128, 128) and "lower bound" in told(128, 128)
    assert "data.batch_size=64 may reach the same loss in fewer tokens (down to 0.58 x)" in told(26, 128)


@given(scale=st.floats(1e-3, 1e9), batch=st.integers(2, 10**6))
def test_the_advice_never_contradicts_the_ratio(scale: float, batch: int) -> None:
    text = told(scale, batch)
    assert ("double" in text) == (batch / scale <= 0.5) and ("compare them at equal tokens" in text) == (batch / scale > 2)


def test_the_trend_is_told() -> None:
    early = Estimate(30, 10_000, 30, 1.0, 0.1, 20.0, 15.0, 30.0)
    late = Estimate(300, 100_000, 300, 0.1, 0.01, 20.0, 150.0, 260.0)
    assert ", grown from 20 at 10k. " in noise_scale_text([early, late], 32, 64)
    assert ", shrunk from 200 at 10k. " in noise_scale_text(
        [Estimate(30, 10_000, 30, 0.1, 0.01, 20.0, 1.0, 2.0), Estimate(300, 100_000, 300, 1.0, 0.1, 20.0, 1.0, 2.0)], 32, 64
    )


def test_what_cannot_be_told_says_how_long_it_would_take() -> None:
    unsure = Estimate(100, 100_000, 100, 0.5, 0.5, 20.0)
    assert re.search(
        r"cannot be estimated after 100 measurements, \|G\|\^2 is 0.5 ± 0.5; it would take about 2k at batch 32",
        noise_scale_text([unsure], 32, 64),
    )
    assert "about 40 at batch 32" in noise_scale_text([Estimate(10, 10_000, 10, 0.5, 0.5, 20.0)], 32, 64)
    assert "train longer" in noise_scale_text([Estimate(100, 100_000, 100, -0.5, 0.5, 20.0)], 32, 64)
    assert noise_scale_text([], 32, 64) == "noise scale: nothing was measured."


def test_what_can_no_longer_be_told_says_what_it_was() -> None:
    sure, lost = Estimate(30, 10_000, 30, 1.0, 0.1, 20.0, 15.0, 30.0), Estimate(300, 100_000, 300, 0.1, 0.1, 20.0)
    assert noise_scale_text([sure, lost], 32, 64).endswith(
        " It was 20 sequences (15 to 30) after 10k tokens, when it could last be estimated."
    )
