"""A run's curves as a small SVG that is written here, letter by letter: loss with its reference lines above, learning rate below.

For the journal and a run's page, which show many: matplotlib takes a tenth of a second for each, and draws ``plots/loss.svg``, the large
one (``curves.py``). Letters are the reader's own sans-serif font.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from gptshake.estimate.words import short_count, short_rate
from gptshake.record.metrics import Columns
from gptshake.report.series import BLUE, GREEN, GREY, INK, LINE, REFERENCES, VERMILION, Floats, column, smooth, spread, thin

WIDTH, HEIGHT = 800, 360
LEFT, RIGHT = 60, 690  # of both panels
LOSS, RATE = (34, 246), (282, 330)  # top and bottom of each
INTERVALS = 200  # a curve has the lowest and the highest point of each


def sketch(info: Mapping[str, Any], columns: Columns) -> str | None:
    """The picture; None for a run without a finite training loss.

    Args:
        info: the run's run.json; ``data.entropy`` (nats) gives the reference lines.
        columns: of metrics.csv, ``DRAWN``.
    """
    train, val, rate = (column(columns, name) for name in ("train/loss", "val/loss", "train/lr"))
    if not len(train[0]):
        return None
    end = max(1.0, float(train[0][-1]))
    entropy = (info.get("data") or {}).get("entropy") or {}
    known = [(name, float(entropy[key])) for key, name in REFERENCES if entropy.get(key) is not None]
    loss = _Panel(*LOSS, end, *_limits(train[1], val[1], [value for _, value in known]))
    peak = float(rate[1].max()) if len(rate[0]) else 0.0
    below = _Panel(*RATE, end, 0.0, 1.15 * peak or 1.0)
    parts = [
        *_text(LEFT, LOSS[0] - 12, "loss, nats per token", GREY),
        *_legend(bool(len(val[0]))),
        *(part for value in _ticks(loss.low, loss.high) for part in loss.tick(value, f"{value:g}")),
        *(part for name, value, y in _labels(loss, known) for part in loss.reference(value, f"{name} {value:.2f}", y)),
        loss.line(*thin(*train, INTERVALS), BLUE, 'stroke-width="0.9" stroke-opacity="0.25"'),
        loss.line(*thin(train[0], smooth(train[1]), INTERVALS), BLUE),
        loss.line(*thin(*val, INTERVALS), VERMILION),
        *(loss.dots(*val, VERMILION) if len(val[0]) <= 40 else []),
        *_text(LEFT, RATE[0] - 12, "learning rate", GREY),
        *below.tick(0.0, "0"),
        *(below.tick(peak, short_rate(peak)) if peak else []),
        below.line(*thin(*rate, INTERVALS), GREEN),
        *(part for value in _ticks(0.0, end) for part in _text(below.x(value), HEIGHT - 12, short_count(value), anchor="middle")),
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">'
    return "\n".join([head, f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>', *filter(None, parts), "</svg>\n"])


class _Panel:
    """A rectangle of the picture with its scales."""

    def __init__(self, top: float, bottom: float, end: float, low: float, high: float) -> None:
        self.top, self.bottom, self.end, self.low, self.high = top, bottom, end, low, high

    def x(self, tokens: float) -> float:
        return LEFT + (RIGHT - LEFT) * tokens / self.end

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def line(self, tokens: Floats, values: Floats, colour: str, look: str = 'stroke-width="1.9"') -> str:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(tokens, values, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-linejoin="round" {look}/>' if points else ""

    def dots(self, tokens: Floats, values: Floats, colour: str) -> list[str]:
        look = f'r="3.2" fill="{colour}" stroke="white" stroke-width="0.8"'
        return [f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" {look}/>' for x, y in zip(tokens, values, strict=True)]

    def tick(self, value: float, text: str) -> list[str]:
        y = self.y(value)
        return [_rule(y, LINE), *_text(LEFT - 8, y + 4, text, anchor="end")]

    def reference(self, value: float, text: str, y: float) -> list[str]:
        return [_rule(self.y(value), GREY, 'stroke-dasharray="6 4"'), *_text(RIGHT + 8, y + 4, text, GREY)]


def _rule(y: float, colour: str, look: str = "") -> str:
    return f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" {look}/>'


def _text(x: float, y: float, text: str, colour: str = INK, anchor: str = "start") -> list[str]:
    return [f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>']


def _legend(validated: bool) -> list[str]:
    parts: list[str] = []
    for name, colour, x in (("train", BLUE, RIGHT - 130), ("val", VERMILION, RIGHT - 50)):
        if name == "train" or validated:
            line = f'<line x1="{x}" x2="{x + 18}" y1="{LOSS[0] - 16}" y2="{LOSS[0] - 16}" stroke="{colour}" stroke-width="1.9"/>'
            parts += [line, *_text(x + 24, LOSS[0] - 12, name)]
    return parts


def _limits(train: Floats, val: Floats, references: Sequence[float]) -> tuple[float, float]:
    """From below the lowest smoothed loss to the first losses, and around the reference lines."""
    lowest = min(float(smooth(train).min()), *map(float, val)) if len(val) else float(smooth(train).min())
    top = max(float(train.max()), *map(float, val)) if len(val) else float(train.max())
    values = [lowest - 0.08 * (top - lowest), top, *references]
    room = 0.04 * (max(values) - min(values)) or 0.1
    return min(values) - room, max(values) + room


def _labels(panel: _Panel, known: Sequence[tuple[str, float]]) -> list[tuple[str, float, float]]:
    """Name, value and height of each reference line's label, so that no two lie over each other."""
    ordered = sorted(known, key=lambda line: -line[1])
    heights = spread([-panel.y(value) for _, value in ordered], gap=14)
    return [(name, value, -height) for (name, value), height in zip(ordered, heights, strict=True)]


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round values between two ends."""
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= max(factor for factor in (1, 2, 5) if factor * step <= (high - low) / 3)
    return [float(value) for value in np.round(np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step, 10)]
