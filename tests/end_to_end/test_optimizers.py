"""The other optimizers and schedules in real runs, one batch learned by heart, and a run that is made longer."""

from pathlib import Path
from typing import Any

import pytest


def test_one_batch_is_learned_by_heart(commands: Any, book: Path, tmp_path: Path, the_run: Any) -> None:
    done = commands(
        tmp_path,
        *("model=tiny", "model.n_layer=2", "model.n_embd=64", "model.block_size=32", "data=text_char", f"data.path={book}"),
        *("debug=overfit", "callbacks=none", "trainer=cpu", "trainer.threads=1"),
    )
    assert done.code == 0, done.err
    record = the_run(tmp_path)
    first, *_, last = record.numbers()
    assert first[2] > 2.5 and last[2] < 0.05  # nats per token
    assert record.info["summary"]["val/loss"] > 1.0  # and nothing else is


def test_sgd_learns_and_a_cycle_moves_its_momentum(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, "optimizer=sgd", "optimizer.lr=0.3", "scheduler=one_cycle", "trainer.max_steps=40")
    assert done.code == 0, done.err
    numbers = the_run(tmp_path).numbers()
    assert numbers[-1][2] < numbers[0][2] - 0.1
    header, *rows = [line.split(",") for line in (the_run(tmp_path).path / "metrics.csv").read_text().splitlines()]
    momenta = [float(row[header.index("train/beta1")]) for row in rows]
    assert min(momenta) == pytest.approx(0.85, abs=1e-3) and momenta[-1] == pytest.approx(0.95)


def test_the_learning_rate_told_is_that_of_the_run_not_of_a_group(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    rule = "optimizer.groups=[{pattern: 'blocks.*', lr_mult: 0.5}]"
    changes = ("optimizer.lr=1e-2", "optimizer.embedding_lr_mult=4", rule, "scheduler=linear", "scheduler.warmup=0", "trainer.max_steps=2")
    done = commands(tmp_path, *small, *changes)
    assert done.code == 0, done.err
    assert [row[3] for row in the_run(tmp_path).numbers()] == [pytest.approx(5e-3), 0.0]


def test_a_pattern_without_a_parameter_is_a_sentence(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, *small, "optimizer.groups=[{pattern: 'head.*'}]")
    assert done.code == 2 and "head.*" in done.error


def test_wsd_is_made_longer_before_its_cooldown_and_not_after(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    wsd = ("scheduler=wsd", "scheduler.warmup=0", "scheduler.cooldown=0.5", "trainer.save_minutes=0.0001")
    short = [*small, *wsd, "trainer.max_time=00:00:00:01", "trainer.max_steps=100000", "trainer.val_check_interval=100000"]
    assert commands(tmp_path, *short).code == 0
    record = the_run(tmp_path)
    assert record.steps[-1] < 50000
    longer = f"trainer.max_steps={record.steps[-1] + 4}"
    done = commands(tmp_path, f"resume={record.info['id']}", longer, "trainer.max_time=null")
    assert done.code == 2 and "would bend it" in done.error  # that plan would be in its cooldown already
    done = commands(tmp_path, f"resume={record.info['id']}", "trainer.max_steps=200000", "trainer.max_time=00:00:00:02")
    assert done.code == 0, done.err
    assert {row[3] for row in the_run(tmp_path).numbers()} == {4e-3}
