"""Plots drawn in characters, for people behind ssh: the objective of a study, and curves over tokens."""

import math
import textwrap
from collections.abc import Iterable, Mapping

from gptshake.estimate.formatting import short_count
from gptshake.report.series import Floats, thin
from gptshake.report.study_stats import Json, axis_curves, best, incomplete, near_optimal, param_text, scales, value_limits

ASCII_WIDTH, ASCII_HEIGHT = 60, 13  # of the drawing, in characters, without its labels


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
