"""A run's curves as a small SVG without matplotlib, which takes a tenth of a second for each and draws ``plots/loss.svg``, the large one.

The journal and a run's page show many. Characters are of the reader's own sans-serif font.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from gptshake.estimate.formatting import short_count, short_rate
from gptshake.record.metrics import Columns
from gptshake.report.series import BLUE, GREEN, GREY, INK, LINE, REFERENCES, VERMILION, Floats, column, smooth, spread, thin

WIDTH, HEIGHT = 800, 360
LEFT, RIGHT = 60, 690  # of both panels
INTERVALS = 200  # a curve has the lowest and the highest point of each


@dataclass(frozen=True)
class _Panel:
    """A rectangle of the picture with its scales."""

    top: float
    bottom: float
    end: float  # in tokens
    low: float
    high: float

    def x(self, tokens: float) -> float:
        return LEFT + (RIGHT - LEFT) * tokens / self.end

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)

    def curve(self, points: tuple[Floats, Floats], colour: str, look: str = 'stroke-width="1.9"') -> str:
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(*points, strict=True))
        return f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-linejoin="round" {look}/>' if places else ""

    def tick(self, value: float, text: str) -> list[str]:
        return [_rule(self.y(value), LINE), _text(LEFT - 8, self.y(value) + 4, text, anchor="end")]


def loss_svg(info: Mapping[str, Any], columns: Columns) -> str | None:
    """A run's loss with its reference lines above, learning rate below, from run.json and metrics.csv; None without a finite training loss."""
    train, val, rate = (column(columns, name) for name in ("train/loss", "val/loss", "train/lr"))
    if not len(train[0]):
        return None
    end, smoothed = max(1.0, float(train[0][-1])), smooth(train[1])
    entropy = (info.get("data") or {}).get("entropy") or {}
    known = sorted(((float(entropy[key]), name) for key, name in REFERENCES if entropy.get(key) is not None), reverse=True)
    lowest, top = min([float(smoothed.min()), *map(float, val[1])]), max([float(train[1].max()), *map(float, val[1])])
    values = [lowest - 0.08 * (top - lowest), top, *(value for value, _ in known)]
    pad = 0.04 * (max(values) - min(values)) or 0.1
    peak = float(rate[1].max(initial=0))
    loss, below = _Panel(34, 246, end, min(values) - pad, max(values) + pad), _Panel(282, 330, end, 0.0, 1.15 * peak or 1.0)
    dots = list(zip(*val, strict=True)) if len(val[0]) <= 40 else []
    heights = spread([-loss.y(value) for value, _ in known], gap=14)  # no label over another
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 22, "loss, nats per token", GREY),
        _text(RIGHT - 60, 22, "train", BLUE, "end"),
        _text(RIGHT - 20, 22, "val" if len(val[0]) else "", VERMILION, "end"),
        *(part for value in _ticks(loss.low, loss.high) for part in loss.tick(value, f"{value:g}")),
        *(_rule(loss.y(value), GREY, 'stroke-dasharray="6 4"') for value, _ in known),
        *(_text(RIGHT + 8, 4 - y, f"{name} {value:.2f}", GREY) for (value, name), y in zip(known, heights, strict=True)),
        loss.curve(thin(*train, INTERVALS), BLUE, 'stroke-width="0.9" stroke-opacity="0.25"'),
        loss.curve(thin(train[0], smoothed, INTERVALS), BLUE),
        loss.curve(thin(*val, INTERVALS), VERMILION),
        *(f'<circle cx="{loss.x(x):.1f}" cy="{loss.y(y):.1f}" r="3" fill="{VERMILION}"/>' for x, y in dots),
        _text(LEFT, 270, "learning rate", GREY),
        *below.tick(0.0, "0"),
        *(below.tick(peak, short_rate(peak)) if peak else []),
        below.curve(thin(*rate, INTERVALS), GREEN),
        *(_text(loss.x(value), HEIGHT - 12, short_count(value), anchor="middle") for value in _ticks(0.0, end)),
        "</svg>\n",
    ]
    return "\n".join(filter(None, parts))


def _rule(y: float, colour: str, look: str = "") -> str:
    return f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" {look}/>'


def _text(x: float, y: float, text: str, colour: str = INK, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>' if text else ""


def _ticks(low: float, high: float) -> list[float]:
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= max(factor for factor in (1, 2, 5) if factor * step <= (high - low) / 3)
    return [float(value) for value in np.round(np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step, 10)]
