"""Small plots without matplotlib: the objective of a study drawn in characters, for people behind ssh, and a run's curves as an SVG.

The SVG is for the journal and a run's page, which show many: matplotlib takes a tenth of a second for each, and draws
``plots/loss.svg``, the large one. Its characters are the reader's own sans-serif font.
"""

import math
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from gptshake.estimate.formatting import short_count, short_rate
from gptshake.record.metrics import Columns
from gptshake.report.series import BLUE, GREEN, GREY, INK, LINE, REFERENCES, VERMILION, Floats, column, smooth, spread, thin
from gptshake.report.study_stats import Json, axis_curves, best, incomplete, near_optimal, param_text, scales, value_limits

ASCII_WIDTH, ASCII_HEIGHT = 60, 13  # of the drawing, in characters, without its labels
WIDTH, HEIGHT = 800, 360
LEFT, RIGHT = 60, 690  # of both panels
INTERVALS = 200  # a curve has the lowest and the highest point of each


def ascii_plot(study: Json) -> str:
    """The objective along the first axis of numbers, drawn in characters; empty with fewer than three finished values."""
    scale = next(iter(scales(study)), None)
    found = axis_curves(study, scale) if scale else []
    tried = sorted({float(value) for _, points in found for value, _, _ in points})
    if scale is None or len(tried) < 3:
        return ""
    lost = [trial["params"][scale.key] for trial in incomplete(study)]
    limits = scale.at(min(*tried, *lost)), scale.at(max(*tried, *lost))
    bottom, top = value_limits(study, [value for _, points in found for _, value, _ in points])
    winner, characters = best(study), "o" if len(found) == 1 else "abcdefgh"
    drawn, last = [("x", scale.at(value), top) for value in lost], list[tuple[str, float, float]]()
    for character, (_, points) in zip(characters, found, strict=False):
        for x, value, trial in points:
            is_best = winner is not None and trial["number"] == winner.trial["number"]
            (last if is_best else drawn).append(("*" if is_best else character, scale.at(x), value))
    lines = [study["objective"], *_drawing([*drawn, *last], limits, (bottom, top))]
    rule, ticks, interval = ["-"] * ASCII_WIDTH, [" "] * (ASCII_WIDTH + 8), near_optimal(study, scale)
    if interval:
        low, high = (_cell(scale.at(end), limits, ASCII_WIDTH) for end in (interval.low, interval.high))
        rule[low : high + 1] = "=" * (high + 1 - low)
    shown = sorted({float(f"{value:.0e}") for value in tried}) if scale.log and len(tried) > 12 else tried
    for value in [shown[0], shown[-1], *shown[1:-1]]:  # the ends first: crowded ones give way
        text, at = param_text(value), _cell(scale.at(value), limits, ASCII_WIDTH)
        start = max(0, at - len(text) // 2)
        if not "".join(ticks[max(0, start - 1) : start + len(text) + 1]).strip():
            ticks[start : start + len(text)] = text
            rule[at] = "+" if rule[at] == "-" else rule[at]
    lines += [f"{'':>9} +{''.join(rule)}", f"{'':>11}{''.join(ticks).rstrip()}  {scale.key.lstrip('+')}"]
    legend = ["* best", *(f"{character} {name}" for character, (name, _) in zip(characters, found, strict=False) if name)]
    signs = {"^ above the plot": any("^" in line for line in lines), "x pruned or diverged": lost, "= where the best lies": interval}
    unbroken = "   ".join(part.replace(" ", "\0") for part in [*legend, *(sign for sign, shown in signs.items() if shown)])
    wrapped = textwrap.fill(unbroken, ASCII_WIDTH + 11, initial_indent=" " * 11, subsequent_indent=" " * 11)
    return "\n".join([*lines, wrapped.replace("\0", " ")])  # lines break between parts only


def ascii_curves(curves: Mapping[str, tuple[Floats, Floats]], width: int, height: int) -> list[str]:
    """Curves over tokens, each of its own character, as lines; above the largest value after the first seventh of each stands ``^``."""
    found = {sign: thin(*curve, intervals=width) for sign, curve in curves.items() if len(curve[0])}
    if not found:
        return []
    end = max(tokens[-1] for tokens, _ in found.values())
    low = min(values.min() for _, values in found.values())
    high = max(values[len(values) // 7 :].max() for _, values in found.values())
    points = [(sign, *point) for sign, curve in found.items() for point in zip(*curve, strict=True)]
    scale = f"{'':>11}0{f'{short_count(end)} tokens':>{width - 1}}"
    return [*_drawing(points, (0.0, end), (low, high), width, height), f"{'':>9} +{'-' * width}", scale]


def _drawing(
    marks: Iterable[tuple[str, float, float]],
    x: tuple[float, float],
    y: tuple[float, float],
    width: int = ASCII_WIDTH,
    height: int = ASCII_HEIGHT,
) -> list[str]:
    """Marks (character, x, y) within limits as lines, the values of three of them at the left; a later mark covers an earlier one."""
    grid, (bottom, top) = [[" "] * width for _ in range(height)], y
    for character, place, value in marks:
        above = math.floor((value - bottom) / (top - bottom or 1) * (height - 1) + 0.5)
        grid[height - 1 - min(height - 1, max(0, above))][_cell(place, x, width)] = "^" if above >= height else character
    named = {row: top + (bottom - top) * row / (height - 1) for row in (0, height // 2, height - 1)}
    texts = {row: f"{value:.3f}" if value == 0 or 0.1 <= abs(value) < 1e5 else f"{value:.3g}" for row, value in named.items()}
    return [f"{texts.get(n, ''):>9} |{''.join(row).rstrip()}" for n, row in enumerate(grid)]


def _cell(value: float, limits: tuple[float, float], cells: int) -> int:
    low, high = limits
    return min(cells - 1, max(0, round((value - low) / (high - low or 1) * (cells - 1))))


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
