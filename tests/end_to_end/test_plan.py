"""``task=plan`` and ``trainer.hours`` from the command line."""

from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

SHORT = ("trainer.max_steps=null", "trainer.val_check_interval=auto")


def test_a_plan_says_what_a_run_costs_and_leaves_no_run(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "task=plan", *small, "task.hours=0.1", "task.price_per_hour=2")
    assert done.code == 0, done.err
    for part in ("measured in a few trial steps", "12 steps = 1.54k tokens", "tokens/s", "law says lr", "at 2 an hour", "In 0.1 hours:"):
        assert part in done.out
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["plan.png", "plan.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["plans"]


def test_a_plan_for_a_device_that_is_not_here_measures_nothing(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "task=plan", *small, "task.device=rtx3090", "trainer.precision=auto")
    assert done.code == 0, done.err
    assert (
        "on RTX 3090, bf16-mixed; speed assumed, 30% of its peak" in done.out and "of 24 GiB" in done.out and "at 0.2 an hour" in done.out
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task=plan",), "Say which model and which data"),
        (("task=plan", "model=tiny", "data=text_char", "data.path=x.txt", "task.device=a1000"), "did you mean a100?"),
    ],
)
def test_a_plan_of_nothing_gets_a_sentence(light_commands: Any, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "x.txt").write_text("some text")
    done = light_commands(tmp_path, *words)
    assert done.code == 2 and sentence in done.error


def test_hours_become_steps_that_the_record_keeps_and_a_resumed_run_takes(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, *SHORT, "trainer.hours=0.0017")
    assert done.code == 0, done.err
    record = the_run(tmp_path)
    steps = record.info["budget"]["steps"]
    assert record.info["budget"]["stop_rule"] == "0.0017 hours" and record.steps[-1] == steps > 1
    assert record.info["resolved"]["trainer.max_steps"] == steps and record.info["resolved"]["trainer.hours"] is None
    config = OmegaConf.load(record.path / "config.yaml")
    assert config.trainer.max_steps == steps and config.trainer.hours is None
    assert f"{steps:,} steps are kept in the record" in done.out
    again = commands(tmp_path, f"resume={record.info['id']}")
    assert again.code == 0, again.err
    assert the_run(tmp_path).numbers() == record.numbers()
    assert "was None, would be 1" in commands(tmp_path, f"resume={record.info['id']}", "trainer.hours=1").error


def test_a_run_of_given_hours_is_the_run_of_as_many_steps(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    """Measuring happens in a child and disturbs nothing."""
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir(), second.mkdir()
    assert commands(first, *small, *SHORT, "trainer.hours=0.0016").code == 0
    timed = the_run(first)
    assert commands(second, *small, *SHORT, f"trainer.max_steps={timed.steps[-1]}").code == 0
    assert the_run(second).numbers() == timed.numbers()


def test_hours_too_short_for_a_step_are_refused(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, "trainer.hours=1e-6")
    assert done.code == 2 and "trainer.hours=1e-06 is too short" in done.error
    assert not (tmp_path / "runs").exists()


def test_what_looks_wrong_is_said_before_the_first_step(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, "trainer.max_steps=2")
    assert done.out.index("the run ends before it has read its text once") < done.out.index("plan:") < done.out.index("done:")
    assert "sequences of 16" in done.out and "MiB of" in done.out
