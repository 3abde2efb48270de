"""The plots of a run: loss over tokens with the three lines every language model is measured against, the noise scale, several runs.

ln V is what guessing gives, the unigram line what character frequencies give, the bigram line what the last token alone gives: a model
above the unigram line ignores context. Takes a run directory and writes PNG and SVG into ``plots/``; ``metrics`` is what callbacks
logged. Long runs are reduced to the extremes of 1,000 intervals, which look the same.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptshake.estimate.formatting import counted, short_count, short_rate
from gptshake.estimate.noise_scale import Estimate, running_estimates, two_digits
from gptshake.record.index import Entry
from gptshake.record.metrics import DRAWN, Columns, Row, other_columns, read_columns, read_measurements
from gptshake.record.names import title_of
from gptshake.record.run import read_run
from gptshake.report.changes import key_text
from gptshake.report.diff_text import equal_tokens, names, setting, value_at, varying
from gptshake.report.figure import DASHED, caption, edge_labels, frame, label, legend_above, log_axis, plot_style, save, token_axis
from gptshake.report.plots_study import COLOURS
from gptshake.report.reproduction import Comparison
from gptshake.report.series import BLUE, GREEN, GREY, INK, ORANGE, REFERENCES, VERMILION, Floats, column, smooth, thin

SMALLEST = 1e-16  # half the distance between neighbouring doubles at 1
POINTS = 400  # of the noise scale's curve: the average moves slowly


@plot_style()
def plot_run(run_dir: Path) -> list[Path]:
    """Draw ``plots/loss.png`` and ``.svg``: loss and learning rate; ``plots/metrics``: what callbacks have added.

    Returns:
        The files written; none for a run without a finite training loss.
    Raises:
        RecordError: if there is no run, or its metrics.csv is damaged.
    """
    others = other_columns(run_dir / "metrics.csv")
    info, columns = read_run(run_dir), read_columns(run_dir / "metrics.csv", (*DRAWN, *others))
    if not (loss := loss_figure(info, columns)):
        return []
    files = save(loss, run_dir / "plots", "loss")
    shown = [name for name in others if len(column(columns, name)[0])]
    if not shown:
        return files
    across, down = min(3, len(shown)), math.ceil(len(shown) / 3)
    figure, cells = frame(title_of(info), str(info["id"]), 1.2 + 1.7 * down, down, across)
    for axes, name in zip(cells, shown, strict=False):
        tokens, values = column(columns, name)
        axes.plot(*thin(tokens, values), color=BLUE, linewidth=1.4, marker="o" if len(values) <= 40 else None, markersize=3)
        caption(axes, name[-40:])
        token_axis(axes)
    for axes in cells[len(shown) :]:
        axes.axis("off")
    return [*files, *save(figure, run_dir / "plots", "metrics")]


def loss_figure(info: Mapping[str, Any], columns: Columns) -> Figure | None:
    """Loss above, learning rate below, over training tokens, from run.json and metrics.csv; None without a finite training loss."""
    (train_tokens, train), (val_tokens, val), (_, bpb) = (column(columns, name) for name in ("train/loss", "val/loss", "val/bpb"))
    if not len(train):
        return None
    smoothed = smooth(train)
    parts = [*([f"val loss {val[-1]:.3f}"] if len(val) else []), *([f"{bpb[-1]:.3f} bits per byte"] if len(bpb) else [])]
    parts += [counted(int(columns["step"][-1]), "step"), f"{short_count(columns['train/tokens'][-1])} tokens", str(info["id"])]
    figure, (upper, lower) = frame(title_of(info), "  ·  ".join(parts), 5, 2, sharex=True, height_ratios=(5, 1))
    upper.plot(*thin(train_tokens, train), color=BLUE, alpha=0.22, linewidth=0.8)
    upper.plot(*thin(train_tokens, smoothed), color=BLUE, linewidth=1.8, label="train")
    if len(val):
        marks: dict[str, Any] = {"marker": "o", "markersize": 5, "markeredgecolor": "white"} if len(val) <= 40 else {}
        upper.plot(*thin(val_tokens, val), color=VERMILION, linewidth=1.8, label="val", **marks)
    caption(upper, "loss, nats per token")
    legend_above(upper, fontsize=10)
    # The axis grows to hold the reference lines, which are named at the right edge.
    lowest, (bottom, top) = min(smoothed.min(), *val) if len(val) else smoothed.min(), upper.get_ylim()
    bottom, entropy = max(bottom, lowest - 0.08 * (top - lowest)), (info.get("data") or {}).get("entropy") or {}
    known = {name: float(entropy[key]) for key, name in REFERENCES if entropy.get(key) is not None}
    margin = 0.05 * (max([top, *known.values()]) - bottom)
    upper.set_ylim(min([bottom, *(value - margin for value in known.values())]), max([top, *(value + margin for value in known.values())]))
    for value in known.values():
        upper.axhline(value, color=GREY, linewidth=1.0, linestyle=DASHED, zorder=1.5)
    edge_labels(upper, [(value, f"{name} {value:.2f}", GREY) for name, value in known.items()])
    tokens, rate = column(columns, "train/lr")
    lower.plot(*thin(tokens, rate), color=GREEN, linewidth=1.6)
    peak = float(rate.max(initial=0))
    if peak > 0:
        lower.fill_between(*thin(tokens, rate), color=GREEN, alpha=0.12, linewidth=0)
        lower.set_ylim(0, 1.15 * peak)
        lower.set_yticks([0, peak], ["0", short_rate(peak)])
    caption(lower, "learning rate")
    token_axis(lower)
    return figure


class Batch(NamedTuple):
    """A run's batch, which the noise scale is compared with."""

    sequences: int
    block_size: int  # tokens of a sequence


