"""The map of two axes of numbers: the objective as colour and in figures, the best marked."""

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from gptshake.report.frame import INK, VERMILION, caption, heading
from gptshake.report.plots_study import HALO, draw_scale, subtitle, title
from gptshake.report.study_stats import Rows, along, best, cost, digits, minimizes, scales, view

LARGE, SMALL = 34.0, 11.0  # diameters of the circles, in points; figures fit into the large ones


def map_figure(study: Rows) -> Figure | None:
    """Trials over the first two axes of numbers; None with fewer axes."""
    found = scales(study)[:2]
    trials = sorted(along(study, *found), key=lambda trial: -cost(study, trial["value"]))  # the best on top
    if len(found) < 2 or not trials:
        return None
    figure = Figure(figsize=(8, 4.8))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.085, right=0.97, top=0.80, bottom=0.12)
    heading(figure, title(study), subtitle(study))
    places = [(float(trial["params"][found[0].key]), float(trial["params"][found[1].key])) for trial in trials]
    draw_scale(axes, "x", found[0], [x for x, _ in places])
    draw_scale(axes, "y", found[1], [y for _, y in places], margin=0.14)
    crowded = _crowded(axes, places)
    _draw_circles(axes, study, trials, places, crowded)
    caption(axes, f"{found[1].key.lstrip('+')} upwards, {study['objective']} {'as colour' if crowded else 'in the circles'}")
    axes.set_xlabel(found[0].key.lstrip("+"))
    return figure


def _crowded(axes: Axes, places: Sequence[tuple[float, float]]) -> bool:
    """Whether two large circles would overlap; a place that was tried twice is one circle."""
    points = [tuple(point * 72 / axes.figure.dpi) for point in axes.transData.transform(sorted(set(places)))]
    return any(math.dist(one, other) < LARGE for n, one in enumerate(points) for other in points[:n])


def _draw_circles(axes: Axes, study: Rows, trials: list[Rows], places: Sequence[tuple[float, float]], crowded: bool) -> None:
    values = [trial["value"] for trial in trials]
    low, high = view(study, values)
    norm = Normalize(low, high if high > low else low + 1)
    palette = matplotlib.colormaps["viridis_r" if minimizes(study) else "viridis"]
    colours = ListedColormap([palette(0.06 + 0.86 * n / 255) for n in range(256)])  # without the ends: figures stay readable
    diameter = SMALL if crowded else LARGE
    axes.scatter(
        [x for x, _ in places], [y for _, y in places], s=diameter**2, c=values, cmap=colours, norm=norm, edgecolors="white", zorder=2
    )
    if crowded:
        axes.figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02, fraction=0.04, aspect=30)
    else:
        _write_values(axes, study, values, places, norm)
    _ring_best(axes, study, diameter)


def _write_values(axes: Axes, study: Rows, values: Sequence[float], places: Sequence[tuple[float, float]], norm: Normalize) -> None:
    decimals = 3 if max(values) - min(values) < 0.2 else 2
    for value, place in zip(values, places, strict=True):
        dark = (norm(value) > 0.5) == minimizes(study)
        text = f"{value:.{decimals}f}" if 0.1 <= abs(value) < 100 else f"{value:.3g}"
        axes.annotate(text, place, ha="center", va="center", size=8, color="white" if dark else INK, zorder=3)


def _ring_best(axes: Axes, study: Rows, diameter: float) -> None:
    winner = best(study)
    keys = [scale.key for scale in scales(study)[:2]]
    if winner is None or not set(keys) <= winner.trial["params"].keys():
        return
    place = (winner.trial["params"][keys[0]], winner.trial["params"][keys[1]])
    axes.scatter([place[0]], [place[1]], s=(diameter + 6) ** 2, facecolors="none", edgecolors=VERMILION, linewidths=2.2, zorder=4)
    text = f"best {digits(winner.value)}" if diameter < LARGE else "best"
    look: dict[str, Any] = {"color": VERMILION, "weight": "bold", "size": 9, "ha": "center", "zorder": 5}
    axes.annotate(text, place, xytext=(0, diameter / 2 + 5), textcoords="offset points", path_effects=HALO, **look)
