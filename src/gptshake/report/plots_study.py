"""The plots of a study: objective along an axis, over two axes, learning curves, batches at equal time, slots, paired differences.

Each takes study.json (and learning curves) and gives a figure, or None where there is nothing to draw.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.estimate.lr_fit import fit
from gptshake.report import study_stats as stats
from gptshake.report.batch_time import Points, batch_scale, best_of_each, learning_curves
from gptshake.report.frame import HALO, POINT, caption, frame, label, legend_above, token_axis
from gptshake.report.series import BLUE, GREEN, GREY, INK, LINE, ORANGE, PURPLE, SKY, VERMILION
from gptshake.report.study_stats import Curve, Difference, Rows, Scale

COLOURS = (BLUE, ORANGE, PURPLE, SKY, GREEN, "#8B6F47", INK, GREY)  # VERMILION is the best
STATE_COLOURS = {"ok": BLUE, "running": GREEN, "pruned": "#B4BAC4", "diverged": ORANGE, "failed": VERMILION, "stopped": "#D9DCE1"}
LETTER = 6.4  # points that a letter of a tick's label takes
LARGE, SMALL = 34.0, 11.0  # diameters of the map's circles, in points; numbers fit into the large ones


def figures(study: Rows, folder: Path) -> dict[str, Figure]:
    """Name -> figure, of all that there is to draw of a study in its folder."""
    rows, compared = learning_curves(study, folder), bool(study.get("ablate"))
    drawn = {
        "basin": None if compared else fit_figure(study),
        "map": None if compared else map_figure(study),
        "ablate": ablate_figure(study),
        "curves": curves_figure(study, rows),
        "time": time_figure(study, rows),
        "timeline": timeline_figure(study),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}


def title(study: Rows) -> str:
    return str(study.get("label") or study["name"])


def subtitle(study: Rows) -> str:
    """The best trial and how it was found, in one line."""
    winner = stats.best(study)
    parts = [counted(len(study["trials"]), "trial")]
    if winner:
        error = f" ± {stats.digits(winner.error, winner.value)}" if winner.error is not None else ""
        parts = [
            f"best {stats.params_text(study, winner.trial['params'])}",
            f"{study['objective']} {stats.digits(winner.value)}{error}",
            *parts,
        ]
    lengths = {short_count(tokens) for trial in stats.finished(study) if (tokens := stats.tokens_of(study, trial))}
    parts += [f"{lengths.pop()} tokens each"] if len(lengths) == 1 else []
    return "  ·  ".join(parts)


def limit(axes: Axes, study: Rows, values: Sequence[float]) -> None:
    """Room for the objective's values; runaways are left out and show at the edge."""
    low, high = stats.value_limits(study, values)
    room = (high - low) or abs(high) * 0.01 or 1.0
    axes.set_ylim(low - 0.12 * room, high + 0.14 * room)


