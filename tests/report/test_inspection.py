"""The text and the picture of an inspected store: complete, warnings last, and drawn from any facts."""

from pathlib import Path
from typing import Any

import pytest

from gptshake.console import width
from gptshake.report.plots_tasks import draw_inspection as draw
from gptshake.report.tasks_text import inspection_text as text

SPLIT = {"n_documents": 3, "n_tokens": 4000, "n_characters": 5000, "n_bytes": 6000, "bytes_per_token": 1.5, "unknown": 0.0}
FACTS: dict[str, Any] = {
    "label": "book",
    "licence": "the user's own",
    "tokenizer": "char",
    "vocab_size": 50,
    "path": "cache/stores/0123",
    "key": "0123",
    "entropy": {"uniform": 3.9, "unigram": 3.0, "bigram": 2.4},
    "splits": [{"name": name, **SPLIT} for name in ("train", "val", "test")],
    "sampled": None,
    "block_size": 64,
    "n_blocks": 62,
    "blocks": ["a $block$\nof <text>"],
    "most": [{"id": 2, "text": "$", "n": 500, "share": 0.125}, {"id": 3, "text": "\n", "n": 300, "share": 0.075}],
    "least": [{"id": 4, "text": "\\xe6", "n": 1, "share": 0.001}],
    "unused": 2,
    "frequencies": [500, 300, 1],
    "lengths": {"train": [10, 2000, 0], "val": [70], "test": []},
    "warnings": [],
}


def test_everything_is_said_and_the_verdict_last() -> None:
    said = text(FACTS, 8)
    for part in (
        "cache/stores/0123",
        "4,000",
        "62 blocks of 64 tokens = 7.8 steps of 8",
        "bigram 2.400",
        "'$' 12.50%",
        "2 ids never occur",
    ):
        assert part in said
    assert "  | a $block$\n  | of <text>" in said
    assert said.endswith("no problems found")
    assert text(FACTS | {"warnings": ["Markup is left."]}, None).endswith("warning: Markup is left.")
    assert "steps" not in text(FACTS, None)


def test_columns_of_wide_letters_are_aligned_on_a_terminal() -> None:
    table = text(FACTS | {"splits": [{"name": "訓練", **SPLIT}, {"name": "val", **SPLIT}]}, None).split("\n\n")[1]
    assert len({width(line.rsplit("  ", 1)[0]) for line in table.splitlines()}) == 1


def test_a_sample_is_called_one() -> None:
    assert "of 67.1M tokens spread over a split" in text(FACTS | {"sampled": 1 << 26}, None)


@pytest.mark.parametrize("lengths", [FACTS["lengths"], {"train": [5], "val": [5]}])
def test_the_picture_is_the_same_for_the_same_facts(lengths: dict[str, list[int]], tmp_path: Path) -> None:
    files = [draw(FACTS | {"lengths": lengths}, tmp_path / name) for name in "ab"]
    assert [file.name for file in files[0]] == ["tokens.png", "tokens.svg"]
    assert files[0][1].read_bytes() == files[1][1].read_bytes()
    assert files[0][0].stat().st_size > 10_000
