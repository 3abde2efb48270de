"""``task=fit_batch``, and ``data.micro_batch_size=auto`` where a processor plays the GPU."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

QUICK = "import gptshake.training.probe as probe; probe.SECONDS = 0.0\n"
GPU = QUICK + (
    "from gptshake import hardware; hardware.gpus = lambda: [{'name': 'Imagined', 'memory_gb': 1.0}]\n"
    "from gptshake.setup import batch_finder; batch_finder.AUTO_DEVICES = ('cpu',)\n"
)
AUTO = ("data.micro_batch_size=auto", "trainer.accelerator=auto")


def test_sizes_are_tried_and_nothing_but_the_answer_is_left(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "task=fit_batch", *small, before=QUICK + "from gptshake.estimate import batch_size; batch_size.SAME = 9.0")
    assert done.code == 0, done.err
    assert (
        "data.micro_batch_size=" in done.out
        and "is the fastest here" in done.out
        and "4 still fits, and larger sizes are not faster" in done.out
    )
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["fit_batch.json", "fit_batch.png", "fit_batch.svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["fits"]


def test_an_artificial_limit_is_kept_and_passed_by_the_next_size(commands: Any, small: Any, tmp_path: Path) -> None:
    """The machine is made to have 150 MiB more than a training begins with; more than there is cannot be asked for."""
    wide = ("model.block_size=128", "model.n_embd=64", "model.dropout=0", "task.memory=1TiB")
    machine = QUICK + "from gptshake.setup import batch_finder; batch_finder.memory_limit = lambda device: probe.BASE_BYTES + (150 << 20)"
    done = commands(tmp_path, "task=fit_batch", *small, *wide, before=machine)
    assert done.code == 0, done.err
    found = json.loads(next(tmp_path.glob("fits/*/fit_batch.json")).read_text())
    limit, rows = found["limit"], found["tried"]
    assert limit < 1 << 32 and f"{found['largest']} is the largest that fits." in done.out
    assert all((row["peak"] or limit + 1) > limit for row in rows if not row["fits"])
    assert all(row["peak"] <= limit for row in rows if row["fits"])
    next_one = min(row["size"] for row in rows if not row["fits"])
    assert found["largest"] < next_one <= found["largest"] * 17 / 16 + 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "Choose a model and a data set"),
        (("model=tiny", "data=text_char", "data.path=x.txt", "task.memory=much"), "task.memory=much is not an amount of memory"),
    ],
)
def test_bad_use_gets_a_sentence(light_commands: Any, tmp_path: Path, words: tuple[str, ...], sentence: str) -> None:
    (tmp_path / "x.txt").write_text("some text")
    done = light_commands(tmp_path, "task=fit_batch", *words)
    assert done.code == 2 and sentence in done.error


def test_no_memory_for_one_sequence_gets_a_sentence(commands: Any, small: Any, tmp_path: Path) -> None:
    done = commands(tmp_path, "task=fit_batch", *small, "task.memory=20MiB", before=QUICK)
    assert done.code == 2 and "Not even one sequence of 16 tokens fits into 20 MiB" in done.error and "smaller model" in done.error


def test_auto_on_a_gpu_is_frozen_and_the_run_is_the_run_with_that_number(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    cache = f"paths.cache={tmp_path / 'cache'}"
    first = commands(folders[0], *small, *AUTO, cache, before=GPU)
    assert first.code == 0, first.err
    assert "sequences are the fastest on this GPU, measured in" in first.out
    size = the_run(folders[0]).info["resolved"]["data.micro_batch_size"]
    again = commands(folders[1], *small, *AUTO, cache, before=GPU)
    assert again.code == 0 and "measured before" in again.out
    assert commands(folders[2], *small, f"data.micro_batch_size={size}", cache).code == 0
    assert the_run(folders[0]).numbers() == the_run(folders[1]).numbers() == the_run(folders[2]).numbers()


def test_auto_on_a_processor_measures_nothing(commands: Any, small: Any, tmp_path: Path, the_run: Any) -> None:
    done = commands(tmp_path, *small, "data.micro_batch_size=auto")
    assert done.code == 0 and "measured" not in done.out
    assert the_run(tmp_path).info["resolved"]["data.micro_batch_size"] == 8
