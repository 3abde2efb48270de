"""How long the finder's short runs are, and with which schedule."""

from types import SimpleNamespace
from typing import Any

import pytest

from gptshake.config.compose_errors import checked_compose
from gptshake.errors import ConfigError
from gptshake.tasks import find_lr

PER_STEP = 2_048


def short(steps: int, *words: str) -> tuple[int, list[str]]:
    """Steps of a short run for a run of so many, and the overrides of its schedule."""
    cfg = checked_compose(["task=find_lr", "model=tiny", "data=wiki_char", *words])
    budget: Any = SimpleNamespace(steps=steps, tokens_per_step=PER_STEP, total_tokens=steps * PER_STEP)
    return find_lr.short_run(cfg, budget)


@pytest.mark.parametrize(
    ("steps", "words", "length", "schedule"),
    [
        (500, (), 250, [f"warmup={150 * PER_STEP}", "cooldown=0.384"]),
        (4_000, (), 500, [f"warmup={160 * PER_STEP}", "cooldown=0.4"]),
        (500, ("scheduler=cosine",), 250, [f"warmup={150 * PER_STEP}"]),
        (500, ("scheduler=one_cycle",), 250, ["pct_start=0.6"]),
        (2_000, ("scheduler.warmup=0", "scheduler.cooldown=409600"), 250, ["warmup=0", "cooldown=0.1"]),
        (500, ("scheduler.warmup=0",), 125, ["warmup=0", "cooldown=0.4"]),  # not an eighth: 62 steps
        (
            1_600,
            ("scheduler=gpt3", "scheduler.decay=0.5"),
            267,
            [f"warmup={160 * PER_STEP}", f"decay={round((267 - 107 * 800 / 1_440) * PER_STEP)}"],
        ),
        (1, (), 1, ["warmup=0", "cooldown=0.4"]),
        (1, ("scheduler=one_cycle",), 1, []),
    ],
)
def test_short_runs_have_the_warm_up_of_the_run_and_a_decay_that_fits_behind_it(
    steps: int, words: tuple[str, ...], length: int, schedule: list[str]
) -> None:
    assert short(steps, *words) == (length, [f"scheduler.{text}" for text in schedule])


def test_a_schedule_of_the_users_own_is_left_as_it_is() -> None:
    """Any function that is not ours: nobody knows what its options mean."""
    assert short(500, "scheduler=constant", "scheduler._target_=math.pow") == (125, [])


def test_short_runs_that_would_end_in_their_warm_up_are_refused() -> None:
    def check(*words: str) -> None:
        cfg = checked_compose(["task=find_lr", "model=tiny", "data=wiki_char", *words])
        budget: Any = SimpleNamespace(steps=4_000, tokens_per_step=PER_STEP, total_tokens=4_000 * PER_STEP)
        find_lr.check_length(cfg, budget)

    with pytest.raises(ConfigError, match=r"no longer than the warm-up of the run, 160 steps.*take 267 steps"):
        check("task.confirm_steps=160")
    for words in (
        ("task.confirm_steps=161",),
        ("task.confirm_steps=9", "scheduler.warmup=0"),
        ("task.confirm_steps=9", "task.confirm=0"),
        (),
    ):
        check(*words)
