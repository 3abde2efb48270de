"""How a study went, as pictures: learning curves, the slots' timeline, and the forest of paired differences."""

import itertools
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptshake.estimate.words import counted, duration
from gptshake.report.batch_time import Points, batch_scale, best_of_each, seconds_of_run
from gptshake.report.frame import BLUE, GREEN, GREY, INK, LINE, ORANGE, VERMILION, caption, count_axis, heading
from gptshake.report.plots_study import COLOURS, limit, subtitle, title
from gptshake.report.study_stats import Difference, Rows, best, cost, differences, minimizes, names, params_text, short

STATE_COLOURS = {"ok": BLUE, "running": GREEN, "pruned": "#B4BAC4", "diverged": ORANGE, "failed": VERMILION, "stopped": "#D9DCE1"}


def curves_figure(study: Rows, rows: Mapping[int, Sequence[Points]]) -> Figure | None:
    """Learning curves of all trials, the pruned greyed, the best on top.

    Args:
        study: study.json.
        rows: number of a trial -> tokens and objective of each of its runs.
    """
    trials = [trial for trial in study["trials"] if any(rows.get(trial["number"], []))]
    if not trials:
        return None
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.075, right=0.84, top=0.80, bottom=0.12)
    heading(figure, title(study), subtitle(study))
    caption(axes, f"{study['objective']} of every trial; grey: not run to the end, green: at work")
    winner = best(study)
    number = winner.trial["number"] if winner else None
    for trial in trials:
        for points in filter(None, rows[trial["number"]]):
            axes.plot(*zip(*points, strict=True), **_curve_look(trial, number, len(rows[trial["number"]])))
    limit(axes, study, _late([points for trial in trials for points in rows[trial["number"]]]))
    axes.set_xlim(left=0)
    _label_ends(axes, study, [(trial, rows[trial["number"]]) for trial in trials], number)
    count_axis(axes)
    axes.set_xlabel("training tokens")
    return figure


def _late(found: Sequence[Points]) -> list[float]:
    """Values after the first seventh, which is steep in every run and would flatten the differences."""
    end = max(tokens for points in found for tokens, _ in points)
    return [value for points in found for tokens, value in points if tokens >= end / 7] or [
        value for points in found for _, value in points
    ]


def _curve_look(trial: Rows, best_number: int | None, repeats: int) -> dict[str, Any]:
    if trial["number"] == best_number:
        return {"color": VERMILION, "linewidth": 2.2 if repeats == 1 else 1.3, "zorder": 4}
    if trial["state"] == "ok":
        return {"color": BLUE, "linewidth": 1.2, "alpha": 0.55, "zorder": 3}
    style: dict[str, Any] = {"color": "#B4BAC4", "linewidth": 1.1, "zorder": 2, "marker": "o", "markersize": 0}
    return style if trial["state"] != "running" else style | {"color": GREEN}


def _label_ends(axes: Axes, study: Rows, found: Sequence[tuple[Rows, Sequence[Points]]], best_number: int | None) -> None:
    """Params at the right edge, the best first; those that would cover another are left out."""
    ends = [(fmean(points[-1][1] for points in runs if points), trial) for trial, runs in found if trial["state"] == "ok"]
    bottom, top = axes.get_ylim()
    taken: list[float] = []
    for value, trial in sorted(ends, key=lambda end: (end[1]["number"] != best_number, cost(study, end[0]))):
        if not bottom <= value <= top or any(abs(value - other) < 0.05 * (top - bottom) for other in taken):
            continue
        taken.append(value)
        weight, colour = ("bold", VERMILION) if trial["number"] == best_number else ("normal", GREY)
        place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "size": 8.5}
        axes.annotate(params_text(study, trial["params"])[:28], (1.0, value), xytext=(5, 0), color=colour, weight=weight, **place)


def time_figure(study: Rows, rows: Mapping[int, Sequence[Points]]) -> Figure | None:
    """The learning curve of the best trial of each batch size, over tokens and over wall time; None with fewer than two sizes.

    The time of a row is its share of the run's tokens times what the run took.
    """
    scale = batch_scale(study)
    found = [
        (batch, rows[trial["number"]][0], seconds)
        for batch, trial in (best_of_each(study, scale).items() if scale else ())
        if (seconds := seconds_of_run(trial)) and rows.get(trial["number"])
    ]
    if scale is None or len(found) < 2:
        return None
    figure = Figure(figsize=(8, 3.6))
    left, right = figure.subplots(1, 2, sharey=True)
    figure.subplots_adjust(left=0.075, right=0.97, top=0.75, bottom=0.145, wspace=0.08)
    heading(figure, title(study), subtitle(study))
    caption(left, f"{study['objective']} of the best trial of each {names(study)[scale.key]}")
    unit, name = _unit(max(seconds for _, _, seconds in found))
    for colour, (batch, points, seconds) in zip(itertools.cycle(COLOURS), found, strict=False):
        tokens, values = zip(*points, strict=True)
        left.plot(tokens, values, color=colour, linewidth=1.4, label=short(batch))
        right.plot([seconds / unit * share / tokens[-1] for share in tokens], values, color=colour, linewidth=1.4)
        right.plot([seconds / unit], values[-1:], color=colour, marker="o", markersize=5)
    limit(left, study, _late([points for _, points, _ in found]))
    for axes in (left, right):
        axes.set_xlim(left=0)
    count_axis(left)
    left.set_xlabel("training tokens")
    right.set_xlabel(f"{name} of training")
    figure.legend(loc="upper right", bbox_to_anchor=(0.975, 0.845), ncols=len(found), handlelength=1.2, columnspacing=1.2, fontsize=9)
    return figure


