"""Hours from seconds, steps from hours, and what is said before a run begins."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import ConfigError
from gptshake.estimate.forecast import (
    GEMM_SHARE,
    PASS_OVERHEAD,
    STEP_OVERHEAD,
    Overhead,
    Speed,
    assumed_speed,
    check_capacity,
    interval_of,
    run_seconds,
    run_warnings,
    steps_within,
)
from gptshake.model.config import GPTConfig

SPEED = Speed(micro_batch=0.1, update=0.02, evaluation=0.03, sampled_token=0.001)
OVERHEAD = Overhead(interval=None, val_batches=10, test_batches=5, sampled_tokens=1200, checkpoint_bytes=25_000_000)
times = st.floats(1e-4, 10)


def test_the_parts_of_a_run_of_a_hundred_steps() -> None:
    parts = run_seconds(100, 4, SPEED, OVERHEAD)
    assert parts["steps"] == pytest.approx(100 * (4 * (0.1 + PASS_OVERHEAD) + 0.02 + STEP_OVERHEAD))
    assert parts["validations"] == pytest.approx(20 * 10 * 0.03) and parts["checkpoints"] == pytest.approx(20 * 0.1)
    assert parts["samples"] == pytest.approx(1.2) and parts["test"] == pytest.approx(0.15)


@pytest.mark.parametrize(("steps", "interval", "validations"), [(100, 30, 4), (90, 30, 3), (100, 1000, 1), (7, None, 7), (1000, None, 20)])
def test_the_last_step_is_always_validated(steps: int, interval: int | None, validations: int) -> None:
    overhead = Overhead(interval, val_batches=1, test_batches=0, sampled_tokens=0, checkpoint_bytes=0)
    assert run_seconds(steps, 1, SPEED, overhead)["validations"] == pytest.approx(validations * 0.03)
    assert interval_of(1000) == 50 and interval_of(7) == 1


@given(times, times, times, st.integers(1, 64), st.integers(0, 1000), st.floats(60, 1e6), st.one_of(st.none(), st.integers(1, 5000)))
def test_the_steps_of_given_hours_fill_them_and_no_more(
    micro: float, update: float, evaluation: float, accumulation: int, batches: int, seconds: float, interval: int | None
) -> None:
    speed, overhead = Speed(micro, update, evaluation, 0.001), Overhead(interval, batches, batches, 100, 10**6)
    steps = steps_within(seconds, accumulation, speed, overhead)
    if steps:
        assert sum(run_seconds(steps, accumulation, speed, overhead).values()) <= seconds
    assert sum(run_seconds(steps + 1, accumulation, speed, overhead).values()) > seconds


def test_an_hour_too_short_for_one_step_has_none() -> None:
    assert steps_within(6.0, 1, SPEED, OVERHEAD) == 0


def test_time_is_that_of_the_measured_runs() -> None:
    """2,000 iterations of nanoGPT's CPU recipe took 35 to 53 ms each on a machine of 140 to 180 (fp32) and 400 (bf16) GFLOP/s."""
    flops = GPTConfig(4, 4, 128, 64, 65).flops_per_token()
    assert 0.5 < assumed_speed(flops, 12 * 64, GEMM_SHARE * 400e9).micro_batch / 0.035 < 2


def test_a_gpu_with_little_to_multiply_waits_for_its_host() -> None:
    assert assumed_speed(6e6, 64, 1e14, launch=1.6e-3).micro_batch == pytest.approx(1.6e-3)
    assert assumed_speed(6e9, 8192, 1e14, launch=1.6e-3).micro_batch == pytest.approx(6e9 * 8192 / 1e14)


def test_a_run_that_is_fine_is_not_doubted() -> None:
    assert run_warnings(1.0, 1e9, 2e9, 8) == run_warnings(20.0, 1e9, 2e9, 8) == []


def test_what_looks_wrong_is_said_with_a_way_out() -> None:
    (full,) = run_warnings(4, 30 * 2**30, 24 * 2**30, 8)
    assert "about 30 GiB" in full and "24 GiB" in full and "data.micro_batch_size=4" in full
    assert "smaller model" in run_warnings(4, 2e9, 1e9, 1)[0]
    assert "0.4 epochs" in run_warnings(0.4, 0, 1, 1)[0] and "max_epochs=1" in run_warnings(0.4, 0, 1, 1)[0]
    assert "37 epochs" in run_warnings(37, 0, 1, 1)[0] and len(run_warnings(37, 2, 1, 1)) == 2


def test_what_surely_does_not_fit_is_refused_and_what_fits_is_not() -> None:
    check_capacity(peak_bytes=1.4e9, memory_bytes=1e9, disk_bytes=1e9, free_disk=1e9)
    with pytest.raises(ConfigError, match=r"memory.*task=plan"):
        check_capacity(peak_bytes=1.6e9, memory_bytes=1e9, disk_bytes=0, free_disk=1e9)
    with pytest.raises(ConfigError, match=r"checkpoints.*task=clean"):
        check_capacity(peak_bytes=0, memory_bytes=1e9, disk_bytes=1.1e9, free_disk=1e9)
