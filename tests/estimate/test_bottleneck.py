"""Verdicts from the seconds of a step's parts: what is blamed, with which number, and what is advised."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptshake.estimate.bottleneck import (
    PARTS,
    Situation,
    callbacks_of,
    measuring_cost,
    parts_of,
    start_verdict,
    validation_hint,
    verdict,
    workers_needed,
)

NOW = Situation("cpu", "32-true", False, 0, 8, 1, 16, "Samples", 0.34, "this machine's measured matrix speed", 0.0)
GPU = replace(NOW, device="cuda", precision="bf16-mixed", peak="the device's dense peak")


def step(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(PARTS, 0.0) | {"forward": 0.010, "backward": 0.020} | seconds


def test_a_slow_source_is_blamed_with_the_workers_that_keep_up() -> None:
    (sentence,) = verdict(step(data=0.090), NOW)
    assert sentence == (
        "loader-bound: 75 % of the step waits for data (90 ms a micro-batch; fetching itself waits for a disk or a network); "
        "set data.workers=3 (at best 4 times as fast)."
    )


def test_a_loader_that_computes_gets_no_more_workers_than_there_are_cores() -> None:
    (sentence,) = verdict(step(data=0.300), replace(NOW, computing=0.9, cores=2))
    assert "fetching computes" in sentence and "set data.workers=2, and make the source faster: 10 processes" in sentence


def test_workers_that_cannot_keep_up_become_more() -> None:
    (sentence,) = verdict(step(data=0.030), replace(NOW, workers=2, computing=None))
    assert "set data.workers=4" in sentence and "fetching" not in sentence


def test_where_no_number_of_workers_helps_the_source_must() -> None:
    (sentence,) = verdict(step(data=3.0), replace(NOW, workers=16, computing=None))
    assert "make the source faster" in sentence and "set data.workers" not in sentence


def test_batches_too_small_to_hand_over_become_larger() -> None:
    (sentence,) = verdict(step(forward=0.0002, backward=0.0004, data=0.0009), NOW)
    assert "a larger data.micro_batch_size" in sentence


def test_an_update_for_few_sequences_is_told_what_a_larger_batch_makes_of_it() -> None:
    (sentence,) = verdict(step(optimizer=0.030), NOW)
    assert sentence.startswith("optimizer-bound: the update of the weights takes 50 % of the step, for 16 sequences; ")
    assert "data.batch_size=128 it would be 11 %" in sentence


@pytest.mark.parametrize(
    ("slow", "accumulation", "words"),
    [
        ({"logging": 0.03}, 1, "the slowest callback is Samples"),
        ({"other": 0.03}, 2, "larger data.micro_batch_size"),
        ({"other": 0.03}, 1, "larger data.batch_size makes longer steps"),
    ],
)
def test_overhead_is_named_with_what_causes_it(slow: dict[str, float], accumulation: int, words: str) -> None:
    (sentence,) = verdict(step(**slow), replace(NOW, accumulation=accumulation))
    assert sentence.startswith("overhead-bound:") and words in sentence


def test_copies_are_blamed() -> None:
    (sentence,) = verdict(step(transfer=0.03), GPU)
    assert sentence.startswith("transfer-bound: 50 %")


def test_the_network_alone_is_compute_bound_with_its_mfu() -> None:
    (sentence,) = verdict(step(optimizer=0.001), NOW)
    assert sentence.startswith(
        "compute-bound: forward and backward are 97 % of the step; MFU 0.34 of this machine's measured matrix speed;"
    )


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (replace(GPU, precision="32-true"), "trainer.precision=bf16-mixed"),
        (replace(GPU, mfu=0.04), "a larger data.batch_size makes larger passes, and trainer.compile=true"),
        (replace(NOW, mfu=0.04, accumulation=2), "a larger data.micro_batch_size makes larger passes"),
        (replace(GPU, mfu=0.04, compiled=True), "makes larger passes."),
        (replace(GPU, mfu=0.4), "trainer.compile=true may gain"),
        (replace(GPU, mfu=0.4, compiled=True), "a faster device"),
    ],
)
def test_a_device_is_told_what_it_still_has_to_give(now: Situation, words: str) -> None:
    assert words in verdict(step(), now)[0]


def test_the_worst_comes_first() -> None:
    assert [s.split(":")[0] for s in verdict(step(data=0.02, optimizer=0.03), NOW)] == ["optimizer-bound", "loader-bound"]


@given(st.lists(st.floats(1e-6, 10), min_size=len(PARTS), max_size=len(PARTS)), st.integers(0, 20), st.integers(1, 64))
def test_every_step_gets_a_verdict_of_whole_sentences(seconds: list[float], workers: int, accumulation: int) -> None:
    now = replace(NOW, workers=workers, accumulation=accumulation)
    sentences = verdict(dict(zip(PARTS, seconds, strict=True)), now)
    assert sentences and all("-bound: " in text and text.endswith(".") and "e+" not in text for text in sentences)


@given(st.floats(1e-4, 1.0), st.floats(1e-4, 1.0))
def test_so_many_workers_do_keep_up(wait: float, rest: float) -> None:
    needed = workers_needed(wait, rest, 0)
    assert needed * max(rest, 1e-3) >= wait * 0.999 and (needed == 1 or (needed - 1) * max(rest, 1e-3) <= wait)


def test_parts_add_up_and_come_again_with_every_micro_batch() -> None:
    steps = [{"data": 1.0, "forward": 2.0, "optimizer": 4.0, "logging/Samples": 1.0, "logging/Checkpoint": 2.0, "validation": 99.0}] * 3
    parts = {part.name: part for part in parts_of(steps, passes=2, accumulation=6)}
    assert [parts[name].mean_s for name in ("data", "forward", "optimizer", "logging")] == [3.0, 6.0, 4.0, 3.0]
    assert sum(part.share for part in parts.values()) == pytest.approx(1.0) and list(parts) == list(PARTS)
    assert callbacks_of(steps) == {"Checkpoint": 2.0, "Samples": 1.0}


def test_a_loader_that_stalls_now_and_then_shows_in_the_mean_only() -> None:
    steps = [{"data": 5.0 if n == 3 else 0.0, "forward": 0.1} for n in range(10)]
    data = parts_of(steps, 1, 1)[0]
    assert data.median_s == 0.0 and data.mean_s == 0.5 and data.share == pytest.approx(0.5 / 0.6)


def test_what_measuring_costs_is_told_by_medians() -> None:
    assert measuring_cost([1.1, 1.1, 50.0], [1.0, 1.0, 1.0]) == pytest.approx(0.1)


def test_many_validations_are_advised_to_be_fewer() -> None:
    text = validation_hint(seconds=2.0, interval=10, step_seconds=0.2)
    assert text == "validations take 50 % of the training (2 s every 10 steps): trainer.val_check_interval=190 makes that 5 %."
    assert validation_hint(seconds=2.0, interval=190, step_seconds=0.2) is None


def test_the_start_names_its_longest_phase() -> None:
    assert (
        start_verdict({"import torch": 2.0, "token store": 6.0})
        == "the start took 8 s, 75 % of it: token store; the next run finds it built."
    )
