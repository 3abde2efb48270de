"""The plots of the tasks find_lr, fit_batch, plan, profile and inspect, from the plain values that ``tasks_text.py`` prints."""

import json
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from gptshake.estimate.batch_size import Tried, fastest, largest
from gptshake.estimate.formatting import counted, duration, percent, short_bytes, short_count, short_rate, three_digits
from gptshake.estimate.lr_fit import fit
from gptshake.estimate.lr_range import mean_curve, smooth
from gptshake.files import write_atomic
from gptshake.record.names import title as run_title
from gptshake.record.names import title_of
from gptshake.report.frame import DASHED, POINT, caption, frame, label, legend_above, look, save, token_axis
from gptshake.report.series import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION
from gptshake.report.tasks_text import (
    STEP_PARTS,
    Facts,
    fit_batch_sentence,
    hours_text,
    lr_advice,
    lr_estimates,
    lr_interval,
    memory_parts,
    peak_of,
    profile_numbers,
    start_phases,
)

EDGE = 0.15  # of the loss' span that is left free above and below
MARKED = 11  # micro-batch sizes written below the axis
PARTS = (GREY, BLUE, SKY, GREEN, ORANGE, PURPLE)  # of a stacked bar
SPLITS = {"train": BLUE, "val": ORANGE, "test": VERMILION}
STEP = {"data": VERMILION, "transfer": ORANGE, "forward": BLUE, "backward": BLUE, "optimizer": GREEN}  # the rest is grey
PAPER = {
    "facecolor": "white",
    "alpha": 0.85,
    "pad": 1.0,
    "linewidth": 0,
}  # behind letters that cross lines; outlines make an SVG 20 times larger


# find_lr


def plot_find_lr(info: Facts, run_dir: Path) -> list[Path]:
    """Draw ``plots/lr_range.png`` and ``.svg``: the losses of the ramps, all estimates, and the runs that decided, as far as they are there.

    Args:
        info: run.json of a run of task=find_lr.
        run_dir: its directory.
    """
    with look():
        return save(_find_lr(info), run_dir / "plots", "lr_range")


def _find_lr(info: Facts) -> Figure:
    found = info["find_lr"]
    runs, ramps = found.get("confirm") or [], found.get("ramps")
    estimates = lr_estimates(found)
    heights = [*([3.2] if ramps else []), 0.24 * len(estimates) + 0.1, *([2.0 if ramps else 3.2] if runs else [])]
    subtitle = ["range test", info["id"]]
    if found.get("lr") is not None:
        confirmed = "" if found.get("confirm") else "no run has confirmed it"
        interval = lr_interval(found) if found.get("low") is not None else confirmed
        subtitle = [f"recommended {short_rate(found['lr'])}", *filter(None, [interval]), info["id"]]
    title = f"Learning rate of {' · '.join(title_of(info).split(' · ')[:3])}"
    height = 1.3 + sum(heights) + 0.35 * len(heights)
    figure, rows = frame(title, "  ·  ".join(subtitle), height, len(heights), sharex=True, height_ratios=heights)
    ends = [ramps["rates"][0], ramps["rates"][-1]] if ramps else []
    shown = [*ends, *(rate for _, rate, _ in estimates), *(run["lr"] for run in runs)]
    rows[0].set_xscale("log")
    rows[0].xaxis.set_major_locator(LogLocator(numticks=12))
    rows[0].xaxis.set_minor_locator(NullLocator())
    rows[0].xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_rate(value)))
    if ramps:
        _draw_ramps(rows[0], found)
    rows[0].set_xlim(min(shown) / 2, max(shown) * 2)
    _draw_estimates(rows[1 if ramps else 0], estimates)
    if runs:
        _draw_runs(rows[-1], found)
    for axes in rows if found.get("lr") is not None else ():
        if found.get("low") is not None:
            axes.axvspan(found["low"], found["high"], color=GREEN, alpha=0.12, linewidth=0, zorder=0.4)
        axes.axvline(found["lr"], color=VERMILION, linewidth=1.2, zorder=1.1)
    rows[-1].set_xlabel("peak learning rate")
    return figure


