"""``task=profile`` from the command line: it blames what is slow, leaves no run, and changes none."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

FEW = ("task.warmup=1", "task.steps=3")
SLOW_MAP = """
import time, gptshake.data.module as module
gather = module.gather
module.gather = lambda *words: (time.sleep(0.02), gather(*words))[1]  # a page of the map that has to come from far away
"""


def profile_of(folder: Path) -> dict[str, Any]:
    (file,) = (folder / "profile").glob("*/profile.json")
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return facts


def test_a_slow_map_of_tokens_is_blamed_and_nothing_but_the_profile_is_left(commands: Any, tmp_path: Path, small: tuple[str, ...]) -> None:
    done = commands(tmp_path, *small, "task=profile", *FEW, "logger=wandb", before=SLOW_MAP)
    assert done.code == 0, done.err
    facts = profile_of(tmp_path)
    assert facts["verdict"][0].startswith("loader-bound: ") and "set data.workers=" in facts["verdict"][0]
    assert "fetching itself waits" in facts["verdict"][0] and facts["verdict"][0][:30] in done.out
    assert facts["parts"][0]["name"] == "data" and facts["parts"][0]["mean_s"] >= 4 * 0.02  # four micro-batches a step
    assert facts["start"]["first batch"] >= 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["profile"]
    (folder,) = (tmp_path / "profile").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["log", "profile.json", "profile.png", "profile.svg", "trace.json"]


def test_workers_take_the_wait_away_that_they_were_advised_for(commands: Any, tmp_path: Path, small: tuple[str, ...]) -> None:
    done = commands(tmp_path, *small, "task=profile", *FEW, "data.workers=8", before=SLOW_MAP)
    assert done.code == 0, done.err
    assert profile_of(tmp_path)["parts"][0]["mean_s"] < 0.5 * 4 * 0.02


def test_a_step_of_many_micro_batches_is_told_from_a_few(commands: Any, tmp_path: Path, small: tuple[str, ...]) -> None:
    done = commands(tmp_path, *small, "debug=profile", "data.batch_size=96", "trainer.max_steps=2", before=SLOW_MAP)
    assert done.code == 0, done.err
    facts = profile_of(tmp_path)
    assert facts["batch"] == {"size": 96, "accumulation": 48, "measured": 4, "block_size": 16}
    assert facts["parts"][0]["mean_s"] >= 48 * 0.02 and "48 micro-batches, estimated from 4" in done.out


def test_a_run_after_a_profile_is_the_run_without(
    commands: Any, tmp_path: Path, small: tuple[str, ...], the_run: Callable[[Path], Any]
) -> None:
    for name in ("alone", "after"):
        (tmp_path / name).mkdir()
    assert commands(tmp_path / "after", *small, "task=profile", *FEW).code == 0
    for name in ("alone", "after"):
        assert commands(tmp_path / name, *small).code == 0
    assert the_run(tmp_path / "after").numbers() == the_run(tmp_path / "alone").numbers()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("data=text_char data.path=book.txt", "Choose a model"),
        ("model=tiny", "Choose a data set"),
        ("model=tiny data=text_char data.path=book.txt trainer.devices=2", "leave trainer.devices= out"),
        ("model=tiny data=text_char data.path=book.txt task.steps=0", "task.steps=0 cannot work"),
        ("model=tiny data=text_char data.path=book.txt task.seconds=-1", "task.seconds=-1 cannot work"),
        ("model=tiny data=text_char data.path=nowhere.txt", "nowhere.txt"),
    ],
)
def test_bad_use_gets_a_sentence(light_commands: Any, tmp_path: Path, words: str, sentence: str) -> None:
    (tmp_path / "book.txt").write_text("a text " * 100)
    done = light_commands(tmp_path, "task=profile", *words.split())
    assert done.code == 2 and sentence in done.error
    assert [path.name for path in tmp_path.iterdir()] == ["book.txt"]