def timeline_figure(study: Rows) -> Figure | None:
    """One row a slot, one bar a run, coloured by how it ended; None if nothing has started."""
    runs = [(row["number"], run) for row in [*study["trials"], *(study.get("confirm") or [])] for run in row["runs"] if run.get("started")]
    if not runs:
        return None
    begin = min(run["started"] for _, run in runs)
    end = max(run.get("ended") or study["updated"] for _, run in runs)
    unit, name = _unit(end - begin)
    slots = max(study.get("slots") or 1, 1 + max(run["slot"] for _, run in runs))
    figure = Figure(figsize=(8, 1.6 + 0.34 * slots))
    axes = figure.subplots()
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.085, right=0.97, top=1 - 0.95 / height, bottom=0.5 / height)
    heading(figure, title(study), f"{counted(len(runs), 'run')} on {study.get('device') or f'{slots} slots'}  ·  {duration(end - begin)}")
    for number, run in runs:
        stop = run.get("ended") or study["updated"]
        _draw_bar(axes, number, run, (run["started"] - begin) / unit, max(stop - run["started"], 0) / unit, (end - begin) / unit)
    axes.set_yticks(range(slots), [f"slot {slot}" for slot in range(slots)])
    axes.set_ylim(slots - 0.4, -0.6)
    axes.set_xlim(0, max((end - begin) / unit, 1e-9))
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(name)
    _state_legend(axes, {run["state"] for _, run in runs})
    return figure


def _draw_bar(axes: Axes, number: int, run: Rows, start: float, length: float, whole: float) -> None:
    colour = STATE_COLOURS.get(run["state"], LINE)
    axes.barh(run["slot"], length, left=start, height=0.72, color=colour, edgecolor="white", linewidth=0.8)
    if length > 0.018 * whole * len(str(number)):
        ink = INK if run["state"] in ("pruned", "stopped", "diverged") else "white"
        axes.text(start + length / 2, run["slot"], str(number), ha="center", va="center", size=8, color=ink, clip_on=True)


def _state_legend(axes: Axes, states: set[str]) -> None:
    for state in (state for state in STATE_COLOURS if state in states):
        axes.barh([0], [0], color=STATE_COLOURS[state], label=state)
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=6,
        handlelength=1.0,
        handleheight=0.9,
        columnspacing=1.2,
        borderpad=0.1,
        fontsize=9,
    )


def _unit(seconds: float) -> tuple[float, str]:
    return (1, "seconds") if seconds < 180 else (60, "minutes") if seconds < 3 * 3600 else (3600, "hours")


def ablate_figure(study: Rows) -> Figure | None:
    """Paired differences against the base with the interval that holds 95 %; None without a finished pair."""
    found = differences(study)
    if all(difference.mean is None for difference in found):
        return None
    figure = Figure(figsize=(8, 1.7 + 0.42 * len(found)))
    axes = figure.subplots()
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.30, right=0.75, top=1 - 0.95 / height, bottom=0.55 / height)
    heading(
        figure,
        title(study),
        f"{study['objective']}: paired difference to {study['ablate']['labels'][0]}, mean and 95 % interval over {max(row.seeds for row in found)} seeds",
    )
    for row, difference in enumerate(found):
        _draw_difference(axes, row, difference)
    axes.axvline(0, color=INK, linewidth=1.0, zorder=1)
    axes.set_yticks(range(len(found)), [difference.label[:36] for difference in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("better  ←        →  worse" if minimizes(study) else "worse  ←        →  better")
    return figure


def _draw_difference(axes: Axes, row: int, difference: Difference) -> None:
    colour = {"better": GREEN, "worse": VERMILION}.get(difference.verdict, GREY)
    if difference.mean is not None:
        reach = difference.reach or 0.0
        axes.plot([difference.mean - reach, difference.mean + reach], [row, row], color=colour, linewidth=2.2, zorder=2)
        axes.plot([difference.mean], [row], color=colour, marker="s", markersize=7, markeredgecolor="white", zorder=3)
    speed = f"  ·  {difference.speed:.2f}x speed" if difference.speed else ""
    place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "va": "center", "size": 9}
    axes.annotate(f"{difference.verdict}{speed}", (1.0, row), xytext=(8, 0), color=colour, **place)
