import math
from pathlib import Path

import pytest

from gptshake.record.metrics import Row
from gptshake.report.plots_run import reproduction_plot
from gptshake.report.reproduction import compare

INFO = {"id": "x3k9a2pq", "name": "20261124-0031-tiny-wiki_char-excerpt106-lr3e-4-x3k9a2pq"}


def rows(n: int, *, off: float = 0.0) -> list[Row]:
    losses = [1 + 3 / math.sqrt(step) for step in range(1, n + 1)]
    return [
        {"step": step, "train/tokens": 64 * step, "train/loss": loss * (1 + off * (step > 2))}
        | ({"val/loss": loss} if step % 5 == 0 else {})
        for step, loss in enumerate(losses, 1)
    ]


@pytest.mark.parametrize(
    ("then", "now"),
    [
        (rows(20), rows(20)),
        (rows(20), rows(20, off=1e-6)),
        (rows(1), rows(1)),
        (rows(3), rows(1)),
        ([*rows(2), {"step": 3, "train/tokens": 192, "train/loss": math.nan}], rows(3)),
    ],
    ids=["equal", "different", "one step", "not as far", "not finite"],
)
def test_a_picture_for_every_outcome(then: list[Row], now: list[Row], tmp_path: Path) -> None:
    for tolerance in (0.0, 0.01):
        files = reproduction_plot(INFO, then, now, compare(then, now), tmp_path, tolerance=tolerance)
        assert [file.name for file in files] == ["reproduction.png", "reproduction.svg"] and all(
            file.stat().st_size > 5000 for file in files
        )


def test_a_long_run_gives_a_small_picture(tmp_path: Path) -> None:
    then, now = rows(10_000), rows(10_000, off=1e-5)
    _, svg = reproduction_plot(INFO, then, now, compare(then, now), tmp_path, tolerance=0.01)
    assert svg.stat().st_size < 500_000
