"""A profile in letters and as a picture, from plain values."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptshake.report.plots_tasks import draw_profile as draw
from gptshake.report.tasks_text import STEP_PARTS
from gptshake.report.tasks_text import profile_text as text

SHARES = {"data": 0.62, "transfer": 0.0, "forward": 0.12, "backward": 0.2, "optimizer": 0.04, "logging": 0.01, "other": 0.01}


@pytest.fixture
def facts() -> dict[str, Any]:
    return {
        "name": "20261124-1200-tiny-text_char-book-x1234567",
        "overrides": [],
        "data": "book",
        "device": "cpu, 32-true, 2 threads",
        "batch": {"size": 64, "accumulation": 8, "measured": 4, "block_size": 64},
        "step_s": 2.0,
        "tokens_per_s": 2048.0,
        "mfu": 0.034,
        "parts": [{"name": name, "median_s": share, "mean_s": 2 * share, "share": share} for name, share in SHARES.items()],
        "callbacks": {"Samples": 0.01, "Checkpoint": 0.001},
        "occasions": {"validation": {"times": 2, "seconds": 3.25}},
        "measuring": 0.004,
        "steps": {"measured_s": [2.0, 2.1], "plain_s": [2.0, 2.0], "parts": []},
        "start": {"import torch": 1.5, "token store": 40.0, "first batch": 0.0001},
        "verdict": ["loader-bound: 62 % of the step waits for data; set data.workers=4.", "the start took 42 s, 96 % of it: token store."],
    }


def test_the_text_has_every_part_and_ends_with_the_verdict(facts: dict[str, Any]) -> None:
    lines = text(facts).splitlines()
    assert lines[-2:] == facts["verdict"]
    assert "measured: 2 steps of 64 sequences = 8 micro-batches, estimated from 4 of them" in lines
    (data,) = [line for line in lines if line.startswith(STEP_PARTS["data"])]
    assert data.split()[-4:] == ["620.00", "1,240.00", "62.0", "%"]
    assert any(line.startswith("a validation takes 3.25 s (2 seen)") for line in lines)
    assert "measuring costs 0.4 %" in lines[0] and "2,000 ms" in lines[0]
    assert not any("first batch" in line for line in lines)  # a phase of nothing


def test_measuring_that_cannot_be_told_from_noise_is_said_so(facts: dict[str, Any]) -> None:
    assert "less than the noise" in text(facts | {"measuring": -0.02})


def test_the_picture_is_the_same_bytes_from_the_same_numbers(facts: dict[str, Any], tmp_path: Path) -> None:
    first = draw(facts, tmp_path / "a")
    assert [file.name for file in first] == ["profile.png", "profile.svg", "profile.json"]
    assert json.loads(first[2].read_text()) == facts
    occupied = []
    for n in range(8):  # the solver of the layout sums in the order of memory addresses: other memory, other last digits
        occupied.append([bytearray(37 * k % 4999 + 16) for k in range(97 * (n + 1))])
        assert [file.read_bytes() for file in first] == [file.read_bytes() for file in draw(facts, tmp_path / str(n))]
