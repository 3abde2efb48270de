"""Curves of several runs in one picture: training thin, validation thick, over training tokens.

Takes entries; gives ``<name>.png`` and ``.svg``. Runs with different tokenizers are drawn in bits per byte, which compare; others
in nats per token, as everywhere else. Runs without a finite loss are left out.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptshake.estimate.words import short_count
from gptshake.record.catalogue import Entry
from gptshake.report.changes import key_text
from gptshake.report.difference import equal_tokens, names, setting, value_at, varying
from gptshake.report.frame import GREY, caption, count_axis, heading, look, save
from gptshake.report.outcome import source
from gptshake.report.plots_study import COLOURS
from gptshake.report.series import Floats, column, smooth, spread, thin

_MOST_NAMED, _MOST_VALUES = 3, 4  # changed keys in a label, runs in the subtitle


def overlay(entries: Sequence[Entry], folder: Path, name: str) -> list[Path]:
    """Draw the curves of some runs.

    Returns:
        The files written; none if no run has a finite training loss.
    Raises:
        OSError: the folder cannot be written.
    """
    drawn = [entry for entry in entries if len(_train(entry, bits=False)[1])]
    if not drawn:
        return []
    with look():
        return save(draw(drawn), folder, name)


def draw(entries: Sequence[Entry]) -> Figure:
    """The figure; every entry has a finite training loss."""
    bits = len({_data(entry, "tokenizer") for entry in entries}) > 1 and all(_data(entry, "bytes_per_token") for entry in entries)
    figure = Figure(figsize=(8, 4.6))
    axes = figure.subplots()
    figure.subplots_adjust(left=0.075, right=0.885, top=0.80, bottom=0.11)
    heading(figure, _title(entries), _subtitle(entries))
    caption(axes, "bits per byte" if bits else "loss, nats per token")
    floors, ends = [], []
    for colour, label, entry in zip(_colours(len(entries)), _labels(entries), entries, strict=True):
        low, end = _draw_run(axes, entry, colour, label, bits=bits, width=2.2 if len(entries) <= 4 else 1.6)
        floors.append(low)
        ends.append((end, colour))
    _limit(axes, entries, floors, bits=bits)
    _name_ends(axes, ends)
    axes.set_xlim(left=0)
    axes.set_xlabel("training tokens")
    count_axis(axes)
    _draw_legend(axes)
    return figure


def _draw_legend(axes: Axes) -> None:
    look_of_it: dict[str, Any] = {"frameon": True, "framealpha": 0.85, "edgecolor": "white", "alignment": "left"}
    legend = axes.legend(
        loc="upper right", handlelength=1.4, fontsize=9, title="thick: validation, thin: training", title_fontsize=9, **look_of_it
    )
    legend.get_title().set_color(GREY)


def _draw_run(axes: Axes, entry: Entry, colour: str, label: str, *, bits: bool, width: float) -> tuple[float, float]:
    """Both curves; gives the lowest value and the last one."""
    tokens, loss = _train(entry, bits=bits)
    val_tokens, val = column(entry.columns, "val/bpb" if bits else "val/loss")
    axes.plot(*thin(tokens, smooth(loss)), color=colour, linewidth=0.9, alpha=0.55, label=None if len(val) else label)
    if len(val):
        marker = "o" if len(val) <= 40 else None
        axes.plot(val_tokens, val, color=colour, linewidth=width, marker=marker, markersize=4.5, markeredgecolor="white", label=label)
    return float(min(smooth(loss).min(), *val)) if len(val) else float(smooth(loss).min()), float(val[-1] if len(val) else loss[-1])


def _limit(axes: Axes, entries: Sequence[Entry], floors: Sequence[float], *, bits: bool) -> None:
    """From below the lowest curve to where the first steps have been left behind; a run that diverged shows at the edge."""
    losses = [smooth(_train(entry, bits=bits)[1]) for entry in entries]
    low, high = min(floors), min(max(float(np.quantile(loss, 0.97)) for loss in losses), max(float(loss[0]) for loss in losses))
    room = (high - low) or 1.0
    axes.set_ylim(low - 0.06 * room, high + 0.06 * room)


def _name_ends(axes: Axes, ends: Sequence[tuple[float, str]]) -> None:
    """The last value of each curve at the right edge, in its colour."""
    bottom, top = axes.get_ylim()
    ordered = sorted(ends, reverse=True)
    gap = min(0.05, 1 / len(ends)) * (top - bottom)
    sunk = spread([min(value, top) for value, _ in ordered], gap)
    heights = [-height for height in spread([-max(height, bottom) for height in reversed(sunk)], gap)][::-1]  # none below the axis
    for (value, colour), y in zip(ordered, heights, strict=True):
        place: dict[str, Any] = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points"}
        axes.annotate(f"{value:.4f}", (1.0, y), xytext=(6, 0), color=colour, size=9.5, va="center", **place)


def _title(entries: Sequence[Entry]) -> str:
    sources = {source(entry) for entry in entries}
    return f"{len(entries)} runs of {sources.pop()}" if len(sources) == 1 else ", ".join(names(entries)[:6])


def _subtitle(entries: Sequence[Entry]) -> str:
    """Bits per byte at equal tokens, the best first; of many runs the best alone."""
    tokens = equal_tokens(entries)
    values = [value_at(entry.rows, "val/bpb", tokens) for entry in entries] if tokens else []
    known = sorted((value, name) for name, value in zip(names(entries), values, strict=False) if value is not None)
    if not known:
        return "no validation in common"
    best = f"  (the best of {len(known)})" if len(known) > _MOST_VALUES else ""
    said = "  ·  ".join(f"{name} {value:.4f}" for value, name in (known[:1] if best else known))
    return f"bits per byte at {short_count(tokens)} tokens:  {said}{best}"


def _labels(entries: Sequence[Entry]) -> list[str]:
    """The id and what sets the run apart."""
    keys = varying([entry for entry in entries if entry.config])[:_MOST_NAMED]
    return [
        "  ".join([name, *(f"{key_text(key)} {_end_of(setting(entry, key))}" for key in keys if entry.config)])
        for name, entry in zip(names(entries), entries, strict=True)
    ]


def _end_of(text: str, most: int = 24) -> str:
    """A long value by its end, where paths differ."""
    return text if len(text) <= most else f"…{text[-most:]}"


def _train(entry: Entry, *, bits: bool) -> tuple[Floats, Floats]:
    tokens, loss = column(entry.columns, "train/loss")
    hidden = ((_data(entry, "unknown") or {}).get("train") or {}).get("nats_per_token", 0.0)
    return tokens, (loss + hidden) / (math.log(2) * float(_data(entry, "bytes_per_token"))) if bits else loss


def _data(entry: Entry, key: str) -> Any:
    node = entry.info.get("data")
    return node.get(key) if isinstance(node, dict) else None


def _colours(n: int) -> list[str]:
    """One for each run; those that come after the palette's end are grey."""
    return [*COLOURS[:n], *[GREY] * (n - len(COLOURS))]
