"""A run's curves: loss over tokens with the three lines every language model is measured against, and the learning rate.

ln V is what guessing gives, the unigram line what letter frequencies give, the bigram line what the last token alone
gives: a model above the unigram line ignores context. Takes a run directory, reads its metrics.csv and run.json, and
gives ``plots/loss.png`` and ``.svg``. Long runs are thin to the extremes of 1,000 intervals, which look the same.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptshake.estimate.words import counted, short_count
from gptshake.record.metrics import DRAWN, Columns, read_columns
from gptshake.record.names import title_of
from gptshake.record.run import read_run
from gptshake.report.frame import BLUE, GREEN, GREY, VERMILION, caption, count_axis, heading, look, save, short_rate
from gptshake.report.series import REFERENCES, column, smooth, spread, thin


def plot_run(run_dir: Path) -> list[Path]:
    """Draw a run's loss and learning rate.

    Returns:
        The files written; none for a run without a finite training loss.
    Raises:
        RecordError: if there is no run, or its metrics.csv is damaged.
    """
    info, columns = read_run(run_dir), read_columns(run_dir / "metrics.csv", DRAWN)
    if not len(column(columns, "train/loss")[0]):
        return []
    with look():
        return save(draw(info, columns), run_dir / "plots", "loss")


def draw(info: Mapping[str, Any], columns: Columns) -> Figure:
    """The figure: loss above, learning rate below, over training tokens.

    Args:
        info: the run's run.json; ``data.entropy`` (nats) gives the lines.
        columns: of metrics.csv, ``DRAWN``.
    """
    figure = Figure(figsize=(8, 5))
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(5, 1))
    figure.subplots_adjust(left=0.075, right=0.865, top=0.815, bottom=0.095, hspace=0.22)
    heading(figure, title_of(info), _subtitle(info, columns))
    _draw_loss(upper, columns)
    _draw_references(upper, (info.get("data") or {}).get("entropy") or {})
    _draw_learning_rate(lower, columns)
    return figure


def _draw_loss(axes: Axes, columns: Columns) -> None:
    tokens, loss = column(columns, "train/loss")
    axes.plot(*thin(tokens, loss), color=BLUE, alpha=0.22, linewidth=0.8)
    axes.plot(*thin(tokens, smooth(loss)), color=BLUE, linewidth=1.8, label="train")
    lowest = float(smooth(loss).min())
    tokens, loss = column(columns, "val/loss")
    if len(loss):
        marker = "o" if len(loss) <= 40 else None
        axes.plot(
            *thin(tokens, loss),
            color=VERMILION,
            linewidth=1.8,
            marker=marker,
            markersize=5,
            markeredgecolor="white",
            label="val",
        )
        lowest = min(lowest, float(loss.min()))
    caption(axes, "loss, nats per token")
    axes.set_xlim(left=0)
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom=max(bottom, lowest - 0.08 * (top - lowest)), top=top)
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.98), ncols=2, handlelength=1.4, borderpad=0.2)


def _draw_references(axes: Axes, entropy: Mapping[str, float]) -> None:
    """The closed-form lines, named at the right edge; the axis grows to hold them all."""
    known = [(name, float(entropy[key])) for key, name in REFERENCES if entropy.get(key) is not None]
    if not known:
        return
    bottom, top = axes.get_ylim()
    span = max(top, *(value for _, value in known)) - bottom
    axes.set_ylim(min(bottom, *(value - 0.05 * span for _, value in known)), max(top, *(value + 0.05 * span for _, value in known)))
    labels = spread([value for _, value in known], gap=0.05 * (axes.get_ylim()[1] - axes.get_ylim()[0]))
    edge = axes.get_yaxis_transform()
    for (name, value), y in zip(known, labels, strict=True):
        axes.axhline(value, color=GREY, linewidth=1.0, linestyle=(0, (5, 3)), zorder=1.5)
        text = f"{name} {value:.2f}"
        axes.annotate(text, (1.0, y), xytext=(6, 0), xycoords=edge, textcoords="offset points", color=GREY, size=9.5, va="center")


def _draw_learning_rate(axes: Axes, columns: Columns) -> None:
    tokens, rate = column(columns, "train/lr")
    axes.plot(*thin(tokens, rate), color=GREEN, linewidth=1.6)
    peak = float(rate.max()) if len(rate) else 0.0
    if peak > 0:
        axes.fill_between(*thin(tokens, rate), color=GREEN, alpha=0.12, linewidth=0)
        axes.set_ylim(0, 1.15 * peak)
        axes.set_yticks([0, peak], ["0", short_rate(peak)])
    caption(axes, "learning rate")
    axes.set_xlabel("training tokens")
    count_axis(axes)


def _subtitle(info: Mapping[str, Any], columns: Columns) -> str:
    def last(name: str) -> float | None:
        return next((value for value in reversed(columns[name]) if not math.isnan(value)), None)

    loss, bpb = last("val/loss"), last("val/bpb")
    parts = [
        f"val loss {loss:.3f}" if loss is not None else None,
        f"{bpb:.3f} bits per byte" if bpb is not None else None,
        counted(int(columns["step"][-1]), "step"),
        f"{short_count(columns['train/tokens'][-1])} tokens",
        str(info["id"]),
    ]
    return "  ·  ".join(part for part in parts if part)
