"""The plots of a study: objective along an axis, over two axes, learning curves, batches at equal time, slots, paired differences.

Each takes study.json (and learning curves: number of a trial -> tokens and objective of each of its runs) and gives a figure, or None
where there is nothing to draw.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure

from gptshake.estimate.formatting import counted, duration, short_count
from gptshake.estimate.lr_fit import fit
from gptshake.estimate.significance import FEWEST, one_sample
from gptshake.report import study_stats as stats
from gptshake.report.figure import HALO, POINT, caption, frame, label, lay_out, legend_above, log_axis, plot_style, save, token_axis
from gptshake.report.series import BLUE, GREEN, GREY, INK, LINE, ORANGE, PURPLE, SKY, VERMILION, Floats
from gptshake.report.study_stats import Curve, Json, Points, Scale
from gptshake.report.study_text import mean_text

COLOURS = (BLUE, ORANGE, PURPLE, SKY, GREEN, "#8B6F47", INK, GREY)  # VERMILION is the best
PALE = "#B4BAC4"
STATE_COLOURS = {"ok": BLUE, "running": GREEN, "pruned": PALE, "diverged": ORANGE, "failed": VERMILION, "stopped": "#D9DCE1"}
LARGE, SMALL = 34.0, 11.0  # diameters of the map's circles, in points; numbers fit into the large ones


@plot_style()
def plot_study(study: Json, folder: Path) -> list[Path]:
    """Write ``plots/`` of a study: all that there is to draw, as PNG and SVG."""
    rows = stats.learning_curves(study, folder)
    figures = {"ablate": ablate_figure(study)} if study.get("ablate") else {"basin": fit_figure(study), "map": map_figure(study)}
    figures |= {"curves": curves_figure(study, rows), "time": time_figure(study, rows), "timeline": timeline_figure(study)}
    return [path for name, figure in figures.items() if figure is not None for path in save(figure, folder / "plots", name)]


def _frame(study: Json, height: float, about: str = "", columns: int = 1, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A frame with the study's name; below it, unless another text is given, the best trial and how it was found."""
    winner, parts = stats.best(study), list[str]()
    if winner and not about and stats.over_seeds(study):
        about = mean_text(study, winner)
    elif not about:
        if winner:
            error = f" ± {stats.objective_text(winner.error, winner.value)}" if winner.error is not None else ""
            parts = [
                f"best {stats.params_text(study, winner.trial['params'])}",
                f"{study['objective']} {stats.objective_text(winner.value)}{error}",
            ]
        lengths = {short_count(tokens) for trial in stats.finished(study) if (tokens := stats.tokens_of(study, trial))}
        parts += [counted(len(study["trials"]), "trial"), f"{lengths.pop()} tokens each" if len(lengths) == 1 else ""]
    subtitle = about or "  ·  ".join(filter(None, parts))
    return frame(str(study.get("label") or study["name"]), subtitle, height, 1, columns, **subplots)


def _limit(axes: Axes, study: Json, values: Sequence[float]) -> None:
    """Limits that hold the objective's values; runaways are left out and show at the edge."""
    low, high = stats.value_limits(study, values)
    span = (high - low) or abs(high) * 0.01 or 1.0
    axes.set_ylim(low - 0.12 * span, high + 0.14 * span)


def _draw_scale(axes: Axes, which: Literal["x", "y"], scale: Scale, values: Sequence[float], margin: float = 0.05) -> None:
    """An axis that holds the values with a margin on both sides."""
    low, high = min(values), max(values)
    if not scale.log:
        pad = margin * (high - low) or abs(high) * 0.1 or 1.0
        axes.set(**{f"{which}lim": (low - pad, high + pad)})
        return
    factor = (high / low) ** margin if high > low else 2
    base = 2 if scale.integer and all(math.log2(value).is_integer() for value in values) else 10
    log_axis(axes, which, (low / factor, high * factor), stats.param_text, base=base)


def _time_unit(seconds: float) -> tuple[float, str]:
    return (1, "seconds") if seconds < 180 else (60, "minutes") if seconds < 3 * 3600 else (3600, "hours")


