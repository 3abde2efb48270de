"""Progress that reads well in a log file: whole lines, steps, loss, rate, speed, time left; it moves with every micro-batch."""

import re
from typing import Any

import pytest

from gptshake.training.callbacks.progress import Progress


def lines(training: Any, capsys: pytest.CaptureFixture[str], **options: Any) -> list[str]:
    training(**options).fit(Progress(every_s=0.0))
    return [line for line in capsys.readouterr().out.splitlines() if line.startswith("step")]


def test_lines_in_a_log_are_whole_and_without_control_characters(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(training, capsys, steps=4, interval=2)
    assert len(shown) == 4 + 2
    pattern = r"step +1 of 4 \| +25\.0 % \| loss \d\.\d{4} \| lr \d\.\d\de-\d\d \| [\d,]+ tokens/s \| left .+"
    assert re.fullmatch(pattern, shown[0]), shown[0]
    assert "val loss 2.5000 | 2.500 bpb" in shown[2]
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", "".join(shown))


def test_every_micro_batch_moves_it(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shown = lines(training, capsys, steps=2, micro=2, interval=50)
    percents = [float(re.search(r"([\d.]+) %", line)[1]) for line in shown if "%" in line]  # type: ignore[index]
    assert percents[:5] == [12.5, 25.0, 37.5, 50.0, 62.5]
    assert "first step" in shown[0]


def test_between_two_lines_is_the_time_that_was_asked_for(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    training(steps=30, interval=1000).fit(Progress(every_s=60.0))
    assert len([line for line in capsys.readouterr().out.splitlines() if "%" in line]) == 0
