"""The picture of a reproduction: both runs' losses over tokens, and below how far they are apart.

The first run is drawn broad and pale, the second thin and dark on top of it, so that equal curves look like one line with an
edge and different ones like two.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gptshake.estimate.formatting import counted, short_count
from gptshake.record.metrics import Row
from gptshake.record.names import title_of
from gptshake.report.compare import COLUMNS, Comparison
from gptshake.report.frame import DASHED, caption, frame, label, legend_above, look, save, token_axis
from gptshake.report.series import BLUE, GREEN, GREY, INK, VERMILION, Floats, thin

SMALLEST = 1e-16  # half the distance between neighbouring doubles at 1
COLOURS = dict(zip(COLUMNS, (BLUE, VERMILION), strict=True))


def plot(
    info: Mapping[str, Any], then: Sequence[Row], now: Sequence[Row], found: Comparison, folder: Path, *, tolerance: float
) -> list[Path]:
    """Draw ``reproduction.png`` and ``.svg`` of a run's rows and those of its reproduction into a folder; returns their paths."""
    worst = found.largest
    deviation = f"largest deviation {worst.relative:.1e} at step {worst.step:,}" if worst else "nothing to compare"
    length = f"{counted(found.steps, 'step')}, {short_count(then[-1]['train/tokens'])} tokens"
    subtitle = f"{'bit-identical' if found.identical else deviation}  ·  {length}  ·  {info['id']} and its reproduction"
    with look():
        figure, (upper, lower) = frame(title_of(info), subtitle, 5, 2, sharex=True, height_ratios=(3, 1.3))
        for column, name in zip(COLUMNS, ("train", "val"), strict=True):
            for rows, which, alpha, width in ((then, "the run", 0.28, 5.0), (now, "again", 1.0, 1.2)):
                line = _thinned((row["train/tokens"], row[column]) for row in rows if math.isfinite(row.get(column, math.nan)))
                upper.plot(*line, color=COLOURS[column], label=f"{name}, {which}", alpha=alpha, linewidth=width)
        caption(upper, "loss, nats per token")
        legend_above(upper, fontsize=10)
        _draw_difference(lower, then, found, tolerance)
        return save(figure, folder, "reproduction")


def _draw_difference(axes: Axes, then: Sequence[Row], found: Comparison, tolerance: float) -> None:
    caption(axes, "relative deviation of each loss")
    token_axis(axes)
    tokens = {row["step"]: row["train/tokens"] for row in then}
    finite = [one._replace(relative=max(one.relative, SMALLEST)) for one in found.deviations if math.isfinite(one.relative)]
    if not finite:
        axes.axhline(0, color=GREEN, linewidth=1.6)
        axes.set_ylim(-1, 1)
        axes.set_yticks([0], ["0"])
        if found.identical:
            axes.text(0.5, 0.72, "every value is the same, bit for bit", transform=axes.transAxes, ha="center", size=9.5, color=INK)
        return
    for column, size in zip(COLUMNS, (2.0, 5.0), strict=True):
        points = _thinned((tokens[one.step], one.relative) for one in finite if one.column == column)
        axes.plot(*points, "o", color=COLOURS[column], markersize=size, markeredgewidth=0)
    axes.set_yscale("log")
    axes.axhline(tolerance or SMALLEST, color=GREY, linewidth=1.0, linestyle=DASHED)
    relative = [one.relative for one in finite]
    axes.set_ylim(min(relative) / 4, max(tolerance, *relative) * 12)
    label(axes, f"tolerance {tolerance:g}", (1.0, tolerance or SMALLEST), (-2, 3), "x", color=GREY, size=8.5, ha="right", in_layout=False)


def _thinned(points: Iterable[tuple[float, float]]) -> tuple[Floats, Floats]:
    both = np.array(list(points), dtype=np.float64).reshape(-1, 2)
    return thin(both[:, 0], both[:, 1])