def _late(runs: Sequence[Points]) -> list[float]:
    """Values after the first seventh of each run, which is steep and would flatten the differences."""
    return [value for points in runs for _, value in points[len(points) // 7 :]]


def fit_figure(study: Json) -> Figure | None:
    """The objective along the first axis of numbers, one curve for each setting of the others; None without values."""
    scale = next(iter(stats.scales(study)), None)
    found = stats.axis_curves(study, scale) if scale else []
    winner = stats.best(study)
    if scale is None or winner is None or not found:
        return None
    figure, (axes,) = _frame(study, 4.6)
    caption(axes, study["objective"])
    axes.set_xlabel(scale.key.lstrip("+"))
    lost = [(trial["params"][scale.key], trial["state"]) for trial in stats.incomplete(study)]
    points = [point for _, points in found for point in points]
    _draw_scale(axes, "x", scale, [*(x for x, _ in lost), *(x for x, _, _ in points)])
    _limit(axes, study, [*(value for _, value, _ in points), winner.value])  # its mean over fresh seeds may lie apart from all curves
    _draw_interval(axes, study, scale)
    labels = [name for name, _ in found]
    if not any("," in name for name in labels):  # one other axis: batch_size 16, 32, 64
        labels[1:] = [name.partition(" ")[2] for name in labels[1:]]
    for colour, curve, name in zip(COLOURS, found, labels, strict=False):
        _draw_curve(axes, curve, colour, name, joined=len(found) > 1 or len(study["axes"]) == 1)
    bottom, top = axes.get_ylim()
    for state, marker, colour in (("pruned", "v", GREY), ("diverged", "X", INK)):  # without a final value: at the upper edge
        if x := [value for value, ended in lost if ended == state]:
            look = POINT | {"color": colour, "marker": marker, "markersize": 8, "linewidth": 0, "zorder": 3}
            axes.plot(x, [top - 0.03 * (top - bottom)] * len(x), label=state, **look)
    best = (winner.trial["params"][scale.key], winner.value)
    look = POINT | {"color": VERMILION, "marker": "*", "markersize": 15, "linewidth": 0, "zorder": 4, "clip_on": False}
    axes.plot(*best, label=f"best: {scale.name} {stats.param_text(best[0])}", **look)
    if scale.declared is not None and axes.get_xlim()[0] <= scale.declared <= axes.get_xlim()[1]:
        axes.axvline(scale.declared, color=INK, linewidth=1.0, linestyle=":", zorder=1.2, label="starting value")
    widths = [5 + len(name) for name in axes.get_legend_handles_labels()[1]]  # a column is as wide as its longest name
    legend_above(axes, len(widths) if sum(widths) < 85 else max(1, 85 // max(widths)))
    return figure


def _draw_interval(axes: Axes, study: Json, scale: Scale) -> None:
    """The near-optimal interval, and the parabola around it; further away that says nothing."""
    found = stats.near_optimal(study, scale)
    if found is None:
        return
    left, right = scale.at(found.low), scale.at(found.high)
    x = np.linspace(2 * left - right, 2 * right - left, 300)
    shown = 2**x if scale.log else x
    axes.axvspan(shown[100], shown[200], color=GREEN, alpha=0.13, linewidth=1, zorder=0.5)  # seen where it is one value, too
    first, last = map(stats.param_text, stats.interval_ends(study, scale, found))
    text = f"near-optimal {first} to {last}" if first != last else f"near-optimal {first}"
    if found.assumed:  # its ends are tried values that are clearly worse
        text = f"the best is between {first} and {last}"
    low, high = map(scale.at, axes.get_xlim())
    share = (x[150] - low) / (high - low)
    look: dict[str, Any] = {"color": GREEN, "weight": "bold", "path_effects": HALO}
    look["ha"] = "left" if share < 0.12 else "right" if share > 0.88 else "center"  # inside of the axes
    label(axes, text, (shown[150], 0), (0, 4), "y", va="bottom", **look)
    points = [(scale.at(value), loss) for value, loss in stats.best_curve(study, scale)]
    draw_parabola(axes, points, shown, np.log2 if scale.log else np.asarray, stats.cost(study, 1))


def draw_parabola(axes: Axes, points: Points, x: Floats, at: Callable[[Floats], Floats], sign: float = 1) -> None:
    """The parabola through points (place, loss), drawn where the places are ``at(x)``.

    Nothing where they do not bend upwards, or its minimum lies outside of what is shown, far below all runs.
    """
    parabola, (bottom, top) = fit(points), axes.get_ylim()
    if parabola and bottom <= sign * parabola.bottom <= top:
        look: dict[str, Any] = {"color": GREEN, "linewidth": 1.4, "linestyle": (0, (4, 2)), "zorder": 2.2, "label": "parabola"}
        axes.plot(x, sign * (parabola.bottom + parabola.curvature * (at(x) - parabola.vertex) ** 2), scalex=False, scaley=False, **look)


def _draw_curve(axes: Axes, curve: Curve, colour: str, name: str, joined: bool) -> None:
    """Points, joined if all else is equal; those beyond the edge stand at it with their value, runs of a trial with repeats as dashes."""
    (bottom, top), (_, points) = axes.get_ylim(), curve
    look = POINT | {"color": colour, "linewidth": 1.6 if joined else 0, "zorder": 2.5, "clip_on": False}
    axes.plot([x for x, _, _ in points], [min(max(value, bottom), top) for _, value, _ in points], label=name or None, **look)
    for x, value, trial in points:
        runs = stats.run_values(trial)
        if len(runs) > 1 and value <= top:
            axes.plot([x] * len(runs), runs, color=colour, marker="_", markersize=7, linewidth=0.8, alpha=0.6, zorder=2)
        if not bottom <= value <= top:
            at, offset = (x, top if value > top else bottom), (0, -15 if value > top else 9)
            label(axes, f"{value:.3g}", at, offset, color=colour, size=8, ha="center", path_effects=HALO)


def map_figure(study: Json) -> Figure | None:
    """A heatmap of the objective at the trials over the first two axes of numbers, the best marked; None with fewer axes."""
    found, winner = stats.scales(study)[:2], stats.best(study)
    trials = sorted(stats.finished(study), key=lambda trial: -stats.cost(study, trial["value"]))  # the best on top
    if len(found) < 2 or not trials or winner is None:
        return None
    keys = [scale.key for scale in found]
    places = [(float(trial["params"][keys[0]]), float(trial["params"][keys[1]])) for trial in [*trials, winner.trial]]
    x, y = zip(*places, strict=True)
    values = [trial["value"] for trial in trials]
    figure, (axes,) = _frame(study, 4.8)
    _draw_scale(axes, "x", found[0], x)
    _draw_scale(axes, "y", found[1], y, margin=0.14)
    axes.set_xlabel(keys[0].lstrip("+"))
    caption(axes, " ")
    lay_out(figure)
    points = axes.transData.transform(sorted(set(places))) * 72 / figure.dpi
    crowded = any(math.dist(one, other) < LARGE for one, other in itertools.combinations(points, 2))
    caption(axes, f"{keys[1].lstrip('+')} upwards, {study['objective']} {'as colour' if crowded else 'in the circles'}")
    low, high = stats.value_limits(study, values)
    norm, size = Normalize(low, high if high > low else low + 1), SMALL if crowded else LARGE
    palette = matplotlib.colormaps["viridis_r" if stats.minimizes(study) else "viridis"]
    colours = ListedColormap(palette(np.linspace(0.06, 0.92, 256)))  # without the ends: numbers stay readable
    axes.scatter(x[:-1], y[:-1], s=size**2, c=values, cmap=colours, norm=norm, edgecolors="white", zorder=2)
    if crowded:
        figure.colorbar(ScalarMappable(norm, colours), ax=axes, pad=0.02, fraction=0.04, aspect=30)
    else:
        precision = 4 if max(values) - min(values) < 0.2 else 3
        for at, value in dict(zip(places, values, strict=False)).items():  # of equal places the one on top
            ink = "white" if (norm(value) > 0.5) == stats.minimizes(study) else INK
            label(axes, f"{value:.{precision}g}", at, (0, 0), ha="center", va="center", size=8, color=ink, zorder=3)
    axes.scatter(x[-1:], y[-1:], s=(size + 6) ** 2, facecolors="none", edgecolors=VERMILION, linewidths=2.2, zorder=4)
    look: dict[str, Any] = {"color": VERMILION, "weight": "bold", "ha": "center", "zorder": 5, "path_effects": HALO}
    label(axes, f"best {stats.objective_text(winner.value)}" if crowded else "best", places[-1], (0, size / 2 + 5), **look)
    return figure


def curves_figure(study: Json, rows: Mapping[int, Sequence[Points]]) -> Figure | None:
    """Learning curves of all trials, the pruned ones grey, the best on top."""
    trials = [trial for trial in study["trials"] if any(rows.get(trial["number"], []))]
    if not trials:
        return None
    figure, (axes,) = _frame(study, 4.6)
    every = "every seed; the bar: their mean and its 95 % interval" if stats.over_seeds(study) else "every trial"
    states = {stats.state_of(trial) for trial in trials}
    colours = ["grey: not run to the end"] * bool(states - {"ok", "running"}) + ["green: running"] * ("running" in states)
    caption(axes, "; ".join([f"{study['objective']} of {every}", *filter(None, [", ".join(colours)])]))
    winner, ends = stats.best(study), []
    looks: dict[str, dict[str, Any]] = {"ok": {"color": BLUE, "linewidth": 1.2, "alpha": 0.55, "zorder": 3}, "running": {"color": GREEN}}
    for trial in trials:
        runs = rows[trial["number"]]
        is_best = winner is not None and not stats.over_seeds(study) and trial["number"] == winner.trial["number"]
        look: dict[str, Any] = {"color": PALE, "linewidth": 1.1, "zorder": 2} | looks.get(stats.state_of(trial), {})
        if is_best:
            look = {"color": VERMILION, "linewidth": 2.2 if len(runs) == 1 else 1.3, "zorder": 4}
        for points in runs:
            axes.plot(*zip(*points, strict=True), **look)
        end = fmean(points[-1][1] for points in runs)
        if trial["state"] == "ok" and trial["params"]:
            ends.append((not is_best, stats.cost(study, end), end, stats.params_text(study, trial["params"])[:34]))
    _limit(axes, study, _late([points for trial in trials for points in rows[trial["number"]]]))
    if winner and stats.over_seeds(study) and (mean := one_sample(stats.run_values(winner.trial))):
        half = mean.half_width if len(winner.trial["runs"]) >= FEWEST else 0.0
        end = max(points[-1][0] for points in rows[winner.trial["number"]])
        look = {"color": VERMILION, "marker": "o", "markersize": 6, "linewidth": 2, "capsize": 5, "zorder": 5, "clip_on": False}
        axes.errorbar(end, mean.mean, yerr=half or None, **look)
        bottom, top = axes.get_ylim()
        axes.set_ylim(min(bottom, mean.mean - 1.1 * half), max(top, mean.mean + 1.1 * half))
    bottom, top = axes.get_ylim()
    taken: list[float] = []
    for other, _, value, text in sorted(ends):  # named at the right edge, the best first; a name that would cover another is left out
        if bottom <= value <= top and all(abs(value - place) >= 0.05 * (top - bottom) for place in taken):
            taken.append(value)
            weight, colour = ("normal", GREY) if other else ("bold", VERMILION)
            label(axes, text, (1.0, value), (5, 0), "x", color=colour, weight=weight, size=8.5, va="center")
    token_axis(axes)
    return figure


def time_figure(study: Json, rows: Mapping[int, Sequence[Points]]) -> Figure | None:
    """The learning curve of the best trial of each batch size, over tokens and over wall time; None with fewer than two sizes.

    The time of a row is its share of the run's tokens times what the run took.
    """
    found = [
        (batch, rows[trial["number"]][0], seconds / len(trial["runs"]))
        for batch, trial in stats.best_by_batch(study).items()
        if (seconds := stats.seconds_of(trial)) and rows.get(trial["number"])
    ]
    scale = stats.batch_scale(study)
    if scale is None or len(found) < 2:
        return None
    figure, (left, right) = _frame(study, 3.6, columns=2, sharey=True)
    caption(left, f"{study['objective']} of the best trial of each {scale.name}")
    unit, name = _time_unit(max(seconds for _, _, seconds in found))
    for colour, (batch, points, seconds) in zip(itertools.cycle(COLOURS), found, strict=False):
        tokens, values = zip(*points, strict=True)
        left.plot(tokens, values, color=colour, linewidth=1.4)
        right.plot(
            [seconds / unit * share / tokens[-1] for share in tokens], values, color=colour, linewidth=1.4, label=stats.param_text(batch)
        )
        right.plot([seconds / unit], values[-1:], color=colour, marker="o", markersize=5)
    _limit(left, study, _late([points for _, points, _ in found]))
    token_axis(left)
    right.set_xlim(left=0)
    right.set_xlabel(f"{name} of training")
    legend_above(right, len(found))
    return figure


def timeline_figure(study: Json) -> Figure | None:
    """One row a slot, one bar a run, coloured by how it ended; None if nothing has started."""
    runs = [(row["number"], run) for row in [*study["trials"], *(study.get("confirm") or [])] for run in row["runs"] if run.get("started")]
    if not runs:
        return None
    begin, end = min(run["started"] for _, run in runs), max(run.get("ended") or study["updated"] for _, run in runs)
    (unit, name), slots = _time_unit(end - begin), max(study.get("slots") or 1, 1 + max(run["slot"] for _, run in runs))
    about = f"{counted(len(runs), 'run')} on {study.get('device') or f'{slots} slots'}  ·  {duration(end - begin)}"
    figure, (axes,) = _frame(study, 1.6 + 0.34 * slots, about)
    for number, run in runs:
        start, length = (run["started"] - begin) / unit, max((run.get("ended") or study["updated"]) - run["started"], 0) / unit
        colour = STATE_COLOURS.get(run["state"], LINE)
        axes.barh(run["slot"], length, left=start, height=0.72, color=colour, edgecolor="white", linewidth=0.8)
        if length > 0.018 * (end - begin) / unit * len(str(number)):
            ink = INK if run["state"] in ("pruned", "stopped", "diverged") else "white"
            axes.text(start + length / 2, run["slot"], str(number), ha="center", va="center", size=8, color=ink, clip_on=True)
    for state in (state for state in STATE_COLOURS if state in {run["state"] for _, run in runs}):
        axes.barh([0], [0], color=STATE_COLOURS[state], label=state)
    legend_above(axes, handlelength=1.0, handleheight=0.9)
    axes.set_yticks(range(slots), [f"slot {slot}" for slot in range(slots)])
    axes.set(ylim=(slots - 0.4, -0.6), xlim=(0, max((end - begin) / unit, 1e-9)), xlabel=name)
    axes.grid(axis="y", visible=False)
    return figure


def ablate_figure(study: Json) -> Figure | None:
    """Paired differences against the base with their 95 % interval; None without a finished pair."""
    found = stats.differences(study)
    if all(difference.mean is None for difference in found):
        return None
    seeds = max(row.seeds for row in found)
    about = f"{study['objective']}: paired difference to {study['ablate']['labels'][0]}, mean and 95 % interval over {seeds} seeds"
    figure, (axes,) = _frame(study, 1.7 + 0.42 * len(found), about)
    for row, one in enumerate(found):
        colour = {"better": GREEN, "worse": VERMILION}.get(one.verdict, GREY)
        if one.mean is not None:
            axes.errorbar(one.mean, row, xerr=one.half_width or 0.0, color=colour, marker="s", markersize=6.5, linewidth=2.2)
        speed = f"  ·  {one.speed:.2f}x speed" if one.speed else ""
        label(axes, f"{one.verdict}{speed}", (1.0, row), (8, 0), "x", color=colour, va="center")
        label(axes, one.label[:36], (0.0, row), (-8, 0), "x", size=10, ha="right", va="center")
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    axes.margins(x=0.12)
    sides = "better  ←        →  worse" if stats.minimizes(study) else "worse  ←        →  better"
    axes.set(yticks=[], ylim=(len(found) - 0.4, -0.6), xlabel=sides)
    return figure
