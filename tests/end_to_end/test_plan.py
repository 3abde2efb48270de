"""``task=plan`` and ``trainer.hours`` from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake.estimate import laws

SHORT = ("trainer.max_steps=null", "trainer.val_check_interval=auto")


def test_a_plan_says_what_a_run_costs_and_leaves_no_run(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "task=plan", *small, "task.hours=0.1", "task.price_per_hour=2")
    assert done.code == 0, done.err
    for part in (
        "measured in a few trial steps",
        "12 steps = 1.54k tokens",
        "tokens/s",
        "scaling law",
        " at 2.00 per hour",
        "In 0.1 hours:",
    ):
        assert part in done.out
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["plan.png", "plan.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["plans"]


MINE = """from omegaconf import OmegaConf
def run(context):
    print("rate", OmegaConf.to_container(context.config, resolve=False)["preset"]["lr"])
"""


@pytest.mark.parametrize("several", [[], ["-m"]])
def test_the_child_that_measures_needs_no_resolver_for_the_rate_of_a_preset(
    several: list[str], light_commands: Any, small: Any, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    done = light_commands(tmp_path, *several, "task=plan", "task._target_=mine.run", *small)
    assert done.code == 0 and "rate 0.004\n" in done.out, done.err


def test_a_plan_for_a_device_that_is_not_here_measures_nothing(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "task=plan", *small, "task.device=rtx3090", "trainer.precision=auto", "scheduler.warmup=1")
    assert done.code == 0, done.err
    assert (
        "on RTX 3090, bf16-mixed; speed assumed, 30% of its peak" in done.out
        and "of 24 GiB" in done.out
        and "at $0.20 per hour" in done.out
        and "note: scheduler.warmup=1 is 1 token (below 1 it is a fraction of the run), less than a step" in done.out  # as a run says
    )


def test_what_cannot_fit_is_planned_but_not_tried(commands: Any, small: Any, tmp_path: Path) -> None:
    large = [word for word in small if not word.startswith("model.")] + ["model=gpt3_175b", "model.block_size=16"]
    done = commands(tmp_path, "task=plan", *large)
    assert done.code == 0, done.err
    assert "a step would not fit" in done.out and "it will probably not fit; try data.micro_batch_size=1" in done.out
    done = commands(tmp_path, *large, "trainer.hours=1")
    assert done.code == 2 and ("would not fit into memory" in done.error or "The weights of this model alone take" in done.error)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("task=plan",), "Choose a model and a data set"),
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


def test_the_trials_of_a_sweep_share_one_measured_length(commands: Any, small: Any, tmp_path: Path) -> None:
    words = ("trainer.hours=0.0016", "trainer.save_minutes=100", "data.micro_batch_size=4", "data.batch_size=4,8")
    done = commands(tmp_path, "-m", *small, *SHORT, *words)
    assert done.code == 0, done.err
    infos = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("multirun/*/*/run.json"))]
    assert len(infos) == 2 and infos[0]["budget"]["steps"] == 2 * infos[1]["budget"]["steps"]
    assert len({info["summary"]["train/tokens"] for info in infos}) == 1


def test_a_study_takes_its_range_from_the_law_and_keeps_it(commands: Any, small: Any, tmp_path: Path) -> None:
    words = ("-m", *small, "trainer.max_steps=2", "optimizer.lr=range", "search_space=law")
    axes = []
    for n_trials in (1, 2):
        done = commands(tmp_path, *words, f"hydra.sweeper.n_trials={n_trials}")
        assert done.code == 0, done.err
        (file,) = tmp_path.glob("multirun/*/study.json")
        study = json.loads(file.read_text())
        assert len(study["trials"]) == n_trials
        axes.append(study["axes"][0])
    assert axes[0] == axes[1] and axes[0]["high"] / axes[0]["low"] == pytest.approx(16, rel=0.05)
    recommended = laws.recommended_lr(12 * 16 * 16, 2 * 8 * 16, 8 * 16, characters=True)
    assert axes[0]["high"] == pytest.approx(recommended.high, rel=0.02)


def test_the_range_of_another_optimizer_lies_around_its_own_rate_and_no_law_gives_it(commands: Any, small: Any, tmp_path: Path) -> None:
    words = ("-m", *small, "trainer.max_steps=2", "optimizer=sgd", "optimizer.lr=range", "hydra.sweeper.n_trials=1")
    refused = commands(tmp_path, *words, "search_space=law")
    assert refused.code == 2 and "published laws are for AdamW" in refused.error and not (tmp_path / "multirun").exists()
    refused = commands(tmp_path, *[word.replace("=sgd", "=adamw,sgd") for word in words])
    assert refused.code == 2 and not (tmp_path / "multirun").exists()
    assert "optimizer.lr=range is not the same range with optimizer=adamw and optimizer=sgd" in refused.error
    for name, more, ends in (("own", (), (0.1 / 300, 30)), ("given", ("search_space={optimizer.lr:'interval(0.1,0.2)'}",), (0.1, 0.2))):
        done = commands(tmp_path, *words, *more, f"study={name}")
        assert done.code == 0, done.err
        study = json.loads((tmp_path / "multirun" / name / "study.json").read_text())
        assert (study["axes"][0]["low"], study["axes"][0]["high"]) == pytest.approx(ends, rel=0.005)


def test_hours_too_short_for_a_step_are_refused(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, "trainer.hours=1e-6")
    assert done.code == 2 and "trainer.hours=1e-06 is too short" in done.error
    assert not (tmp_path / "runs").exists()


def test_what_looks_wrong_is_said_before_the_first_step(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, "trainer.max_steps=2")
    assert done.out.index("the run covers") < done.out.index("plan:") < done.out.index("done:")
    assert "sequences of 16" in done.out and "MiB of" in done.out