def _draw_ramps(axes: Axes, found: Facts) -> None:
    ramps = found["ramps"]
    quick, rates, curves = _until_divergence(ramps["quick"]), ramps["rates"], [_until_divergence(losses) for losses in ramps["losses"]]
    axes.plot(ramps["quick_rates"][: len(quick)], smooth(quick), color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="quick ramp")
    n = min(map(len, curves))
    each = np.array([smooth(curve)[:n] for curve in curves])
    if len(curves) > 1:
        axes.fill_between(rates[:n], each.min(axis=0), each.max(axis=0), color=BLUE, alpha=0.2, linewidth=0)
    mean = smooth(mean_curve(curves))
    name = f"mean of {len(curves)} slow ramps, band of all" if len(curves) > 1 else "slow ramp"
    axes.plot(rates[:n], mean, color=BLUE, linewidth=1.8, label=name)
    start, lowest = max(mean[0], quick[0] if quick else mean[0]), min(mean)
    axes.set_ylim(lowest - EDGE * (start - lowest), start + 2 * EDGE * (start - lowest))
    if (rate := found.get("diverged")) is not None:
        axes.axvline(rate, color=INK, linewidth=1.0, linestyle=":")
        label(axes, "diverges", (rate, 0.02), (-4, 2), "y", ha="right", va="bottom", color=GREY, size=8.5)
    caption(axes, "held-out loss, nats per token")
    legend_above(axes, handlelength=1.6)


def _until_divergence(losses: Sequence[float | None]) -> list[float]:
    broken = next((i for i, loss in enumerate(losses) if loss is None or not math.isfinite(loss)), len(losses))
    return [float(loss) for loss in losses[:broken] if loss is not None]


def _draw_estimates(axes: Axes, estimates: Sequence[tuple[str, float, str]]) -> None:
    """One row for each estimate, so that no names cross."""
    low, high = axes.get_xlim()
    axes.set_xlim(low, high)
    for row, (name, rate, colour) in enumerate(estimates):
        at = min(max(rate, low), high)
        axes.plot([at], [-row], **POINT | {"color": colour, "markersize": 6, "zorder": 3})
        left = math.log(at / low) > 0.62 * math.log(high / low)
        text, side = (f"{short_rate(rate)}  {name}", "right") if left else (f"{name}  {short_rate(rate)}", "left")
        style: dict[str, Any] = {"color": colour, "weight": "bold" if colour == VERMILION else "normal", "bbox": PAPER, "zorder": 3}
        label(axes, text, (at, -row), (-8 if left else 8, 0), ha=side, va="center", size=8.5, **style)
    axes.set_ylim(-len(estimates) + 0.4, 0.6)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    caption(axes, "estimates")


def _draw_runs(axes: Axes, found: Facts) -> None:
    """Final losses of the short runs, and the parabola through the best."""
    runs = found["confirm"]
    ended = [(run["lr"], run["value"]) for run in runs if run["value"] is not None and math.isfinite(run["value"])]
    rates, values = zip(*ended, strict=True)
    best, worst = min(values), max(values)
    room = (worst - best) or abs(best) * 0.01
    axes.set_ylim(best - 0.2 * room, worst + 0.2 * room)
    parabola = fit([(math.log2(rate), value) for rate, value in ended])
    if parabola:
        x = np.geomspace(min(rates), max(rates), 200)
        y = [parabola(math.log2(rate)) for rate in x]
        axes.plot(x, y, color=GREEN, linewidth=1.4, linestyle=(0, (4, 2)), zorder=2, scaley=False, label="parabola")
        legend_above(axes, handlelength=1.6)
    axes.plot(rates, values, **POINT | {"linewidth": 0, "zorder": 3, "clip_on": False})
    diverged = [run["lr"] for run in runs if run["value"] is None and run["state"] != "failed"]
    if diverged:
        style = POINT | {"color": INK, "marker": "X", "markersize": 8, "linewidth": 0, "zorder": 3}
        axes.plot(diverged, [0.93] * len(diverged), transform=axes.get_xaxis_transform(), **style)
        label(axes, "gave up", (diverged[-1], 0.93), (7, 0), "y", color=GREY, size=8.5, va="center")
    caption(axes, f"{found['objective']} of {len(runs)} runs of {counted(found['steps'], 'step')}, each with its whole schedule")


