"""The basin drawn in letters, for people behind ssh: values upwards, the first axis of numbers to the right."""

import math
import textwrap

from gptshake.report.study_stats import Curve, Rows, Scale, basin_of, best, curves, lost, round_values, scales, short, view

WIDTH, HEIGHT = 60, 13  # of the drawing, in letters, without its labels


def basin_text(study: Rows) -> str:
    """The objective along the first axis of numbers, drawn in letters; empty with fewer than three finished values."""
    scale = next(iter(scales(study)), None)
    lines = curves(study, scale) if scale else []
    if scale is None or len({value for curve in lines for value, _, _ in curve.points}) < 3:
        return ""
    return "\n".join(_Drawing(study, scale, lines).lines())


class _Drawing:
    """A grid of letters: values upwards, the axis to the right."""

    def __init__(self, study: Rows, scale: Scale, found: list[Curve]) -> None:
        self.study, self.scale, self.curves = study, scale, found
        self.lost, self.basin = lost(study, scale), basin_of(study, scale)
        places = [scale.at(value) for curve in found for value, _, _ in curve.points]
        places += [scale.at(trial["params"][scale.key]) for trial in self.lost]
        self.left, self.right = min(places), max(places)
        values = [value for curve in found for _, value, _ in curve.points]
        self.bottom, self.top = view(study, values)

    def lines(self) -> list[str]:
        """Title, grid, axis, its labels, and what the letters mean."""
        grid = [[" "] * WIDTH for _ in range(HEIGHT)]
        for trial in self.lost:
            grid[0][self._column(trial["params"][self.scale.key])] = "x"
        winner = best(self.study)
        number = winner.trial["number"] if winner else None
        marks = [
            ("*" if trial["number"] == number else letter, value, x)
            for letter, curve in zip(self._letters(), self.curves, strict=True)
            for x, value, trial in curve.points
        ]
        for mark, value, x in sorted(marks, key=lambda mark: mark[0] == "*"):  # the best last, above its neighbours
            grid[self._row(value)][self._column(x)] = mark
        return [self.study["objective"], *self._body(grid), *self._axis(), *self._legend()]

    def _body(self, grid: list[list[str]]) -> list[str]:
        labelled = {0: self.top, HEIGHT // 2: (self.top + self.bottom) / 2, HEIGHT - 1: self.bottom}
        return [f"{_label(labelled[n]) if n in labelled else '':>9} |{''.join(row).rstrip()}" for n, row in enumerate(grid)]

    def _axis(self) -> list[str]:
        line = ["-"] * WIDTH
        if self.basin:
            low, high = self._column(self.basin.low), self._column(self.basin.high)
            line[low : high + 1] = "=" * (high + 1 - low)
        labels = [" "] * (WIDTH + 8)
        for value in self._ticks():
            text, column = short(value), self._column(value)
            start = max(0, column - len(text) // 2)
            if all(letter == " " for letter in labels[max(0, start - 1) : start + len(text) + 1]):
                labels[start : start + len(text)] = text
                line[column] = "+" if line[column] == "-" else line[column]
        return [f"{'':>9} +{''.join(line)}", f"{'':>11}{''.join(labels).rstrip()}  {self.scale.key.lstrip('+')}"]

    def _legend(self) -> list[str]:
        parts = ["* best"]
        parts += [f"{letter} {curve.label}" for letter, curve in zip(self._letters(), self.curves, strict=True) if curve.label]
        parts += ["x pruned or diverged"] if self.lost else []
        parts += ["= where the best lies"] if self.basin else []
        bound = [part.replace(" ", "\0") for part in parts]  # lines break between parts only
        lines = textwrap.wrap("   ".join(bound), WIDTH + 11, initial_indent=" " * 11, subsequent_indent=" " * 11)
        return [line.replace("\0", " ") for line in lines]

    def _letters(self) -> str:
        return "o" if len(self.curves) == 1 else "abcdefgh"[: len(self.curves)]

    def _ticks(self) -> list[float]:
        """Values to name: those that were tried, round ones if they are many; the ends first, so that crowded ones give way."""
        tried = sorted({float(value) for curve in self.curves for value, _, _ in curve.points})
        if self.scale.log and len(tried) > 12:
            return [value for value in round_values(tried) if tried[0] <= value <= tried[-1]]
        return [tried[0], tried[-1], *tried[1:-1]]

    def _column(self, value: float) -> int:
        share = (self.scale.at(value) - self.left) / (self.right - self.left or 1)
        return min(WIDTH - 1, max(0, round(share * (WIDTH - 1))))

    def _row(self, value: float) -> int:
        share = (value - self.bottom) / (self.top - self.bottom or 1)
        return HEIGHT - 1 - min(HEIGHT - 1, max(0, math.floor(share * (HEIGHT - 1) + 0.5)))


def _label(value: float) -> str:
    return f"{value:.3f}" if value == 0 or 0.1 <= abs(value) < 1e5 else f"{value:.3g}"
