"""The basin: what a study found along its first axis of numbers, as a picture, and what the other pictures share with it."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gptshake.estimate.basin import fit
from gptshake.estimate.words import counted, short_count
from gptshake.report.frame import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, caption, heading
from gptshake.report.study_stats import (
    Curve,
    Rows,
    Scale,
    basin_of,
    best,
    best_curve,
    cost,
    curves,
    digits,
    finished,
    lost,
    params_text,
    round_values,
    run_values,
    scales,
    short,
    tokens_of,
    view,
)

COLOURS = (BLUE, ORANGE, "#CC79A7", "#56B4E9", GREEN, "#8B6F47", INK, GREY)  # VERMILION is the best
LETTER = 6.4  # points that a letter of a tick's label takes
HALO = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]  # around letters that cross lines


def basin_figure(study: Rows) -> Figure | None:
    """The objective along the first axis of numbers, one curve for each setting of the others; None without values."""
    scale = next(iter(scales(study)), None)
    found = curves(study, scale) if scale else []
    if scale is None or not found:
        return None
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.085, right=0.97, top=0.79, bottom=0.12)
    heading(figure, title(study), subtitle(study))
    caption(axes, study["objective"])
    ends = [trial["params"][scale.key] for trial in lost(study, scale)]
    draw_scale(axes, "x", scale, [*ends, *(value for curve in found for value, _, _ in curve.points)])
    winner = best(study)  # its mean over fresh seeds may lie apart from all curves
    limit(axes, study, [value for curve in found for _, value, _ in curve.points] + ([winner.value] if winner else []))
    _draw_sureness(axes, study, scale)
    labels = _labels([curve.label for curve in found])
    for colour, curve, label in zip(COLOURS, found, labels, strict=False):
        _draw_curve(axes, curve, colour, label, joined=len(found) > 1 or len(study["axes"]) == 1)
    _draw_lost(axes, study, scale)
    _draw_best(axes, study, scale)
    _draw_declared(axes, study, scale)
    axes.set_xlabel(scale.key.lstrip("+"))
    _draw_legend(axes)
    return figure


def _labels(labels: Sequence[str]) -> list[str]:
    """Of the curves: the axis' name once, ``batch_size 16``, ``32``, ``64``; several axes are named each time."""
    if any("," in label for label in labels):
        return list(labels)
    return [label if n == 0 else label.partition(" ")[2] for n, label in enumerate(labels)]


def _draw_legend(axes: Axes) -> None:
    """Above the picture where it fits into a line, else inside of it."""
    labels = axes.get_legend_handles_labels()[1]
    look: dict[str, Any] = {"handlelength": 1.2, "columnspacing": 1.2, "borderpad": 0.1, "fontsize": 9}
    if labels and sum(len(label) + 5 for label in labels) < 85:
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(labels), **look)
    elif labels:
        axes.legend(loc="upper center", ncols=2, frameon=True, framealpha=0.8, edgecolor="white", **look)


def title(study: Rows) -> str:
    """What the study was about."""
    return str(study.get("label") or study["name"])


def subtitle(study: Rows) -> str:
    """The best trial and how it was found, in one line."""
    winner = best(study)
    parts = [counted(len(study["trials"]), "trial")]
    if winner:
        error = f" ± {digits(winner.error, winner.value)}" if winner.error is not None else ""
        parts = [f"best {params_text(study, winner.trial['params'])}", f"{study['objective']} {digits(winner.value)}{error}", *parts]
    lengths = {short_count(tokens) for trial in finished(study) if (tokens := tokens_of(study, trial))}
    parts += [f"{lengths.pop()} tokens each"] if len(lengths) == 1 else []
    return "  ·  ".join(parts)