def batch_of(info: Mapping[str, Any]) -> Batch:
    sequences = int(info["resolved"]["data.batch_size"])
    return Batch(sequences, int(info["budget"]["tokens_per_step"]) // sequences)


def plot_noise_scale(run_dir: Path) -> list[Path]:
    """Draw ``plots/noise_scale.png`` and ``.svg`` of what a run measured; gives their paths, none for a run without measurements."""
    estimates = running_estimates(read_measurements(run_dir))
    if not estimates:
        return []
    info = read_run(run_dir)
    return draw_noise_scale(estimates, batch_of(info), title_of(info), run_dir / "plots")


@plot_style()
def draw_noise_scale(estimates: Sequence[Estimate], batch: Batch, name: str, folder: Path) -> list[Path]:
    return save(noise_figure(estimates, batch, name), folder, "noise_scale")


def noise_figure(estimates: Sequence[Estimate], batch: Batch, name: str) -> Figure:
    """Noise scale above, signal and noise of a step's gradient below, over training tokens; few estimates are points with bars."""
    last = estimates[-1]
    about = "noise scale cannot be estimated at the end"
    if last.scale is not None and last.low is not None and last.high is not None:
        interval = f"{two_digits(last.low)} to {two_digits(last.high)}"
        sizes = f"{short_count(last.scale * batch.block_size)} tokens  ·  batch is {batch.sequences / last.scale:.2g} x"
        about = f"noise scale {two_digits(last.scale)} sequences ({interval})  ·  {sizes}"
    subtitle = f"{about}  ·  under Adam a lower bound of the critical batch"
    figure, (upper, lower) = frame(name, subtitle, 5, 2, sharex=True, height_ratios=(5, 2))
    shown = [*estimates[:: max(1, len(estimates) // POINTS)][:-1], last]
    _draw_scale(upper, shown, batch)
    tokens = [one.tokens for one in shown]
    parts = {  # what is not distinct from 0 is left out
        ("signal", GREEN): [one.signal if one.signal > 2 * one.signal_error < math.inf else math.nan for one in shown],
        ("noise", ORANGE): [one.noise / batch.sequences if one.noise > 0 else math.nan for one in shown],
    }
    finite = [value for values in parts.values() for value in values if math.isfinite(value)]
    if finite:
        log_axis(lower, "y", (min(finite) / 1.4, max(finite) * 1.4), two_digits, most=6)
    for (_, colour), values in parts.items():
        lower.plot(tokens, values, color=colour, linewidth=1.6, marker="o" if len(shown) <= 5 else None)
    ends = [(values[-1], part, colour) for (part, colour), values in parts.items() if math.isfinite(values[-1])]
    edge_labels(lower, [(value, f"{part} {two_digits(value)}", colour) for value, part, colour in ends])
    caption(lower, "a step's squared gradient: signal |G|², and noise S / batch")
    token_axis(lower)
    return figure


def _draw_scale(axes: Axes, estimates: Sequence[Estimate], batch: Batch) -> None:
    tokens = np.array([one.tokens for one in estimates], float)
    scale, low, high = np.array([(one.scale, one.low, one.high) for one in estimates], float).T  # None becomes NaN
    known = np.isfinite(scale)
    seen, centre = [*scale[known], *low[known], *high[known], batch.sequences], [*scale[known], batch.sequences]
    log_axis(axes, "y", (max(min(seen), min(centre) / 4) / 1.4, min(max(seen), 4 * max(centre)) * 1.4), two_digits, most=8)
    if len(estimates) <= 5:
        axes.errorbar(tokens, scale, (scale - low, high - scale), color=BLUE, fmt="o", markersize=6, capsize=4, linewidth=1.4)
    else:
        axes.fill_between(tokens, low, high, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(tokens, scale, color=BLUE, linewidth=1.8)
    axes.axhline(batch.sequences, color=VERMILION, linewidth=1.4, linestyle=DASHED)
    named = [(float(batch.sequences), f"batch {two_digits(batch.sequences)}", VERMILION)]
    edge_labels(axes, [*named, *([(float(scale[-1]), f"noise scale {two_digits(scale[-1])}", BLUE)] if known[-1] else [])])
    if not known.any():
        axes.text(0.5, 0.6, "it cannot be estimated yet", transform=axes.transAxes, ha="center", color=GREY, size=11)
    caption(axes, f"noise scale, sequences of {batch.block_size} tokens; the band is ± 2 standard errors")


@plot_style()
def comparison_plot(entries: Sequence[Entry], folder: Path, name: str) -> list[Path]:
    """Curves of several runs in one picture, ``<name>.png`` and ``.svg``: training thin, validation thick, over training tokens.

    Runs with different tokenizers are drawn in bits per byte, which compare. Runs without a finite loss are left out.

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
    figure, (axes,) = frame(title, _subtitle(entries), 4.6)
    caption(axes, "bits per byte" if bits else "loss, nats per token")
    lows, highs, firsts, ends = [], [], [], []
    colours = [*COLOURS[: len(entries)], *[GREY] * (len(entries) - len(COLOURS))]
    for colour, called, entry, about in zip(colours, _labels(entries), entries, data, strict=True):
        (tokens, loss), (val_tokens, val) = (column(entry.columns, key) for key in ("train/loss", "val/bpb" if bits else "val/loss"))
        if bits:
            hidden = ((about.get("unknown") or {}).get("train") or {}).get("nats_per_token", 0.0)
            loss = (loss + hidden) / (math.log(2) * float(about["bytes_per_token"]))
        smoothed = smooth(loss)
        axes.plot(*thin(tokens, smoothed), color=colour, linewidth=0.9, alpha=0.55, label=None if len(val) else called)
        if len(val):
            marks: dict[str, Any] = {"marker": "o", "markersize": 4.5, "markeredgecolor": "white"} if len(val) <= 40 else {}
            axes.plot(val_tokens, val, color=colour, linewidth=2.2 if len(entries) <= 4 else 1.6, label=called, **marks)
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


@plot_style()
def reproduction_plot(
    info: Mapping[str, Any], then: Sequence[Row], now: Sequence[Row], found: Comparison, folder: Path, *, tolerance: float
) -> list[Path]:
    """Draw ``reproduction.png`` and ``.svg`` into a folder: both runs' losses over tokens, and below how far they are apart.

    The run is drawn broad and pale, its repetition thin and dark on top of it, so that equal curves look like one line with an edge.
    """
    worst = found.largest
    deviation = f"largest deviation {worst.relative:.1e} at step {worst.step:,}" if worst else "nothing to compare"
    length = f"{counted(found.steps, 'step')}, {short_count(then[-1]['train/tokens'])} tokens"
    subtitle = f"{'bit-identical' if found.identical else deviation}  ·  {length}  ·  {info['id']} and its reproduction"
    tokens = {row["step"]: row["train/tokens"] for row in then}
    finite = [one._replace(relative=max(one.relative, SMALLEST)) for one in found.deviations if math.isfinite(one.relative)]
    figure, (upper, lower) = frame(title_of(info), subtitle, 5, 2, sharex=True, height_ratios=(3, 1.3))
    for name, colour, size in (("train/loss", BLUE, 2.0), ("val/loss", VERMILION, 5.0)):
        for rows, which, alpha, width in ((then, "the run", 0.28, 5.0), (now, "again", 1.0, 1.2)):
            line = _thinned((row["train/tokens"], row[name]) for row in rows if math.isfinite(row.get(name, math.nan)))
            upper.plot(*line, color=colour, label=f"{name.partition('/')[0]}, {which}", alpha=alpha, linewidth=width)
        points = _thinned((tokens[one.step], one.relative) for one in finite if one.column == name)
        lower.plot(*points, "o", color=colour, markersize=size, markeredgewidth=0)
    caption(upper, "loss, nats per token")
    legend_above(upper, fontsize=10)
    caption(lower, "relative deviation of each loss")
    token_axis(lower)
    if finite:
        limit, relative = tolerance or SMALLEST, [one.relative for one in finite]
        lower.set(yscale="log", ylim=(min(relative) / 4, max(tolerance, *relative) * 12))
        lower.axhline(limit, color=GREY, linewidth=1.0, linestyle=DASHED)
        label(lower, f"tolerance {tolerance:g}", (1.0, limit), (-2, 3), "x", color=GREY, size=8.5, ha="right", in_layout=False)
    else:
        lower.axhline(0, color=GREEN, linewidth=1.6)
        lower.set(ylim=(-1, 1), yticks=[0])
        text = "every value is the same, bit for bit" if found.identical else ""
        lower.text(0.5, 0.72, text, transform=lower.transAxes, ha="center", size=9.5, color=INK)
    return save(figure, folder, "reproduction")


def _thinned(points: Iterable[tuple[float, float]]) -> tuple[Floats, Floats]:
    both = np.array(list(points), dtype=np.float64).reshape(-1, 2)
    return thin(both[:, 0], both[:, 1])
