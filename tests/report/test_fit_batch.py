"""Micro-batch sizes as table, sentence and picture, from plain values."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptshake.estimate.batch_size import Tried
from gptshake.report.plots_tasks import draw_fit_batch as draw
from gptshake.report.tasks_text import fit_batch_row as row_text
from gptshake.report.tasks_text import fit_batch_sentence as sentence
from gptshake.report.tasks_text import fit_batch_text as text

MIB = 1 << 20


@pytest.fixture
def facts() -> dict[str, Any]:
    """Passes that get no faster from 16 sequences on, and room for 48."""
    tried = [Tried(size, True, (300 + 5 * size) * MIB, 0.1 * max(size, 16) / 16, 0.001) for size in (1, 2, 4, 8, 16, 32, 48)]
    lost = [Tried(64, False, 620 * MIB, 0.1, 0.1, "took 620 MiB"), Tried(56, False, why="memory ran out")]
    return {
        "title": "tiny · wiki_char · excerpt106",
        "settings": "a processor, 32-true, 2 threads",
        "block_size": 64,
        "batch_size": 32,
        "limit": 560 * MIB,
        "tried": tried[:3] + lost + tried[3:],
    }


def test_the_sentence_can_be_acted_on(facts: dict[str, Any]) -> None:
    assert sentence(facts) == (
        "data.micro_batch_size=16 is the fastest here: 10,000 tokens/s with 380 MiB of 560 MiB; 48 is the largest that fits."
    )
    assert sentence(facts | {"tried": [row for row in facts["tried"] if row.size < 48]}).endswith(
        "; 32 still fits, and larger sizes are not faster."
    )


def test_the_size_that_is_told_divides_the_batch(facts: dict[str, Any]) -> None:
    assert sentence(facts | {"batch_size": 60}).startswith("data.micro_batch_size=15 (it divides the batch of 60; 16 was tried)")


def test_a_speed_that_needs_larger_steps_is_not_told_as_this_runs(facts: dict[str, Any]) -> None:
    said = sentence(facts | {"batch_size": 4})
    assert said.startswith("data.micro_batch_size=4 is the fastest for steps of 4 sequences: 2,4")
    assert " (larger steps go up to 10.1k, 32 at once); 48 is the largest that fits." in said
    table = text(facts | {"batch_size": 4})
    assert "fastest for steps of 4\n" in table and "fastest of all\n" in table


def test_the_table_is_sorted_and_marks_both_answers(facts: dict[str, Any]) -> None:
    rows = [line.split() for line in text(facts).strip().splitlines()[1:10]]
    assert [row[0] for row in rows] == ["1", "2", "4", "8", "16", "32", "48", "56", "64"]
    assert rows[4][-1] == "fastest" and rows[6][-3:] == ["largest", "that", "fits"]
    assert " ".join(rows[7][1:]) == "does not fit: memory ran out" and " ".join(rows[8][1:]) == "620 MiB does not fit"


def test_a_trial_is_a_line(facts: dict[str, Any]) -> None:
    lines = [row_text(row, 32, 64) for row in facts["tried"]]
    assert lines[0].split()[:2] == ["1", "sequence"] and "305 MiB" in lines[0] and lines[3].endswith("do not fit: took 620 MiB")


@pytest.mark.parametrize("fitting", [1, 3, 7])
def test_picture_and_rows_are_there_and_the_same_every_time(facts: dict[str, Any], tmp_path: Path, fitting: int) -> None:
    facts["tried"] = [row for row in facts["tried"] if row.fits][:fitting] + (
        [row for row in facts["tried"] if not row.fits] if fitting > 3 else []
    )
    first, second = draw(facts, tmp_path / "a"), draw(facts, tmp_path / "b")
    assert [file.name for file in first] == ["fit_batch.png", "fit_batch.svg", "fit_batch.json"]
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]
    rows = json.loads(first[2].read_text())
    assert rows["fastest"] == min(16, 2 ** (fitting - 1)) and all(row["tokens_per_s"] for row in rows["tried"] if row["fits"])
