"""The comparison plot: curves of several runs in one picture, training thin, validation thick, over training tokens.

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

from gptshake.estimate.formatting import short_count
from gptshake.record.index import Entry
from gptshake.report.changes import key_text
from gptshake.report.difference import equal_tokens, names, setting, value_at, varying
from gptshake.report.frame import caption, edge_labels, frame, look, save, token_axis
from gptshake.report.plots_study import COLOURS
from gptshake.report.series import GREY, Floats, column, smooth, thin

_MOST_NAMED, _MOST_VALUES, _MOST_LETTERS = 3, 4, 24  # changed keys in a label, runs in the subtitle, letters of a value


def comparison_plot(entries: Sequence[Entry], folder: Path, name: str) -> list[Path]:
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
        return save(comparison_figure(drawn), folder, name)


def comparison_figure(entries: Sequence[Entry]) -> Figure:
    """The figure; every entry has a finite training loss."""
    bits = len({_data(entry, "tokenizer") for entry in entries}) > 1 and all(_data(entry, "bytes_per_token") for entry in entries)
    sources = {entry.source for entry in entries}
    title = f"{len(entries)} runs of {sources.pop()}" if len(sources) == 1 else ", ".join(names(entries)[:6])
    figure, (axes,) = frame(title, _subtitle(entries), 4.6)
    caption(axes, "bits per byte" if bits else "loss, nats per token")
    lowest, ends, smoothed = [], [], []
    colours = [*COLOURS[: len(entries)], *[GREY] * (len(entries) - len(COLOURS))]
    for colour, label, entry in zip(colours, _labels(entries), entries, strict=True):
        tokens, loss = _train(entry, bits=bits)
        val_tokens, val = column(entry.columns, "val/bpb" if bits else "val/loss")
        smoothed.append(smooth(loss))
        axes.plot(*thin(tokens, smoothed[-1]), color=colour, linewidth=0.9, alpha=0.55, label=None if len(val) else label)
        if len(val):
            marks: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markeredgecolor": "white"} if len(val) <= 40 else {}
            axes.plot(val_tokens, val, color=colour, linewidth=2.2 if len(entries) <= 4 else 1.6, label=label, **marks)
        lowest.append(float(min(smoothed[-1].min(), *val)) if len(val) else float(smoothed[-1].min()))
        end = float(val[-1] if len(val) else loss[-1])
        ends.append((end, f"{end:.4f}", colour))
    _limit(axes, min(lowest), smoothed)
    edge_labels(axes, ends)
    token_axis(axes)
    frame_of: dict[str, Any] = {"frameon": True, "framealpha": 0.85, "edgecolor": "white", "alignment": "left", "handlelength": 1.4}
    legend = axes.legend(loc="upper right", fontsize=9, title="thick: validation, thin: training", title_fontsize=9, **frame_of)
    legend.get_title().set_color(GREY)
    return figure


def _limit(axes: Axes, low: float, losses: Sequence[Floats]) -> None:
    """From below the lowest curve to where the first steps have been left behind; a run that diverged shows at the edge."""
    high = min(max(float(np.quantile(loss, 0.97)) for loss in losses), max(float(loss[0]) for loss in losses))
    room = (high - low) or 1.0
    axes.set_ylim(low - 0.06 * room, high + 0.06 * room)


def _subtitle(entries: Sequence[Entry]) -> str:
    """Bits per byte at equal tokens, the best first; of many runs the best alone."""
    tokens = equal_tokens(entries)
    values = [value_at(entry.rows, "val/bpb", tokens) for entry in entries] if tokens else []
    known = sorted((value, name) for name, value in zip(names(entries), values, strict=False) if value is not None)
    if not known:
        return "no validation in common"
    best = f"  (the best of {len(known)})" if len(known) > _MOST_VALUES else ""
    shown = "  ·  ".join(f"{name} {value:.4f}" for value, name in (known[:1] if best else known))
    return f"bits per byte at {short_count(tokens)} tokens:  {shown}{best}"


def _labels(entries: Sequence[Entry]) -> list[str]:
    """The id and what differs between the runs; of a long value the end, where paths differ."""
    keys = varying([entry for entry in entries if entry.config])[:_MOST_NAMED]
    labels = []
    for name, entry in zip(names(entries), entries, strict=True):
        values = {key: setting(entry, key) for key in keys} if entry.config else {}
        ends = {key: text if len(text) <= _MOST_LETTERS else f"…{text[-_MOST_LETTERS:]}" for key, text in values.items()}
        labels.append("  ".join([name, *(f"{key_text(key)} {text}" for key, text in ends.items())]))
    return labels


def _train(entry: Entry, *, bits: bool) -> tuple[Floats, Floats]:
    tokens, loss = column(entry.columns, "train/loss")
    hidden = ((_data(entry, "unknown") or {}).get("train") or {}).get("nats_per_token", 0.0)
    return tokens, (loss + hidden) / (math.log(2) * float(_data(entry, "bytes_per_token"))) if bits else loss


def _data(entry: Entry, key: str) -> Any:
    node = entry.info.get("data")
    return node.get(key) if isinstance(node, dict) else None
