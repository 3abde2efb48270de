"""The small picture of a run: an SVG of its own curves, whatever the rows hold."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree
from array import array

import pytest

from gptshake.record.metrics import DRAWN, Columns
from gptshake.report.loss_svg import HEIGHT, WIDTH, loss_svg

ENTROPY = {"data": {"entropy": {"uniform": 4.0, "unigram": 3.0, "bigram": 2.98}}}


def columns(losses: list[float]) -> Columns:
    rows: list[dict[str, float]] = [
        {"step": n, "train/tokens": 100.0 * n, "train/loss": loss, "train/lr": 1e-3, **({"val/loss": loss + 0.1} if n % 5 == 0 else {})}
        for n, loss in enumerate(losses, 1)
    ]
    return {name: array("d", [row.get(name, math.nan) for row in rows]) for name in DRAWN}


def texts(svg: str) -> list[str]:
    return [str(node.text) for node in ElementTree.fromstring(svg).iter() if node.tag.endswith("text")]


@pytest.mark.parametrize(
    "losses",
    [[3.0], [3.0, 3.0], [4 - 0.001 * n for n in range(3000)], [3.0, math.inf, 1e30, 1e308, 1e308, 2.0], [1e-9, 2e-9], [0.0], [-1.0, 5.0]],
)
def test_every_run_with_a_finite_loss_has_a_picture_inside_its_frame(losses: list[float]) -> None:
    svg = loss_svg(ENTROPY, columns(losses))
    assert svg is not None and {"train", "unigram 3.00", "learning rate"} <= set(texts(svg)) and "nan" not in svg
    points = [float(number) for found in re.findall(r'points="([^"]*)"', svg) for number in re.split("[ ,]", found)]
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in zip(points[::2], points[1::2], strict=True)) and len(svg) < 40_000


def test_a_run_without_a_finite_loss_has_none() -> None:
    assert loss_svg({}, columns([])) is None and loss_svg({}, columns([math.nan])) is None


def test_labels_of_close_lines_do_not_lie_over_each_other() -> None:
    svg = loss_svg(ENTROPY, columns([4.0, 3.5, 3.2]))
    heights = sorted(float(y) for y, text in re.findall(r'y="([\d.]+)"[^>]*>([^<]+)<', svg or "") if re.match("ln V|unigram|bigram", text))
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 13