def draw_scale(axes: Axes, which: Literal["x", "y"], scale: Scale, values: Sequence[float], margin: float = 0.05) -> None:
    """Limits and, on a log scale, ticks of an axis that holds the values with a share of room on both sides."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = min(values), max(values)
    if not scale.log:
        room = margin * (high - low) or abs(high) * 0.1 or 1.0
        axes.set(**{f"{which}lim": (low - room, high + room)})
        return
    factor = (high / low) ** margin if high > low else 2
    ends = (low / factor, high * factor)
    axes.set(**{f"{which}scale": "log", f"{which}lim": ends})
    extent = axes.get_window_extent()
    points = (extent.width if which == "x" else extent.height) * 72 / axes.figure.dpi
    inside = [float(tick) for tick in stats.round_values(values) if ends[0] <= tick <= ends[1]]
    kept: list[tuple[float, float, float]] = []  # tick, position of its label, and half of its length: labels must not overlap
    for tick in [*inside[:1], *inside[-1:], *inside[1:-1]]:
        at = points * math.log(tick / ends[0]) / math.log(ends[1] / ends[0])
        half = LETTER * len(_tick(tick)) / 2 if which == "x" else LETTER
        if all(abs(at - other) >= half + size + LETTER / 2 for _, other, size in kept):
            kept.append((tick, at, half))
    axis.set_major_locator(FixedLocator(sorted(tick for tick, _, _ in kept)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))


def _tick(value: float) -> str:
    return stats.short(int(value) if value >= 1 and value == int(value) else float(value))


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1, "seconds") if seconds < 180 else (60, "minutes") if seconds < 3 * 3600 else (3600, "hours")


def _late(runs: Sequence[Points]) -> list[float]:
    """Values after the first seventh, which is steep in every run and would flatten the differences."""
    end = max(tokens for points in runs for tokens, _ in points)
    late = [value for points in runs for tokens, value in points if tokens >= end / 7]
    return late or [value for points in runs for _, value in points]


# The objective along the first axis of numbers.


def fit_figure(study: Rows) -> Figure | None:
    """The objective along the first axis of numbers, one curve for each setting of the others; None without values."""
    scale = next(iter(stats.scales(study)), None)
    found = stats.curves(study, scale) if scale else []
    if scale is None or not found:
        return None
    figure, (axes,) = frame(title(study), subtitle(study), 4.6)
    caption(axes, study["objective"])
    ends = [trial["params"][scale.key] for trial in stats.incomplete(study, scale)]
    draw_scale(axes, "x", scale, [*ends, *(value for curve in found for value, _, _ in curve.points)])
    winner = stats.best(study)  # its mean over fresh seeds may lie apart from all curves
    limit(axes, study, [value for curve in found for _, value, _ in curve.points] + ([winner.value] if winner else []))
    _draw_interval(axes, study, scale)
    labels = [curve.label for curve in found]
    if not any("," in name for name in labels):  # one other axis: batch_size 16, 32, 64
        labels = [name if n == 0 else name.partition(" ")[2] for n, name in enumerate(labels)]
    for colour, curve, name in zip(COLOURS, found, labels, strict=False):
        _draw_curve(axes, curve, colour, name, joined=len(found) > 1 or len(study["axes"]) == 1)
    _draw_incomplete(axes, study, scale)
    _draw_best(axes, study, scale)
    _draw_declared(axes, study, scale)
    axes.set_xlabel(scale.key.lstrip("+"))
    labels = axes.get_legend_handles_labels()[1]
    if labels and sum(len(name) + 5 for name in labels) < 85:
        legend_above(axes, len(labels))
    elif labels:
        axes.legend(loc="upper center", ncols=2, fontsize=9, handlelength=1.2, frameon=True, framealpha=0.8, edgecolor="white")
    return figure


def _draw_interval(axes: Axes, study: Rows, scale: Scale) -> None:
    """The near-optimal interval, and the parabola around it; further away that says nothing."""
    found = stats.near_optimal(study, scale)
    if found is None:
        return
    low, high = found.low, found.high
    if low == high:
        low, high = (low / 1.02, low * 1.02) if scale.log else (low - 0.01 * abs(low), low + 0.01 * abs(low))
    axes.axvspan(low, high, color=GREEN, alpha=0.13, linewidth=0, zorder=0.5)
    middle = math.sqrt(low * high) if scale.log else (low + high) / 2
    points = stats.best_curve(study, scale)
    first, last = map(stats.short, scale.inside(found, [value for value, _ in points]))
    text = f"near-optimal {first} to {last}" if first != last else f"near-optimal {first}"
    look: dict[str, Any] = {"ha": _inward(axes, scale, middle), "color": GREEN, "weight": "bold", "path_effects": HALO}
    label(axes, text, (middle, 0), (0, 4), "y", va="bottom", **look)
    parabola = fit([(scale.at(value), loss) for value, loss in points])
    if parabola:
        left, right = scale.at(low), scale.at(high)
        x = np.linspace(left - (right - left), right + (right - left), 300)
        y = np.array([stats.cost(study, parabola(float(at))) for at in x])
        look = {"color": GREEN, "linewidth": 1.4, "linestyle": (0, (4, 2)), "zorder": 2.2, "label": "parabola"}
        axes.plot(2**x if scale.log else x, y, scalex=False, scaley=False, **look)


def _inward(axes: Axes, scale: Scale, value: float) -> Literal["left", "center", "right"]:
    """How a label at a value is aligned, so that it stays inside the axes."""
    low, high = map(scale.at, axes.get_xlim())
    share = (scale.at(value) - low) / (high - low)
    return "left" if share < 0.12 else "right" if share > 0.88 else "center"


def _draw_curve(axes: Axes, curve: Curve, colour: str, name: str, joined: bool) -> None:
    """Points, joined if all else is equal; those beyond the edge stand at it with their value, runs of a trial with repeats as dashes."""
    bottom, top = axes.get_ylim()
    x, y = [value for value, _, _ in curve.points], [min(max(value, bottom), top) for _, value, _ in curve.points]
    look = POINT | {"color": colour, "linewidth": 1.6 if joined else 0, "zorder": 2.5, "clip_on": False}
    axes.plot(x, y, label=name or None, **look)
    for value, loss, trial in curve.points:
        runs = stats.run_values(trial)
        if len(runs) > 1 and loss <= top:
            axes.plot([value] * len(runs), runs, color=colour, marker="_", markersize=7, linewidth=0.8, alpha=0.6, zorder=2)
        if not bottom <= loss <= top:
            text = f"{loss:.2f}" if 0.1 <= abs(loss) < 1e6 else f"{loss:.3g}"
            at, offset = (value, top if loss > top else bottom), (0, -15 if loss > top else 9)
            label(axes, text, at, offset, color=colour, size=8, ha="center", path_effects=HALO)


def _draw_incomplete(axes: Axes, study: Rows, scale: Scale) -> None:
    """Trials without a final value, at the upper edge."""
    bottom, top = axes.get_ylim()
    for state, marker, colour in (("pruned", "v", GREY), ("diverged", "X", INK)):
        x = [trial["params"][scale.key] for trial in stats.incomplete(study, scale) if trial["state"] == state]
        if x:
            look = POINT | {"color": colour, "marker": marker, "markersize": 8, "linewidth": 0, "zorder": 3}
            axes.plot(x, [top - 0.03 * (top - bottom)] * len(x), label=state, **look)


def _draw_best(axes: Axes, study: Rows, scale: Scale) -> None:
    winner = stats.best(study)
    if winner is None or scale.key not in winner.trial["params"]:
        return
    x, y = winner.trial["params"][scale.key], winner.value
    axes.plot([x], [y], **POINT | {"color": VERMILION, "marker": "*", "markersize": 15, "linewidth": 0, "zorder": 4, "clip_on": False})
    look: dict[str, Any] = {"color": VERMILION, "weight": "bold", "size": 10, "zorder": 5, "path_effects": HALO}
    label(axes, f"best: {scale.name} {stats.short(x)}", (x, y), (0, 11), ha=_inward(axes, scale, x), **look)


def _draw_declared(axes: Axes, study: Rows, scale: Scale) -> None:
    """A line at the value that the search started from, its name on the side where the best is not."""
    low, high = axes.get_xlim()
    if scale.declared is None or not low <= scale.declared <= high:
        return
    winner = stats.best(study)
    at = winner.trial["params"].get(scale.key) if winner else None
    axes.axvline(scale.declared, color=INK, linewidth=1.0, linestyle=":", zorder=1.2)
    left = at is not None and at > scale.declared and _inward(axes, scale, scale.declared) != "left"
    side = {"ha": "right" if left else "left", "va": "top", "color": GREY, "size": 8.5}
    label(axes, "starting value", (scale.declared, 1.0), (-4 if left else 4, -2), "y", **side)


# Two axes of numbers together.


def map_figure(study: Rows) -> Figure | None:
    """A heatmap of the objective at the trials over the first two axes of numbers, the best marked; None with fewer axes."""
    found = stats.scales(study)[:2]
    trials = sorted(stats.finished(study, *found), key=lambda trial: -stats.cost(study, trial["value"]))  # the best on top
    if len(found) < 2 or not trials:
        return None
    figure, (axes,) = frame(title(study), subtitle(study), 4.8)
    places = [(float(trial["params"][found[0].key]), float(trial["params"][found[1].key])) for trial in trials]
    draw_scale(axes, "x", found[0], [x for x, _ in places])
    draw_scale(axes, "y", found[1], [y for _, y in places], margin=0.14)
    axes.set_xlabel(found[0].key.lstrip("+"))
    caption(axes, " ")
    figure.draw_without_rendering()  # now the axes have their final size
    points = [tuple(point * 72 / figure.dpi) for point in axes.transData.transform(sorted(set(places)))]
    crowded = any(math.dist(one, other) < LARGE for n, one in enumerate(points) for other in points[:n])
    _draw_circles(axes, study, [trial["value"] for trial in trials], places, crowded)
    caption(axes, f"{found[1].key.lstrip('+')} upwards, {study['objective']} {'as colour' if crowded else 'in the circles'}")
    return figure


def _draw_circles(axes: Axes, study: Rows, values: list[float], places: list[tuple[float, float]], crowded: bool) -> None:
    """Circles with their values inside, or small ones with a colour bar; a ring around the best."""
    low, high = stats.value_limits(study, values)
    norm = Normalize(low, high if high > low else low + 1)
    palette = matplotlib.colormaps["viridis_r" if stats.minimizes(study) else "viridis"]
    colours = ListedColormap([palette(0.06 + 0.86 * n / 255) for n in range(256)])  # without the ends: numbers stay readable
    size = SMALL if crowded else LARGE
    x, y = zip(*places, strict=True)
    axes.scatter(x, y, s=size**2, c=values, cmap=colours, norm=norm, edgecolors="white", zorder=2)
    if crowded:
        axes.figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02, fraction=0.04, aspect=30)
    decimals = 3 if max(values) - min(values) < 0.2 else 2
    for value, at in zip(values, places, strict=True) if not crowded else ():
        dark = (norm(value) > 0.5) == stats.minimizes(study)
        text = f"{value:.{decimals}f}" if 0.1 <= abs(value) < 100 else f"{value:.3g}"
        label(axes, text, at, (0, 0), ha="center", va="center", size=8, color="white" if dark else INK, zorder=3)
    winner, keys = stats.best(study), [scale.key for scale in stats.scales(study)[:2]]
    if winner and set(keys) <= winner.trial["params"].keys():
        at = (winner.trial["params"][keys[0]], winner.trial["params"][keys[1]])
        axes.scatter([at[0]], [at[1]], s=(size + 6) ** 2, facecolors="none", edgecolors=VERMILION, linewidths=2.2, zorder=4)
        look: dict[str, Any] = {"color": VERMILION, "weight": "bold", "ha": "center", "zorder": 5, "path_effects": HALO}
        label(axes, f"best {stats.digits(winner.value)}" if crowded else "best", at, (0, size / 2 + 5), **look)


# Learning curves.


def curves_figure(study: Rows, rows: Mapping[int, Sequence[Points]]) -> Figure | None:
    """Learning curves of all trials, the pruned ones grey, the best on top.

    Args:
        study: study.json.
        rows: number of a trial -> tokens and objective of each of its runs.
    """
    trials = [trial for trial in study["trials"] if any(rows.get(trial["number"], []))]
    if not trials:
        return None
    figure, (axes,) = frame(title(study), subtitle(study), 4.6)
    caption(axes, f"{study['objective']} of every trial; grey: not run to the end, green: running")
    winner = stats.best(study)
    number = winner.trial["number"] if winner else None
    for trial in trials:
        runs = rows[trial["number"]]
        look: dict[str, Any] = {"color": "#B4BAC4", "linewidth": 1.1, "zorder": 2}
        if trial["number"] == number:
            look = {"color": VERMILION, "linewidth": 2.2 if len(runs) == 1 else 1.3, "zorder": 4}
        elif trial["state"] == "ok":
            look = {"color": BLUE, "linewidth": 1.2, "alpha": 0.55, "zorder": 3}
        elif trial["state"] == "running":
            look["color"] = GREEN
        for points in filter(None, runs):
            axes.plot(*zip(*points, strict=True), **look)
    limit(axes, study, _late([points for trial in trials for points in rows[trial["number"]]]))
    _name_curves(axes, study, [(trial, rows[trial["number"]]) for trial in trials], number)
    token_axis(axes)
    return figure


def _name_curves(axes: Axes, study: Rows, found: Sequence[tuple[Rows, Sequence[Points]]], best_number: int | None) -> None:
    """Params at the right edge, the best first; those that would cover another are left out."""
    ends = [(fmean(points[-1][1] for points in runs if points), trial) for trial, runs in found if trial["state"] == "ok"]
    bottom, top = axes.get_ylim()
    taken: list[float] = []
    for value, trial in sorted(ends, key=lambda end: (end[1]["number"] != best_number, stats.cost(study, end[0]))):
        if not bottom <= value <= top or any(abs(value - other) < 0.05 * (top - bottom) for other in taken):
            continue
        taken.append(value)
        weight, colour = ("bold", VERMILION) if trial["number"] == best_number else ("normal", GREY)
        text = stats.params_text(study, trial["params"])[:34]
        label(axes, text, (1.0, value), (5, 0), "x", color=colour, weight=weight, size=8.5, va="center")


def time_figure(study: Rows, rows: Mapping[int, Sequence[Points]]) -> Figure | None:
    """The learning curve of the best trial of each batch size, over tokens and over wall time; None with fewer than two sizes.

    The time of a row is its share of the run's tokens times what the run took.
    """
    scale = batch_scale(study)
    found = [
        (batch, rows[trial["number"]][0], seconds)
        for batch, trial in (best_of_each(study, scale).items() if scale else ())
        if (seconds := stats.seconds_of_run(trial)) and rows.get(trial["number"])
    ]
    if scale is None or len(found) < 2:
        return None
    figure, (left, right) = frame(title(study), subtitle(study), 3.6, 1, 2, sharey=True)
    caption(left, f"{study['objective']} of the best trial of each {stats.names(study)[scale.key]}")
    unit, name = _time_unit(max(seconds for _, _, seconds in found))
    for colour, (batch, points, seconds) in zip(itertools.cycle(COLOURS), found, strict=False):
        tokens, values = zip(*points, strict=True)
        left.plot(tokens, values, color=colour, linewidth=1.4)
        right.plot([seconds / unit * share / tokens[-1] for share in tokens], values, color=colour, linewidth=1.4, label=stats.short(batch))
        right.plot([seconds / unit], values[-1:], color=colour, marker="o", markersize=5)
    limit(left, study, _late([points for _, points, _ in found]))
    token_axis(left)
    right.set_xlim(left=0)
    right.set_xlabel(f"{name} of training")
    legend_above(right, len(found))
    return figure


# What each slot did, and the paired differences.


def timeline_figure(study: Rows) -> Figure | None:
    """One row a slot, one bar a run, coloured by how it ended; None if nothing has started."""
    runs = [(row["number"], run) for row in [*study["trials"], *(study.get("confirm") or [])] for run in row["runs"] if run.get("started")]
    if not runs:
        return None
    begin = min(run["started"] for _, run in runs)
    end = max(run.get("ended") or study["updated"] for _, run in runs)
    unit, name = _time_unit(end - begin)
    slots = max(study.get("slots") or 1, 1 + max(run["slot"] for _, run in runs))
    about = f"{counted(len(runs), 'run')} on {study.get('device') or f'{slots} slots'}  ·  {duration(end - begin)}"
    figure, (axes,) = frame(title(study), about, 1.6 + 0.34 * slots)
    for number, run in runs:
        start, stop = (run["started"] - begin) / unit, ((run.get("ended") or study["updated"]) - begin) / unit
        length = max(stop - start, 0)
        colour = STATE_COLOURS.get(run["state"], LINE)
        axes.barh(run["slot"], length, left=start, height=0.72, color=colour, edgecolor="white", linewidth=0.8)
        if length > 0.018 * (end - begin) / unit * len(str(number)):
            ink = INK if run["state"] in ("pruned", "stopped", "diverged") else "white"
            axes.text(start + length / 2, run["slot"], str(number), ha="center", va="center", size=8, color=ink, clip_on=True)
    for state in (state for state in STATE_COLOURS if state in {run["state"] for _, run in runs}):
        axes.barh([0], [0], color=STATE_COLOURS[state], label=state)
    legend_above(axes, handlelength=1.0, handleheight=0.9)
    axes.set_yticks(range(slots), [f"slot {slot}" for slot in range(slots)])
    axes.set_ylim(slots - 0.4, -0.6)
    axes.set_xlim(0, max((end - begin) / unit, 1e-9))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(name)
    return figure


def ablate_figure(study: Rows) -> Figure | None:
    """Paired differences against the base with their 95 % interval; None without a finished pair."""
    found = stats.differences(study)
    if all(difference.mean is None for difference in found):
        return None
    seeds = max(row.seeds for row in found)
    about = f"{study['objective']}: paired difference to {study['ablate']['labels'][0]}, mean and 95 % interval over {seeds} seeds"
    figure, (axes,) = frame(title(study), about, 1.7 + 0.42 * len(found))
    for row, difference in enumerate(found):
        _draw_difference(axes, row, difference)
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(found)), [difference.label[:36] for difference in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("better  ←        →  worse" if stats.minimizes(study) else "worse  ←        →  better")
    return figure


def _draw_difference(axes: Axes, row: int, difference: Difference) -> None:
    colour = {"better": GREEN, "worse": VERMILION}.get(difference.verdict, GREY)
    if difference.mean is not None:
        reach = difference.reach or 0.0
        axes.plot([difference.mean - reach, difference.mean + reach], [row, row], color=colour, linewidth=2.2, zorder=2)
        axes.plot([difference.mean], [row], **POINT | {"color": colour, "marker": "s", "zorder": 3})
    speed = f"  ·  {difference.speed:.2f}x speed" if difference.speed else ""
    label(axes, f"{difference.verdict}{speed}", (1.0, row), (8, 0), "x", color=colour, va="center")
