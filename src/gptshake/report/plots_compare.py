"""The comparison plot: curves of several runs in one picture, training thin, validation thick, over training tokens.

Runs with different tokenizers are drawn in bits per byte, which compare; others in nats per token, as everywhere else. Runs without a
finite loss are left out.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gptshake.estimate.formatting import short_count
from gptshake.record.index import Entry
from gptshake.report.changes import key_text
from gptshake.report.difference import equal_tokens, names, setting, value_at, varying
from gptshake.report.frame import caption, edge_labels, frame, look, save, token_axis
from gptshake.report.plots_study import COLOURS
from gptshake.report.series import GREY, column, smooth, thin


def comparison_plot(entries: Sequence[Entry], folder: Path, name: str) -> list[Path]:
    """Draw ``<name>.png`` and ``.svg``.

    Returns:
        The files written; none if no run has a finite training loss.
    Raises:
        OSError: the folder cannot be written.
    """
    entries = [entry for entry in entries if len(column(entry.columns, "train/loss")[0])]
    if not entries:
        return []
    data = [entry.part("data") for entry in entries]
    bits = len({one.get("tokenizer") for one in data}) > 1 and all(one.get("bytes_per_token") for one in data)
    sources = {entry.source for entry in entries}
    title = f"{len(entries)} runs of {sources.pop()}" if len(sources) == 1 else ", ".join(names(entries)[:6])
    with look():
        figure, (axes,) = frame(title, _subtitle(entries), 4.6)
        caption(axes, "bits per byte" if bits else "loss, nats per token")
        lows, highs, firsts, ends = [], [], [], []
        colours = [*COLOURS[: len(entries)], *[GREY] * (len(entries) - len(COLOURS))]
        for colour, label, entry, about in zip(colours, _labels(entries), entries, data, strict=True):
            (tokens, loss), (val_tokens, val) = (column(entry.columns, key) for key in ("train/loss", "val/bpb" if bits else "val/loss"))
            if bits:
                hidden = ((about.get("unknown") or {}).get("train") or {}).get("nats_per_token", 0.0)
                loss = (loss + hidden) / (math.log(2) * float(about["bytes_per_token"]))
            smoothed = smooth(loss)
            axes.plot(*thin(tokens, smoothed), color=colour, linewidth=0.9, alpha=0.55, label=None if len(val) else label)
            if len(val):
                marks: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markeredgecolor": "white"} if len(val) <= 40 else {}
                axes.plot(val_tokens, val, color=colour, linewidth=2.2 if len(entries) <= 4 else 1.6, label=label, **marks)
            lows.append(min([float(smoothed.min()), *map(float, val)]))
            highs.append(float(np.quantile(smoothed, 0.97)))
            firsts.append(float(smoothed[0]))
            end = float(val[-1] if len(val) else loss[-1])
            ends.append((end, f"{end:.4f}", colour))
        low, high = min(lows), min(max(highs), max(firsts))  # the first steps are left behind; a run that diverged shows at the edge
        margin = 0.06 * ((high - low) or 1.0)
        axes.set_ylim(low - margin, high + margin)
        edge_labels(axes, ends)
        token_axis(axes)
        look_of: dict[str, Any] = {"frameon": True, "framealpha": 0.85, "edgecolor": "white", "alignment": "left", "handlelength": 1.4}
        legend = axes.legend(loc="upper right", fontsize=9, title="thick: validation, thin: training", title_fontsize=9, **look_of)
        legend.get_title().set_color(GREY)
        return save(figure, folder, name)


def _subtitle(entries: Sequence[Entry]) -> str:
    """Bits per byte at equal tokens, the best first; of many runs the best alone."""
    tokens = equal_tokens(entries)
    values = [value_at(entry.rows, "val/bpb", tokens) for entry in entries] if tokens else []
    known = sorted((value, name) for name, value in zip(names(entries), values, strict=False) if value is not None)
    if not known:
        return "no validation in common"
    best = f"  (the best of {len(known)})" if len(known) > 4 else ""
    shown = "  ·  ".join(f"{name} {value:.4f}" for value, name in (known[:1] if best else known))
    return f"bits per byte at {short_count(tokens)} tokens:  {shown}{best}"


def _labels(entries: Sequence[Entry]) -> list[str]:
    """The id and what differs between the runs; of a long value the end, where paths differ."""
    keys = varying([entry for entry in entries if entry.config])[:3]
    labels = []
    for name, entry in zip(names(entries), entries, strict=True):
        values = {key: setting(entry, key) for key in keys} if entry.config else {}
        ends = {key: text if len(text) <= 24 else f"…{text[-24:]}" for key, text in values.items()}
        labels.append("  ".join([name, *(f"{key_text(key)} {text}" for key, text in ends.items())]))
    return labels