# fit_batch


def draw_fit_batch(facts: Facts, folder: Path) -> list[Path]:
    """Write ``fit_batch.png``, ``.svg`` and the rows as ``.json``; gives their paths."""
    batch, block, tried = facts["batch_size"], facts["block_size"], sorted(facts["tried"], key=lambda row: row.size)
    folder.mkdir(parents=True, exist_ok=True)
    rows = [asdict(row) | {"tokens_per_s": row.rate(batch) * block if row.fits else None} for row in tried]
    best, most = fastest(facts["tried"], batch), largest(facts["tried"])
    numbers = dict(facts) | {"tried": rows, "fastest": best.size, "largest": most.size, "sentence": fit_batch_sentence(facts)}
    write_atomic(folder / "fit_batch.json", json.dumps(numbers, indent=2) + "\n")
    with look():
        subtitle = f"{facts['settings']}  ·  step of {counted(batch, 'sequence')} of {block:,} tokens"
        figure, (above, below) = frame(facts["title"], subtitle, 4.8, 2, sharex=True)
        _draw_speed(above, tried, batch, block)
        _draw_memory(below, tried, facts["limit"])
        below.set_xlabel("micro-batch, sequences")
        below.set_xscale("log", base=2)
        powers = [size for row in tried if (size := row.size) & (size - 1) == 0]
        below.xaxis.set_major_locator(FixedLocator(powers[:: 1 + len(powers) // MARKED]))
        below.xaxis.set_minor_locator(NullLocator())
        below.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        below.set_xlim(tried[0].size / 1.15, tried[-1].size * 1.15)
        return [*save(figure, folder, "fit_batch"), folder / "fit_batch.json"]


def _draw_speed(axes: Axes, tried: list[Tried], batch: int, block_size: int) -> None:
    speeds = {row.size: row.rate(batch) * block_size for row in tried if row.fits}
    axes.plot(list(speeds), list(speeds.values()), **POINT | {"linewidth": 1.8, "markersize": 5})
    axes.set_ylim(0, 1.3 * max(speeds.values()))
    best, beyond = fastest(tried, batch).size, fastest(tried, batch, beyond=True).size
    text = f"tokens/s: {short_count(speeds[best])} with {best} at once"
    _ring(axes, best, speeds[best])
    if beyond > batch:
        text += f"; in larger steps up to {short_count(speeds[beyond])} with {beyond}"
        _ring(axes, beyond, speeds[beyond])
    caption(axes, text)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def _draw_memory(axes: Axes, tried: list[Tried], limit: int) -> None:
    most, fitting, failed = largest(tried), [row for row in tried if row.fits], [row for row in tried if not row.fits]
    near = bool(failed) or limit < 3 * (most.peak or 0)
    top = limit if near else most.peak or 1
    unit, name = (2**30, "GiB") if top >= 2**31 else (2**20, "MiB")
    style = POINT | {"color": GREEN, "linewidth": 1.8, "markersize": 5}
    axes.plot([row.size for row in fitting], [(row.peak or 0) / unit for row in fitting], **style)
    axes.set_ylim(0, 1.35 * top / unit)
    if near:
        axes.axhline(limit / unit, color=VERMILION, linewidth=1.2, linestyle=DASHED)
        heights = [min(row.peak or limit, int(1.2 * limit)) / unit for row in failed]  # a trial that ran out of memory has no peak
        axes.plot([row.size for row in failed], heights, "x", color=VERMILION, markersize=7, markeredgewidth=1.8)
        text = f"limit {short_bytes(limit)}" + ("; crosses: did not fit" if failed else "")
        label(axes, text, (0.005, limit / unit), (0, 2), "x", color=VERMILION, va="bottom")
    _ring(axes, most.size, (most.peak or 0) / unit)
    holds = f"peak memory, {name}: {most.size} {'is the largest that fits' if failed else 'still fits'}, with {short_bytes(most.peak or 0)}"
    caption(axes, holds + ("" if near else f" of {short_bytes(limit)}"))


def _ring(axes: Axes, x: float, y: float) -> None:
    """Around a point that is named in the caption."""
    axes.plot([x], [y], "o", markersize=10, markerfacecolor="none", markeredgecolor=VERMILION, markeredgewidth=1.6, clip_on=False)


# plan


def draw_plan(facts: Facts, folder: Path) -> list[Path]:
    """Write ``plan.png`` and ``plan.svg``: memory against the device's, time by part, and the numbers that decide; gives their paths."""
    with look():
        subtitle = f"on {facts['device']}, {facts['settings']}  ·  speed {facts['how']}"
        figure, (above, middle, below) = frame(facts["title"], subtitle, 3.9, 3, height_ratios=(1, 1, 2.4))
        there, spent = facts["memory_there"], sum(facts["seconds"].values())
        _stacked_bar(above, memory_parts(facts["memory"]), short_bytes, f"peak of memory: {peak_of(facts)}", there)
        hours = facts["within"]["hours"] if "within" in facts else None
        asked = f" of {hours_text(facts['within'])}" if hours else ""
        _stacked_bar(middle, facts["seconds"], duration, f"time: {duration(spent)}{asked}", 3600 * hours if hours else None)
        _draw_numbers(below, facts)
        return save(figure, folder, "plan")


def _stacked_bar(axes: Axes, parts: Mapping[str, float], words: Callable[[float], str], title: str, limit: float | None) -> None:
    """One stacked bar, its parts named below; a line where the limit is, if that is in sight."""
    total, left = sum(parts.values()), 0.0
    for (name, size), colour in zip(parts.items(), PARTS, strict=False):
        axes.barh(0, size, left=left, color=colour, edgecolor="white", linewidth=0.8, label=f"{name} {words(size)}")
        left += size
    seen = limit is not None and limit < 8 * total
    axes.set_xlim(0, 1.02 * max(total, limit or 0.0) if seen else 1.02 * total)
    if seen and limit is not None:
        axes.axvline(limit, color=VERMILION, linewidth=2.5)
        label(axes, words(limit), (limit, 1), (-5, 4), "y", color=VERMILION, ha="right")
    caption(axes, title)
    axes.set_axis_off()
    spaces = {"handlelength": 0.8, "handletextpad": 0.4, "columnspacing": 1.0, "borderaxespad": 0.0}
    axes.legend(loc="upper left", bbox_to_anchor=(-0.005, 0.06), ncols=len(parts), fontsize=8, **spaces)


def _draw_numbers(axes: Axes, facts: Facts) -> None:
    budget, price = facts["budget"], facts["price_per_hour"]
    advice = lr_advice(facts)
    cells = [
        ("parameters", short_count(sum(facts["parameters"].values()))),
        ("tokens", f"{short_count(budget.total_tokens)}, {counted(budget.epochs, 'epoch', '.3g')}"),
        ("steps", f"{budget.steps:,} of {short_count(budget.tokens_per_step)} tokens"),
        ("speed", f"{short_count(facts['tokens_per_s'])} tokens/s"),
        ("FLOPs", short_rate(flops * budget.total_tokens) if (flops := facts["flops_per_token"]) else "not known"),
        ("cost", f"{price * sum(facts['seconds'].values()) / 3600:.2f}" if price is not None else "no price given"),
        ("a checkpoint", short_bytes(facts["checkpoint_bytes"])),
        ("scaling law", f"lr {short_rate(advice.lr)}, batch {short_count(float(f'{advice.batch:.2g}'))}"),
    ]
    axes.set_axis_off()
    for place, (name, value) in enumerate(cells):
        x, y = 0.25 * (place % 4), 0.78 - 0.55 * (place // 4)
        axes.text(x, y, name, size=8.5, color=GREY, va="bottom", transform=axes.transAxes)
        axes.text(x, y - 0.04, value, size=10.5, va="top", transform=axes.transAxes)


# profile


def draw_profile(facts: Facts, folder: Path) -> list[Path]:
    """Write ``profile.png``, ``.svg`` and ``.json``: a step's parts on the left, the start's phases on the right, the verdict below."""
    with look():
        title = f"Where the time goes  ·  {run_title(facts['name'])}"
        figure, (left, right) = frame(title, profile_numbers(facts), 4.4, 1, 2, width_ratios=(1.25, 1))
        parts = facts["parts"]
        names, colours = [STEP_PARTS[part["name"]] for part in parts], [STEP.get(part["name"], GREY) for part in parts]
        _bars(left, names, [1e3 * part["mean_s"] for part in parts], [part["share"] for part in parts], colours)
        caption(left, "milliseconds of a step, and share")
        total, phases = sum(facts["start"].values()), start_phases(facts)
        _bars(right, list(phases), list(phases.values()), [seconds / total for seconds in phases.values()], [GREY] * len(phases))
        caption(right, f"seconds of the start ({three_digits(total)}), and share")
        figure.supxlabel(textwrap.fill(facts["verdict"][0], 118), size=9.5, x=0.012, ha="left", parse_math=False)
        files = save(figure, folder, "profile")
    numbers = folder / "profile.json"
    write_atomic(numbers, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return [*files, numbers]


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], shares: Sequence[float], colours: Sequence[str]) -> None:
    """One bar a row, the first on top; each with its value and share beside it."""
    bars = axes.barh(names, values, color=colours, height=0.62)
    texts = [f"{three_digits(round(value, 2))}  {percent(share)}" for value, share in zip(values, shares, strict=True)]
    axes.bar_label(bars, texts, padding=4, size=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.42 * max(values))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    axes.spines["left"].set_visible(False)


# inspect


def draw_inspection(facts: Facts, folder: Path) -> list[Path]:
    """Write ``tokens.png`` and ``tokens.svg``; gives their paths."""
    with look():
        return save(inspection_figure(facts), folder, "tokens")


def inspection_figure(facts: Facts) -> Figure:
    """Token frequencies by rank (a straight line is Zipf's law), and how long the documents are."""
    train = facts["splits"][0]
    counts = f"{short_count(train['n_tokens'])} training tokens  ·  {counted(train['n_documents'], 'document')}"
    title = f"{facts['label']}  ·  {facts['tokenizer']}, {facts['vocab_size']:,} ids"
    figure, (left, right) = frame(title, f"{counts}  ·  {train['bytes_per_token']:.3g} bytes per token", 4.2, 1, 2)
    found = np.asarray(facts["frequencies"], float)
    share, equal = found / found.sum(), 1 / facts["vocab_size"]
    left.loglog(np.arange(1, len(share) + 1), share, color=BLUE, linewidth=1.6)
    left.axhline(equal, color=GREY, linewidth=0.8, linestyle=":")
    label(left, "if all were equal", (1, equal), (2, 3), size=8, color=GREY)
    for n, (rank, token) in enumerate(list(enumerate(facts["most"], 1))[::4]):  # neighbours' names would lie over each other
        label(left, repr(token["text"]), (rank, token["share"]), (4, 4 + 11 * (n % 2)), size=8)
    left.set_ylim(top=4 * share[0])
    caption(left, "share of the training tokens, by rank")
    left.set_xlabel("rank of the token")
    known = {name: np.maximum(values, 1) for name, values in facts["lengths"].items() if values}
    ends = [int(end) for values in known.values() for end in (values.min(), values.max())]
    edges = np.geomspace(min(ends) / 1.5, 1.5 * max(ends), 31).tolist()
    for name, values in known.items():
        right.hist(values, edges, weights=np.full(len(values), 1 / len(values)), histtype="step", color=SPLITS[name], label=name)
    right.set_xscale("log")
    right.set_ylim(top=1.2 * right.get_ylim()[1])  # room above the bars for the legend
    right.legend(loc="upper center", ncols=len(known), fontsize=9)
    caption(right, "share of the documents, by length")
    token_axis(right, "tokens of a document", left=None)
    return figure
