"""``task=inspect`` from the command line: it shows, it draws, and it leaves no run behind."""

from pathlib import Path
from typing import Any

import pytest


def test_inspect_shows_what_a_model_sees_and_leaves_no_run(
    commands: Any, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, book: Path
) -> None:
    words = ("task=inspect", "data=text_char", f"data.path={book}", "task.block_size=32", "data.batch_size=8")
    done = commands(tmp_path, *words, GPTSHAKE_CACHE=str(tmp_path_factory.mktemp("cache")))
    assert done.code == 0, done.err
    for part in ("building the token store of book", "blocks of 32 tokens", "steps of 8", "training block 3", "most frequent: ' '"):
        assert part in done.out
    assert sorted(path.suffix for path in (tmp_path / "inspect").glob("book-char*/tokens.*")) == [".png", ".svg"]
    assert [path.name for path in tmp_path.iterdir()] == ["inspect"]


def test_the_models_context_is_taken_where_one_is_given(commands: Any, tmp_path: Path, book: Path) -> None:
    words = ("task=inspect", "model=tiny", "data=text_char", f"data.path={book}", "data.val_fraction=0.2", "task.folder=pictures")
    done = commands(tmp_path, *words)
    assert done.code == 0 and "blocks of 64 tokens" in done.out
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_inspect_without_data_says_which_there_is(light_commands: Any, tmp_path: Path) -> None:
    done = light_commands(tmp_path, "task=inspect")
    assert done.code == 2 and "Choose a data set" in done.error
    assert list(tmp_path.iterdir()) == []