def draw_scale(axes: Axes, which: Literal["x", "y"], scale: Scale, values: Sequence[float], margin: float = 0.05) -> None:
    """Limits and, on a log scale, labels of an axis that holds the values with a share of room on both sides."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = min(values), max(values)
    if not scale.log:
        room = margin * (high - low) or abs(high) * 0.1 or 1.0
        axes.set(**{f"{which}lim": (low - room, high + room)})
        return
    factor = (high / low) ** margin if high > low else 2
    axes.set(**{f"{which}scale": "log", f"{which}lim": (low / factor, high * factor)})
    extent = axes.get_window_extent()
    points = (extent.width if which == "x" else extent.height) * 72 / axes.figure.dpi
    axis.set_major_locator(FixedLocator(_apart(scale, round_values(values), (low / factor, high * factor), points, which)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    return short(int(value) if value >= 1 and value == int(value) else float(value))


def _apart(scale: Scale, ticks: Sequence[float], ends: tuple[float, float], points: float, which: str) -> list[float]:
    """The ticks whose labels do not lie over each other: the ends first, then from the left.

    Args:
        scale: of the axis.
        ticks: values, in order.
        ends: of the axis.
        points: its length.
        which: x, where labels stand beside each other, or y.
    """
    first, last = map(scale.at, ends)
    inside = [float(tick) for tick in ticks if ends[0] <= tick <= ends[1]]
    kept: list[tuple[float, float]] = []  # where a label is, and half of its length
    left = []
    for tick in [*inside[:1], *inside[-1:], *inside[1:-1]]:
        place = points * (scale.at(tick) - first) / (last - first)
        half = LETTER * len(_tick(tick)) / 2 if which == "x" else LETTER
        if all(abs(place - other) >= half + room + LETTER / 2 for other, room in kept):
            kept.append((place, half))
            left.append(tick)
    return sorted(left)


def limit(axes: Axes, study: Rows, values: Sequence[float]) -> None:
    """Room for the values, runaways left out; they show at the edge."""
    low, high = view(study, values)
    room = (high - low) or abs(high) * 0.01 or 1.0
    axes.set_ylim(low - 0.12 * room, high + 0.14 * room)


def _draw_sureness(axes: Axes, study: Rows, scale: Scale) -> None:
    """The interval that holds the best, and the parabola through the best points."""
    found = basin_of(study, scale)
    if found is None:
        return
    low, high = (found.low, found.high) if found.low < found.high else _hair(scale, found.low)
    axes.axvspan(low, high, color=GREEN, alpha=0.13, linewidth=0, zorder=0.5)
    middle = math.sqrt(low * high) if scale.log else (low + high) / 2
    first, last = map(short, scale.inside(found, [value for value, _ in best_curve(study, scale)]))
    text = f"basin {first} to {last}" if first != last else f"basin {first}"
    side = _inward(axes, scale, middle)
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "ha": side, "va": "bottom"}
    axes.annotate(text, (middle, 0), xytext=(0, 4), color=GREEN, size=9, weight="bold", path_effects=HALO, **place)
    _draw_parabola(axes, study, scale, scale.at(low), scale.at(high))


def _inward(axes: Axes, scale: Scale, value: float) -> Literal["left", "center", "right"]:
    """How a label at a value is aligned, so that it stays in the picture."""
    low, high = map(scale.at, axes.get_xlim())
    share = (scale.at(value) - low) / (high - low)
    return "left" if share < 0.12 else "right" if share > 0.88 else "center"


def _hair(scale: Scale, value: float) -> tuple[float, float]:
    return (value / 1.02, value * 1.02) if scale.log else (value - 0.01 * abs(value), value + 0.01 * abs(value))


def _draw_parabola(axes: Axes, study: Rows, scale: Scale, low: float, high: float) -> None:
    """The parabola around the basin; further away it says nothing."""
    parabola = fit([(scale.at(value), loss) for value, loss in best_curve(study, scale)])
    if parabola is None:
        return
    x = np.linspace(low - (high - low), high + (high - low), 300)
    y = np.array([cost(study, parabola(float(place))) for place in x])
    axes.plot(
        2**x if scale.log else x,
        y,
        color=GREEN,
        linewidth=1.4,
        linestyle=(0, (4, 2)),
        zorder=2.2,
        scalex=False,
        scaley=False,
        label="parabola",
    )


def _draw_curve(axes: Axes, curve: Curve, colour: str, label: str, joined: bool) -> None:
    """Points, joined if all else is equal; those beyond the edge stand at it with their value."""
    bottom, top = axes.get_ylim()
    x = [value for value, _, _ in curve.points]
    y = [min(max(value, bottom), top) for _, value, _ in curve.points]
    width = 1.6 if joined else 0
    axes.plot(
        x,
        y,
        color=colour,
        linewidth=width,
        marker="o",
        markersize=6.5,
        markeredgecolor="white",
        label=label or None,
        zorder=2.5,
        clip_on=False,
    )
    for value, loss, trial in curve.points:
        _draw_runs(axes, value, loss, trial, colour)
        if not bottom <= loss <= top:
            inward = (0, -15) if loss > top else (0, 9)
            place = (value, top if loss > top else bottom)
            text = f"{loss:.2f}" if 0.1 <= abs(loss) < 1e6 else f"{loss:.3g}"
            axes.annotate(text, place, xytext=inward, textcoords="offset points", color=colour, size=8, ha="center", path_effects=HALO)


def _draw_runs(axes: Axes, x: float, y: float, trial: Rows, colour: str) -> None:
    """The runs of a trial with repeats, as small dashes."""
    values = run_values(trial)
    if len(values) > 1 and y <= axes.get_ylim()[1]:
        axes.plot([x] * len(values), values, color=colour, marker="_", markersize=7, linewidth=0.8, alpha=0.6, zorder=2)


def _draw_lost(axes: Axes, study: Rows, scale: Scale) -> None:
    """Trials without a final value, at the upper edge."""
    for state, marker, colour in (("pruned", "v", GREY), ("diverged", "X", INK)):
        x = [trial["params"][scale.key] for trial in lost(study, scale) if trial["state"] == state]
        if x:
            bottom, top = axes.get_ylim()
            y = [top - 0.03 * (top - bottom)] * len(x)
            axes.plot(x, y, color=colour, marker=marker, markersize=8, markeredgecolor="white", linewidth=0, label=state, zorder=3)


def _draw_best(axes: Axes, study: Rows, scale: Scale) -> None:
    winner = best(study)
    if winner is None or scale.key not in winner.trial["params"]:
        return
    x, y = winner.trial["params"][scale.key], winner.value
    axes.plot([x], [y], color=VERMILION, marker="*", markersize=15, markeredgecolor="white", linewidth=0, zorder=4, clip_on=False)
    text = f"best: {scale.name} {short(x)}"
    axes.annotate(
        text,
        (x, y),
        xytext=(0, 11),
        textcoords="offset points",
        ha=_inward(axes, scale, x),
        color=VERMILION,
        weight="bold",
        size=10,
        zorder=5,
        path_effects=HALO,
    )


def _draw_declared(axes: Axes, study: Rows, scale: Scale) -> None:
    low, high = axes.get_xlim()
    if scale.declared is None or not low <= scale.declared <= high:
        return
    found = best(study)
    winner = found.trial["params"].get(scale.key) if found else None
    axes.axvline(scale.declared, color=INK, linewidth=1.0, linestyle=":", zorder=1.2)
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points", "va": "top"}
    leftward = winner is not None and winner > scale.declared and _inward(axes, scale, scale.declared) != "left"
    side: dict[str, Any] = {"ha": "right", "xytext": (-4, -2)} if leftward else {"ha": "left", "xytext": (4, -2)}
    axes.annotate("starting value", (scale.declared, 1.0), color=GREY, size=8.5, **place, **side)
