"""Batch and length of a run, in whole numbers."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.errors import ConfigError
from gptshake.estimate.budget import Budget, Request, parse_max_time, plan, resolve_batch, run_tokens


def request(**changes: Any) -> Request:
    given_: dict[str, Any] = {
        "n_parameters": 1_000_000,
        "epoch_tokens": 2_500_000,
        "block_size": 64,
        "batch_size": 32,
        "micro_batch_size": "auto",
        "max_micro_batch": 32,
    }
    return Request(**{**given_, **changes})


def planned(**changes: Any) -> Budget:
    return plan(request(**changes))


def test_default_length_is_the_smaller_of_20_tokens_a_parameter_and_4_epochs() -> None:
    assert run_tokens(request()) == (10_000_000, "4 epochs")
    assert run_tokens(request(n_parameters=100_000)) == (2_000_000, "20 tokens per parameter")


def test_a_limit_replaces_the_default_and_the_smallest_limit_decides() -> None:
    assert run_tokens(request(epoch_tokens=1000, max_epochs=10)) == (10_000, "max_epochs")
    assert run_tokens(request(epoch_tokens=1000, max_tokens=77_777)) == (77_777, "max_tokens")
    assert run_tokens(request(epoch_tokens=1000, max_epochs=0.3, max_tokens=77_777)) == (300, "max_epochs")


@pytest.mark.parametrize(
    ("limits", "steps", "rule"),
    [
        ({}, 4883, "4 epochs"),  # 10e6 / 2048 = 4882.8
        ({"max_steps": 200}, 200, "max_steps"),
        ({"max_steps": 100_000}, 100_000, "max_steps"),  # beyond the default: it was asked for
        ({"max_steps": 100_000, "max_epochs": 1}, 1221, "max_epochs"),
        ({"max_steps": 7, "max_epochs": 1, "max_tokens": 10**9}, 7, "max_steps"),
        ({"max_tokens": 2048}, 1, "max_tokens"),
        ({"max_tokens": 2049}, 2, "max_tokens"),
        ({"max_epochs": 1e-9}, 1, "max_epochs"),
    ],
)
def test_steps_reach_the_limit_that_decides(limits: dict[str, float], steps: int, rule: str) -> None:
    budget = planned(**limits)
    assert (budget.steps, budget.stop_rule) == (steps, rule)
    assert budget.total_tokens == steps * 2048 == steps * budget.tokens_per_step
    assert budget.epochs == pytest.approx(budget.total_tokens / 2_500_000)


def test_a_fraction_of_an_epoch_has_no_step_too_many() -> None:
    assert planned(epoch_tokens=30 * 2048, max_epochs=0.1).steps == 3  # 0.1 x 30 is 3.0000000000000004 in floats


def batch(batch_size: int | str, batch_tokens: int | None, preset: int | None, block_size: int, tokens: int) -> tuple[int, str | None]:
    wanted = request(batch_size=batch_size, batch_tokens=batch_tokens, preset_tokens=preset, block_size=block_size)
    return resolve_batch(wanted, tokens)


def test_the_presets_batch_is_kept_in_a_long_run() -> None:
    assert batch("auto", None, 524_288, 2048, 300_000_000_000) == (256, None)
    assert batch("auto", None, 524_288, 1024, 300_000_000_000) == (512, None)  # tokens stay when the block changes
    assert batch("auto", None, 3_145_728, 2048, 300_000_000_000) == (1536, None)


def test_the_presets_batch_is_lowered_to_a_200th_of_a_short_run_and_says_so() -> None:
    size, note = batch("auto", None, 524_288, 2048, 10_000_000)
    assert size == 16  # 50,000 tokens, down to 32,768
    assert note == (
        "The preset's 524,288-token batch would make 20 steps of this run's 10,000,000 tokens; using 32,768; "
        "force it with data.batch_tokens=524288"
    )
    assert batch("auto", None, 524_288, 2048, 1)[0] == 1


def test_the_shell_wins_over_the_preset() -> None:
    assert batch("auto", 524_288, 2048, 2048, 1000) == (256, None)
    assert batch(12, None, 524_288, 64, 1000) == (12, None)
    assert batch(12, 128, 524_288, 64, 1000) == (2, None)


def test_auto_and_null_without_a_preset_are_32_sequences() -> None:
    assert batch("auto", None, None, 64, 10**9) == batch(None, None, None, 64, 10**9) == (32, None)


def test_max_steps_does_not_change_the_automatic_batch() -> None:
    long, short = (planned(batch_size="auto", preset_tokens=524_288, max_steps=max_steps) for max_steps in (None, 3))
    assert long.batch_size == short.batch_size == 512  # 10e6 / 200 = 50,000 tokens, down to 32,768
    assert short.total_tokens == 3 * short.tokens_per_step


@given(preset=st.integers(1, 10**7), block_size=st.integers(1, 4096), tokens=st.integers(1, 10**10))
def test_an_automatic_batch_leaves_200_steps_or_is_one_sequence(preset: int, block_size: int, tokens: int) -> None:
    size, note = batch("auto", None, preset, block_size, tokens)
    assert size == 1 or tokens // (size * block_size) >= 200
    assert size <= max(1, preset // block_size)
    assert (note is None) == (size == max(1, preset // block_size))


@given(per_device=st.integers(1, 5000), wish=st.integers(1, 5000))
def test_micro_batch_is_the_largest_divisor_below_the_wish(per_device: int, wish: int) -> None:
    size = planned(batch_size=per_device, micro_batch_size=wish, block_size=1).micro_batch_size
    assert per_device % size == 0
    assert size <= wish
    assert not [other for other in range(size + 1, min(wish, per_device) + 1) if per_device % other == 0]


@given(
    per_device=st.integers(1, 300),
    devices=st.integers(1, 8),
    wish=st.integers(1, 64),
    block_size=st.integers(1, 512),
    max_tokens=st.integers(1, 10**7),
)
def test_a_plan_adds_up(per_device: int, devices: int, wish: int, block_size: int, max_tokens: int) -> None:
    budget = planned(batch_size=per_device * devices, devices=devices, micro_batch_size=wish, block_size=block_size, max_tokens=max_tokens)
    assert budget.micro_batch_size * budget.accumulation * devices == budget.batch_size
    assert budget.tokens_per_step == budget.batch_size * block_size
    assert budget.total_tokens - budget.tokens_per_step < max_tokens <= budget.total_tokens


def test_a_micro_batch_that_had_to_change_is_said_only_if_it_was_asked_for() -> None:
    assert planned(batch_size=64, micro_batch_size=24).notes == ("data.micro_batch_size=24 does not divide 64 sequences; using 16",)
    assert planned(batch_size=64, micro_batch_size=999).notes == ()
    assert planned(batch_size=64, max_micro_batch=24).notes == ()
    assert planned(batch_size=64, max_micro_batch=24).micro_batch_size == 16


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_tokens": 100}, "try 64 or 128"),
        ({"batch_tokens": 63}, "try 64"),
        ({"batch_tokens": 0}, "data.batch_tokens=0"),
        ({"batch_size": 9, "devices": 2}, "multiple of 2"),
    ],
)
def test_what_cannot_be_planned_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        planned(**changes)


@pytest.mark.parametrize(
    ("text", "seconds"), [("00:07:30:00", 27_000), ("01:00:00:01", 86_401), ("00:00:00:05", 5), ("100:23:59:59", 8_726_399)]
)
def test_max_time_in_seconds(text: str, seconds: int) -> None:
    assert parse_max_time(text) == seconds


@pytest.mark.parametrize("text", ["7h", "07:30:00", "00:24:00:00", "00:00:60:00", "00:00:00:60", "00:00:00:00", "", "00:07:30:00 "])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="days:hours:minutes:seconds"):
        parse_max_time(text)
