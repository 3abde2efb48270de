"""Small plots without matplotlib: the objective of a study drawn in letters, for people behind ssh, and a run's curves as an SVG.

The SVG is for the journal and a run's page, which show many: matplotlib takes a tenth of a second for each, and draws
``plots/loss.svg``, the large one. Its letters are the reader's own sans-serif font.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from gptshake.estimate.formatting import short_count, short_rate
from gptshake.record.metrics import Columns
from gptshake.report.series import BLUE, GREEN, GREY, INK, LINE, REFERENCES, VERMILION, Floats, column, smooth, spread, thin
from gptshake.report.study_stats import Rows, best, curves, incomplete, near_optimal, round_values, scales, short, value_limits

ASCII_WIDTH, ASCII_HEIGHT = 60, 13  # of the drawing, in letters, without its labels
WIDTH, HEIGHT = 800, 360
LEFT, RIGHT = 60, 690  # of both panels
LOSS, RATE = (34, 246), (282, 330)  # top and bottom of each
INTERVALS = 200  # a curve has the lowest and the highest point of each


def ascii_plot(study: Rows) -> str:
    """The objective along the first axis of numbers, drawn in letters; empty with fewer than three finished values."""
    scale = next(iter(scales(study)), None)
    found = curves(study, scale) if scale else []
    tried = sorted({float(value) for curve in found for value, _, _ in curve.points})
    if scale is None or len(tried) < 3:
        return ""
    ended_early = [trial["params"][scale.key] for trial in incomplete(study, scale)]
    left, right = (end([scale.at(value) for value in [*tried, *ended_early]]) for end in (min, max))
    bottom, top = value_limits(study, [value for curve in found for _, value, _ in curve.points])

    def column_of(value: float) -> int:
        share = (scale.at(value) - left) / (right - left or 1)
        return min(ASCII_WIDTH - 1, max(0, round(share * (ASCII_WIDTH - 1))))

    grid = [[" "] * ASCII_WIDTH for _ in range(ASCII_HEIGHT)]
    for value in ended_early:
        grid[0][column_of(value)] = "x"
    winner = best(study)
    number, letters = winner.trial["number"] if winner else None, "o" if len(found) == 1 else "abcdefgh"
    points = [(letter, *point) for letter, curve in zip(letters, found, strict=False) for point in curve.points]
    for letter, x, value, trial in sorted(points, key=lambda point: point[3]["number"] == number):  # the best above its neighbours
        row = math.floor((value - bottom) / (top - bottom or 1) * (ASCII_HEIGHT - 1) + 0.5)
        mark = "^" if row >= ASCII_HEIGHT else "*" if trial["number"] == number else letter
        grid[ASCII_HEIGHT - 1 - min(ASCII_HEIGHT - 1, max(0, row))][column_of(x)] = mark
    named = {0: _value(top), ASCII_HEIGHT // 2: _value((top + bottom) / 2), ASCII_HEIGHT - 1: _value(bottom)}
    lines = [study["objective"], *(f"{named.get(n, ''):>9} |{''.join(row).rstrip()}" for n, row in enumerate(grid))]
    rule, labels, interval = ["-"] * ASCII_WIDTH, [" "] * (ASCII_WIDTH + 8), near_optimal(study, scale)
    if interval:
        low, high = column_of(interval.low), column_of(interval.high)
        rule[low : high + 1] = "=" * (high + 1 - low)
    many = scale.log and len(tried) > 12
    for value in round_values(tried) if many else [tried[0], tried[-1], *tried[1:-1]]:  # the ends first: crowded ones give way
        text, at = short(value), column_of(value)
        start = max(0, at - len(text) // 2)
        if tried[0] <= value <= tried[-1] and all(letter == " " for letter in labels[max(0, start - 1) : start + len(text) + 1]):
            labels[start : start + len(text)] = text
            rule[at] = "+" if rule[at] == "-" else rule[at]
    lines += [f"{'':>9} +{''.join(rule)}", f"{'':>11}{''.join(labels).rstrip()}  {scale.key.lstrip('+')}"]
    legend = ["* best", *(f"{letter} {curve.label}" for letter, curve in zip(letters, found, strict=False) if curve.label)]
    legend += (
        ["^ above the plot"] * any("^" in row for row in grid)
        + ["x pruned or diverged"] * bool(ended_early)
        + ["= where the best lies"] * bool(interval)
    )
    unbroken = "   ".join(part.replace(" ", "\0") for part in legend)  # lines break between parts only
    wrapped = textwrap.wrap(unbroken, ASCII_WIDTH + 11, initial_indent=" " * 11, subsequent_indent=" " * 11)
    return "\n".join([*lines, *(line.replace("\0", " ") for line in wrapped)])


def _value(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 0.1 <= abs(value) < 1e5 else f"{value:.3g}"


def loss_svg(info: Mapping[str, Any], columns: Columns) -> str | None:
    """A run's loss with its reference lines above, learning rate below; None for a run without a finite training loss.

    Args:
        info: the run's run.json; ``data.entropy`` (nats) gives the reference lines.
        columns: of metrics.csv, ``DRAWN``.
    """
    train, val, rate = (column(columns, name) for name in ("train/loss", "val/loss", "train/lr"))
    if not len(train[0]):
        return None
    end = max(1.0, float(train[0][-1]))
    entropy = (info.get("data") or {}).get("entropy") or {}
    known = sorted(((float(entropy[key]), name) for key, name in REFERENCES if entropy.get(key) is not None), reverse=True)
    loss = _Panel(*LOSS, end, *_limits(train[1], val[1], [value for value, _ in known]))
    peak = float(rate[1].max()) if len(rate[0]) else 0.0
    below = _Panel(*RATE, end, 0.0, 1.15 * peak or 1.0)
    heights = spread([-loss.y(value) for value, _ in known], gap=14)  # no label over another
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, LOSS[0] - 12, "loss, nats per token", GREY),
        *_legend("train", BLUE, RIGHT - 130),
        *(_legend("val", VERMILION, RIGHT - 50) if len(val[0]) else []),
        *(part for value in _ticks(loss.low, loss.high) for part in loss.tick(value, f"{value:g}")),
        *(_rule(loss.y(value), GREY, 'stroke-dasharray="6 4"') for value, _ in known),
        *(_text(RIGHT + 8, 4 - y, f"{name} {value:.2f}", GREY) for (value, name), y in zip(known, heights, strict=True)),
        loss.line(*thin(*train, INTERVALS), BLUE, 'stroke-width="0.9" stroke-opacity="0.25"'),
        loss.line(*thin(train[0], smooth(train[1]), INTERVALS), BLUE),
        loss.line(*thin(*val, INTERVALS), VERMILION),
        *(loss.dots(*val, VERMILION) if len(val[0]) <= 40 else []),
        _text(LEFT, RATE[0] - 12, "learning rate", GREY),
        *below.tick(0.0, "0"),
        *(below.tick(peak, short_rate(peak)) if peak else []),
        below.line(*thin(*rate, INTERVALS), GREEN),
        *(_text(below.x(value), HEIGHT - 12, short_count(value), anchor="middle") for value in _ticks(0.0, end)),
        "</svg>\n",
    ]
    return "\n".join(filter(None, parts))


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

    def line(self, tokens: Floats, values: Floats, colour: str, look: str = 'stroke-width="1.9"') -> str:
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in zip(tokens, values, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-linejoin="round" {look}/>' if points else ""

    def dots(self, tokens: Floats, values: Floats, colour: str) -> list[str]:
        look = f'r="3.2" fill="{colour}" stroke="white" stroke-width="0.8"'
        return [f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" {look}/>' for x, y in zip(tokens, values, strict=True)]

    def tick(self, value: float, text: str) -> list[str]:
        return [_rule(self.y(value), LINE), _text(LEFT - 8, self.y(value) + 4, text, anchor="end")]


def _rule(y: float, colour: str, look: str = "") -> str:
    return f'<line x1="{LEFT}" x2="{RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}" {look}/>'


def _text(x: float, y: float, text: str, colour: str = INK, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" text-anchor="{anchor}">{escape(text)}</text>'


def _legend(name: str, colour: str, x: int) -> list[str]:
    y = LOSS[0] - 16
    return [f'<line x1="{x}" x2="{x + 18}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="1.9"/>', _text(x + 24, y + 4, name)]


def _limits(train: Floats, val: Floats, references: Sequence[float]) -> tuple[float, float]:
    """From below the lowest smoothed loss to the first losses, and around the reference lines."""
    lowest, top = min([float(smooth(train).min()), *map(float, val)]), max([float(train.max()), *map(float, val)])
    values = [lowest - 0.08 * (top - lowest), top, *references]
    room = 0.04 * (max(values) - min(values)) or 0.1
    return min(values) - room, max(values) + room


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round values between two ends."""
    step = 10.0 ** math.floor(math.log10((high - low) / 3))
    step *= max(factor for factor in (1, 2, 5) if factor * step <= (high - low) / 3)
    return [float(value) for value in np.round(np.arange(math.ceil(low / step), math.floor(high / step) + 1) * step, 10)]
