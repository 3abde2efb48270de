"""The noise scale of a run over its tokens, as a band, with the run's batch as a line; below it what it is made of.

Takes measurements of a run directory or of checkpoints, gives ``noise_scale.png`` and ``.svg``. Where nothing can be told, there
is nothing drawn.
"""

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

from gptshake.estimate.noise_scale import Estimate, running, short
from gptshake.estimate.words import short_count
from gptshake.record.names import title_of
from gptshake.record.noise_scale import read_measurements
from gptshake.record.run import read_run
from gptshake.report.frame import BLUE, GREEN, GREY, ORANGE, VERMILION, caption, count_axis, heading, look, save
from gptshake.report.series import spread

POINTS = 400  # of a curve: the average moves slowly


class Batch(NamedTuple):
    """The run's batch, to be held against the noise scale."""

    sequences: int
    block_size: int  # tokens of a sequence


def batch_of(info: Mapping[str, Any]) -> Batch:
    """A run's batch from its run.json."""
    sequences = int(info["resolved"]["data.batch_size"])
    return Batch(sequences, int(info["budget"]["tokens_per_step"]) // sequences)


def plot_noise_scale(run_dir: Path) -> list[Path]:
    """Draw what a run measured, into its ``plots/``.

    Returns:
        The files written; none for a run without measurements.
    Raises:
        RecordError: if there is no run, or its noise_scale.csv is damaged.
    """
    estimates = running(read_measurements(run_dir))
    if not estimates:
        return []
    info = read_run(run_dir)
    return draw(estimates, batch_of(info), title_of(info), run_dir / "plots")


def draw(estimates: Sequence[Estimate], batch: Batch, name: str, folder: Path) -> list[Path]:
    """Write ``noise_scale.png`` and ``.svg``; gives their paths."""
    with look():
        return save(figure(estimates, batch, name), folder, "noise_scale")


def figure(estimates: Sequence[Estimate], batch: Batch, name: str) -> Figure:
    """Noise scale above, signal and noise of a step's gradient below, over training tokens.

    Args:
        estimates: in order of tokens; few are drawn as points with bars.
        batch: of the run.
        name: of the run, for people.
    """
    picture = Figure(figsize=(8, 5))
    upper, lower = picture.subplots(2, 1, sharex=True, height_ratios=(5, 2))
    picture.subplots_adjust(left=0.085, right=0.865, top=0.815, bottom=0.095, hspace=0.24)
    heading(picture, name, _subtitle(estimates, batch))
    every = max(1, len(estimates) // POINTS)
    shown = [*estimates[::every][:-1], estimates[-1]]
    _draw_scale(upper, shown, batch)
    _draw_parts(lower, shown, batch)
    return picture


def _draw_scale(axes: Axes, estimates: Sequence[Estimate], batch: Batch) -> None:
    tokens = np.array([one.tokens for one in estimates], float)
    scale, low, high = (
        np.array([np.nan if value is None else value for value in values])
        for values in zip(*((one.scale, one.low, one.high) for one in estimates), strict=True)
    )
    if len(estimates) <= 5:
        axes.errorbar(tokens, scale, (scale - low, high - scale), color=BLUE, fmt="o", markersize=6, capsize=4, linewidth=1.4)
    else:
        axes.fill_between(tokens, low, high, color=BLUE, alpha=0.18, linewidth=0)
        axes.plot(tokens, scale, color=BLUE, linewidth=1.8)
    axes.axhline(batch.sequences, color=VERMILION, linewidth=1.4, linestyle=(0, (5, 3)))
    known = np.isfinite(scale)
    seen = [*scale[known], *low[known], *high[known], batch.sequences]
    centre = [*scale[known], batch.sequences]
    _limit(axes, max(min(seen), min(centre) / 4), min(max(seen), 4 * max(centre)))
    _name(axes, {"batch": (batch.sequences, VERMILION)} | ({"noise scale": (float(scale[-1]), BLUE)} if known[-1] else {}))
    if not known.any():
        axes.text(0.5, 0.6, "it cannot be estimated yet", transform=axes.transAxes, ha="center", color=GREY, size=11)
    caption(axes, f"noise scale, sequences of {batch.block_size} tokens; the band is ± 2 standard errors")


def _draw_parts(axes: Axes, estimates: Sequence[Estimate], batch: Batch) -> None:
    tokens = [one.tokens for one in estimates]
    few = "o" if len(estimates) <= 5 else None
    sure = [one.signal if one.signal > 2 * one.signal_error < inf else np.nan for one in estimates]
    noise = [one.noise / batch.sequences if one.noise > 0 else np.nan for one in estimates]
    axes.plot(tokens, sure, color=GREEN, linewidth=1.6, marker=few)
    axes.plot(tokens, noise, color=ORANGE, linewidth=1.6, marker=few)
    values = [value for value in (*sure, *noise) if np.isfinite(value)]
    if values:
        _limit(axes, min(values), max(values))
        last = {"signal": (sure[-1], GREEN), "noise": (noise[-1], ORANGE)}
        _name(axes, {name: (value, colour) for name, (value, colour) in last.items() if np.isfinite(value)})
    caption(axes, "a step's squared gradient: signal |G|², and noise S / batch")
    axes.set_xlabel("training tokens")
    axes.set_xlim(left=0)
    count_axis(axes)


def _limit(axes: Axes, low: float, high: float) -> None:
    """A log axis with room, its numbers in words."""
    axes.set_yscale("log")
    axes.set_ylim(low / 1.4, high * 1.4)
    axes.yaxis.set_major_locator(FixedLocator(_round_values(low / 1.4, high * 1.4)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _round_values(low: float, high: float) -> list[float]:
    """1, 2, 5 and their tenfolds within the limits; powers of ten only where that is more than eight."""
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [digit * 10.0**power for power in range(-12, 13) for digit in digits if low <= digit * 10.0**power <= high]
        if len(found) <= 8:
            break
    return found


def _name(axes: Axes, lines: Mapping[str, tuple[float, str]]) -> None:
    """Names of lines at the right edge, each in its line's colour, none over another."""
    bottom, top = np.log(axes.get_ylim())
    ordered = sorted(lines.items(), key=lambda line: -line[1][0])
    gap = 13 / axes.get_position().transformed(axes.figure.transFigure).height * axes.figure.dpi / 72 * (top - bottom)
    for (name, (value, colour)), height in zip(ordered, spread([float(np.log(value)) for _, (value, _) in ordered], gap), strict=True):
        where = (1.0, float(np.exp(height)))
        text = f"{name} {short(value)}"
        axes.annotate(
            text, where, xytext=(6, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", color=colour, size=9.5, va="center"
        )


def _subtitle(estimates: Sequence[Estimate], batch: Batch) -> str:
    last = estimates[-1]
    told = "noise scale cannot be estimated at the end"
    if last.scale is not None and last.low is not None and last.high is not None:
        told = (
            f"noise scale {short(last.scale)} sequences ({short(last.low)} to {short(last.high)})"
            f"  ·  {short_count(last.scale * batch.block_size)} tokens  ·  batch is {batch.sequences / last.scale:.2g} x"
        )
    return f"{told}  ·  under Adam a floor of the critical batch"
