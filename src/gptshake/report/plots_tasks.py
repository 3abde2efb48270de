"""The plots of the tasks find_lr, fit_batch, plan, profile, inspect and evaluate, from the plain values that ``tasks_text.py`` prints.

Each writes PNG and SVG (some also the numbers as JSON) into a folder, and gives the paths of what it has written.
"""

import itertools
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
from matplotlib.ticker import FuncFormatter

from gptshake.console import one_line
from gptshake.estimate.batch_size import fastest, largest
from gptshake.estimate.formatting import counted, duration, percent, short_bytes, short_count, short_rate, three_digits
from gptshake.estimate.lr_range import mean_curve, smooth
from gptshake.files import sha256_text, write_atomic
from gptshake.record.names import safe, title_of
from gptshake.record.names import title as run_title
from gptshake.report import tasks_text as text
from gptshake.report.figure import DASHED, POINT, caption, frame, label, legend_above, log_axis, plot_style, save, token_axis
from gptshake.report.plots_study import COLOURS, draw_parabola
from gptshake.report.series import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, SKY, VERMILION
from gptshake.report.tasks_text import Facts

BINS = 21  # edges of the intervals of the context over which losses are averaged
LONGEST = 50  # characters of a name in a legend
SPLITS = {"train": BLUE, "val": ORANGE, "test": VERMILION}
STEP = {"data": VERMILION, "transfer": ORANGE, "forward": BLUE, "backward": BLUE, "optimizer": GREEN}  # the rest is grey
PAPER = {"facecolor": "white", "alpha": 0.85, "pad": 1.0, "linewidth": 0}  # behind characters; outlines make an SVG 20 times larger


@plot_style()
def plot_find_lr(info: Facts, run_dir: Path) -> list[Path]:
    """``plots/lr_range``: the losses of the ramps, all estimates, and the runs that decided, as far as they are in a run's run.json."""
    found = info["find_lr"]
    runs, ramps, estimates = found.get("confirm") or [], found.get("ramps"), text.lr_estimates(found)
    heights = [*([3.2] if ramps else []), 0.24 * len(estimates) + 0.1, *([2.0 if ramps else 3.2] if runs else [])]
    subtitle = ["range test"]
    if found.get("lr") is not None:
        unsure = "" if runs else "no run has confirmed it"
        subtitle = [f"recommended {short_rate(found['lr'])}", text.lr_interval(found) if found.get("low") is not None else unsure]
    title, about = " · ".join(title_of(info).split(" · ")[:3]), "  ·  ".join(filter(None, [*subtitle, info["id"]]))
    height = 1.3 + sum(heights) + 0.35 * len(heights)
    figure, rows = frame(f"Learning rate of {title}", about, height, len(heights), sharex=True, height_ratios=heights)
    shown = [*(ramps["rates"] if ramps else []), *(rate for _, rate, _ in estimates), *(run["lr"] for run in runs)]
    log_axis(rows[0], "x", (min(shown) / 2, max(shown) * 2), short_rate, most=12)
    if ramps:
        _draw_ramps(rows[0], found)
    _draw_estimates(rows[1 if ramps else 0], estimates)
    if runs:
        _draw_runs(rows[-1], found)
    for axes in rows if found.get("lr") is not None else ():
        if found.get("low") is not None:
            axes.axvspan(found["low"], found["high"], color=GREEN, alpha=0.12, linewidth=0, zorder=0.4)
        axes.axvline(found["lr"], color=VERMILION, linewidth=1.2, zorder=1.1)
    rows[-1].set_xlabel("peak learning rate")
    return save(figure, run_dir / "plots", "lr_range")


def _draw_ramps(axes: Axes, found: Facts) -> None:
    def until_divergence(losses: Sequence[float | None]) -> list[float]:
        broken = next((i for i, loss in enumerate(losses) if loss is None or not math.isfinite(loss)), len(losses))
        return [float(loss) for loss in losses[:broken] if loss is not None]

    ramps = found["ramps"]
    quick, rates, curves = until_divergence(ramps["quick"]), ramps["rates"], [until_divergence(losses) for losses in ramps["losses"]]
    axes.plot(ramps["quick_rates"][: len(quick)], smooth(quick), color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="quick ramp")
    mean, name = smooth(mean_curve(curves)), "slow ramp"
    if len(curves) > 1:
        name = f"mean of {len(curves)} slow ramps, band of all"
        each = np.array([smooth(curve)[: len(mean)] for curve in curves])
        axes.fill_between(rates[: len(mean)], each.min(axis=0), each.max(axis=0), color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(rates[: len(mean)], mean, color=BLUE, linewidth=1.8, label=name)
    start, lowest = max(mean[0], quick[0] if quick else mean[0]), min(mean)
    axes.set_ylim(lowest - 0.15 * (start - lowest), start + 0.3 * (start - lowest))
    if (rate := found.get("diverged")) is not None:
        axes.axvline(rate, color=INK, linewidth=1.0, linestyle=":")
        label(axes, "diverges", (rate, 0.02), (-4, 2), "y", ha="right", va="bottom", color=GREY, size=8.5)
    caption(axes, "held-out loss, nats per token")
    legend_above(axes, handlelength=1.6)


def _draw_estimates(axes: Axes, estimates: Sequence[tuple[str, float, str]]) -> None:
    """One row for each estimate, so that no names cross."""
    low, high = axes.get_xlim()
    for row, (name, rate, colour) in enumerate(estimates):
        axes.plot([rate], [-row], **POINT | {"color": colour, "markersize": 6, "zorder": 3})
        left = math.log(rate / low) > 0.62 * math.log(high / low)
        words, side = (f"{short_rate(rate)}  {name}", "right") if left else (f"{name}  {short_rate(rate)}", "left")
        style: dict[str, Any] = {"color": colour, "weight": "bold" if colour == VERMILION else "normal", "bbox": PAPER, "zorder": 3}
        label(axes, words, (rate, -row), (-8 if left else 8, 0), ha=side, va="center", size=8.5, **style)
    axes.set_ylim(-len(estimates) + 0.4, 0.6)
    axes.set_yticks([])
    caption(axes, "estimates")


def _draw_runs(axes: Axes, found: Facts) -> None:
    """Final losses of the short runs, and the parabola through the best."""
    runs = found["confirm"]
    ended = [(run["lr"], run["value"]) for run in runs if run["value"] is not None and math.isfinite(run["value"])]
    rates, values = zip(*ended, strict=True)
    span = (max(values) - min(values)) or abs(min(values)) * 0.01
    axes.set_ylim(min(values) - 0.2 * span, max(values) + 0.2 * span)
    draw_parabola(axes, [(math.log2(rate), value) for rate, value in ended], np.geomspace(min(rates), max(rates), 200), np.log2)
    axes.plot(rates, values, **POINT | {"linewidth": 0, "zorder": 3, "clip_on": False})
    if diverged := [run["lr"] for run in runs if run["value"] is None and run["state"] != "failed"]:
        style = POINT | {"color": INK, "marker": "X", "markersize": 8, "linewidth": 0, "zorder": 3, "label": "ended early"}
        axes.plot(diverged, [0.93] * len(diverged), transform=axes.get_xaxis_transform(), **style)
    if axes.get_legend_handles_labels()[1]:
        legend_above(axes, handlelength=1.6)
    caption(axes, f"{found['objective']} of {len(runs)} runs of {counted(found['steps'], 'step')}, each with its whole schedule")


@plot_style()
def draw_fit_batch(facts: Facts, folder: Path) -> list[Path]:
    """``fit_batch``: speed and memory over the micro-batch size; and the rows as JSON."""
    batch, block, tried = facts["batch_size"], facts["block_size"], sorted(facts["tried"], key=lambda row: row.size)
    speeds = {row.size: row.rate(batch) * block for row in tried if row.fits}
    best, beyond, most = fastest(tried, batch).size, fastest(tried, batch, beyond=True).size, largest(tried).size
    rows = [asdict(row) | {"tokens_per_s": speeds.get(row.size)} for row in tried]
    numbers = dict(facts) | {"tried": rows, "fastest": best, "largest": most, "sentence": text.fit_batch_sentence(facts)}
    subtitle = f"{facts['settings']}  ·  step of {counted(batch, 'sequence')} of {block:,} tokens"
    figure, (above, below) = frame(facts["title"], subtitle, 4.8, 2, sharex=True)
    log_axis(below, "x", (tried[0].size / 1.15, tried[-1].size * 1.15), "{:,.0f}".format, most=12, base=2)
    below.set_xlabel("micro-batch, sequences")
    above.plot(*zip(*speeds.items(), strict=True), **POINT | {"linewidth": 1.8, "markersize": 5})
    above.set_ylim(0, 1.3 * max(speeds.values()))
    above.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    larger = f"; in larger steps up to {short_count(speeds[beyond])} with {beyond}" if beyond > batch else ""
    caption(above, f"tokens/s: {short_count(speeds[best])} with {best} at once{larger}")
    for size in {best, beyond} if beyond > batch else {best}:
        _ring(above, size, speeds[size])
    limit, peaks = facts["limit"], {row.size: row.peak or 0 for row in tried if row.fits}
    failed = {row.size: min(row.peak or limit, int(1.2 * limit)) for row in tried if not row.fits}  # one that ran out of memory has no peak
    top = max(*peaks.values(), *failed.values(), 1)
    unit, name = (2**30, "GiB") if top >= 2**31 else (2**20, "MiB")
    below.plot(list(peaks), [peak / unit for peak in peaks.values()], **POINT | {"color": GREEN, "linewidth": 1.8, "markersize": 5})
    below.set_ylim(0, 1.35 * top / unit)
    below.axhline(limit / unit, color=VERMILION, linewidth=1.2, linestyle=DASHED)
    below.plot(list(failed), [peak / unit for peak in failed.values()], "x", color=VERMILION, markersize=7, markeredgewidth=1.8)
    _ring(below, most, peaks[most] / unit)
    holds = f"{most} {'is the largest that fits' if failed else 'still fits'}, with {short_bytes(peaks[most])}"
    caption(below, f"peak memory, {name}: {holds} of {short_bytes(limit)}{'; crosses: did not fit' if failed else ''}")
    files = save(figure, folder, "fit_batch")
    write_atomic(folder / "fit_batch.json", json.dumps(numbers, indent=2) + "\n")
    return [*files, folder / "fit_batch.json"]


def _ring(axes: Axes, x: float, y: float) -> None:
    axes.plot([x], [y], "o", markersize=10, markerfacecolor="none", markeredgecolor=VERMILION, markeredgewidth=1.6, clip_on=False)


@plot_style()
def draw_plan(facts: Facts, folder: Path) -> list[Path]:
    """``plan``: memory against the device's, time by part, and the numbers that decide."""
    budget, price, recommended = facts["budget"], facts["price_per_hour"], text.recommendation_of(facts)
    spent, flops, hours = sum(facts["seconds"].values()), facts["flops_per_token"], facts.get("within", {}).get("hours")
    cells = {
        "parameters": short_count(sum(facts["parameters"].values())),
        "tokens": f"{short_count(budget.total_tokens)}, {counted(budget.epochs, 'epoch', '.3g')}",
        "steps": f"{budget.steps:,} of {short_count(budget.tokens_per_step)} tokens",
        "speed": f"{short_count(facts['tokens_per_s'])} tokens/s",
        "FLOPs": short_rate(flops * budget.total_tokens) if flops else "not known",
        "cost": f"{facts['currency']}{price * spent / 3600:.2f}" if price is not None else "no price given",
        "a checkpoint": short_bytes(facts["checkpoint_bytes"]),
        "scaling law": f"lr {short_rate(recommended.lr)}, batch {short_count(float(f'{recommended.batch:.2g}'))}"
        if facts["laws"]
        else "none",
    }
    subtitle = f"on {facts['device']}, {facts['settings']}  ·  speed {facts['how']}"
    figure, (above, middle, below) = frame(facts["title"], subtitle, 3.9, 3, height_ratios=(1, 1, 2.4))
    memory, peak = text.memory_parts(facts["memory"]), f"peak of memory: {text.peak_of(facts)}"
    _stacked_bar(above, memory, short_bytes, peak, facts["memory_there"])
    asked = f" of {counted(hours, 'hour', 'g')}" if hours else ""
    _stacked_bar(middle, facts["seconds"], duration, f"time: {duration(spent)}{asked}", 3600 * hours if hours else math.inf)
    below.set_axis_off()
    for place, (name, value) in enumerate(cells.items()):
        x, y = 0.25 * (place % 4), 0.78 - 0.55 * (place // 4)
        below.text(x, y, name, size=8.5, color=GREY, va="bottom", transform=below.transAxes)
        below.text(x, y - 0.04, value, size=10.5, va="top", transform=below.transAxes)
    return save(figure, folder, "plan")


def _stacked_bar(axes: Axes, parts: Mapping[str, float], words: Callable[[float], str], title: str, limit: float) -> None:
    """One stacked bar, its parts named below; a line where the limit is, if that is in sight."""
    total, left = sum(parts.values()), 0.0
    for (name, size), colour in zip(parts.items(), (GREY, BLUE, SKY, GREEN, ORANGE, PURPLE), strict=False):
        axes.barh(0, size, left=left, color=colour, edgecolor="white", linewidth=0.8, label=f"{name} {words(size)}")
        left += size
    seen = limit < 8 * total
    axes.set_xlim(0, 1.02 * (max(total, limit) if seen else total))
    if seen:
        axes.axvline(limit, color=VERMILION, linewidth=2.5)
        label(axes, words(limit), (limit, 1), (-5, 4), "y", color=VERMILION, ha="right")
    caption(axes, title)
    axes.set_axis_off()
    spaces = {"handlelength": 0.8, "handletextpad": 0.4, "columnspacing": 1.0, "borderaxespad": 0.0}
    axes.legend(loc="upper left", bbox_to_anchor=(-0.005, 0.06), ncols=len(parts), fontsize=8, **spaces)


@plot_style()
def draw_profile(facts: Facts, folder: Path) -> list[Path]:
    """``profile``: a step's parts on the left, the start's phases on the right, the verdict below; and the numbers as JSON."""
    parts, total, phases = facts["parts"], sum(facts["start"].values()), text.start_phases(facts)
    title = f"Where the time goes  ·  {run_title(facts['name'])}"
    figure, (left, right) = frame(title, text.profile_numbers(facts), 4.4, 1, 2, width_ratios=(1.25, 1))
    step = {text.STEP_PARTS[part["name"]]: (1e3 * part["mean_s"], part["share"]) for part in parts}
    _bars(left, step, [STEP.get(part["name"], GREY) for part in parts])
    caption(left, "milliseconds of a step, and share")
    _bars(right, {name: (seconds, seconds / total) for name, seconds in phases.items()}, GREY)
    caption(right, "seconds of the start, and share")
    figure.supxlabel(textwrap.fill(facts["verdict"][0], 104), size=9.5, x=0.012, ha="left", parse_math=False)
    files = save(figure, folder, "profile")
    write_atomic(folder / "profile.json", json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return [*files, folder / "profile.json"]


def _bars(axes: Axes, rows: Mapping[str, tuple[float, float]], colours: str | Sequence[str]) -> None:
    """One bar a row, the first on top; each with its value and share beside it."""
    values = [value for value, _ in rows.values()]
    bars = axes.barh(list(rows), values, color=colours, height=0.62)
    axes.bar_label(bars, [f"{three_digits(round(value, 2))}  {percent(share)}" for value, share in rows.values()], padding=4, size=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.42 * max(values))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    axes.spines["left"].set_visible(False)


@plot_style()
def draw_inspection(facts: Facts, folder: Path) -> list[Path]:
    return save(inspection_figure(facts), folder, "tokens")


def inspection_figure(facts: Facts) -> Figure:
    """Token frequencies by rank (a straight line is Zipf's law), and how long the documents are."""
    train = facts["splits"][0]
    counts = f"{short_count(train['n_tokens'])} training tokens  ·  {counted(train['n_documents'], 'document')}"
    title = f"{facts['label']}  ·  {facts['tokenizer']}, {facts['vocab_size']:,} ids"
    figure, (left, right) = frame(title, f"{counts}  ·  {train['bytes_per_token']:.2f} bytes per token", 4.2, 1, 2)
    found = np.asarray(facts["frequencies"], float)
    share, equal = found / found.sum(), 1 / facts["vocab_size"]
    left.loglog(np.arange(1, len(share) + 1), share, color=BLUE, linewidth=1.6)
    left.axhline(equal, color=GREY, linewidth=0.8, linestyle=":")
    label(left, "if all were equal", (1, equal), (2, -10), size=8, color=GREY)  # the first rank lies above
    for n, (rank, token) in enumerate(list(enumerate(facts["most"], 1))[::4]):  # neighbours' names would lie over each other
        label(left, repr(token["text"]), (rank, token["share"]), (4, 4 + 11 * (n % 2)), size=8)
    left.set_ylim(top=4 * share[0])
    left.set_xlabel("rank of the token")
    caption(left, "share of the training tokens, by rank")
    known = {name: np.maximum(values, 1) for name, values in facts["lengths"].items() if values}
    every = np.concatenate(list(known.values()))
    edges = np.geomspace(every.min() / 1.5, 1.5 * every.max(), 31).tolist()
    for name, values in known.items():
        right.hist(values, edges, weights=np.full(len(values), 1 / len(values)), histtype="step", color=SPLITS[name], label=name)
    right.set_xscale("log")
    right.set_ylim(top=1.2 * right.get_ylim()[1])  # space above the bars for the legend
    right.legend(loc="upper center", ncols=len(known), fontsize=9)
    caption(right, "share of the documents, by length")
    token_axis(right, "tokens of a document", left=None)
    return figure


@plot_style()
def draw_evaluation(rows: Sequence[Facts], folder: Path) -> list[Path]:
    first = rows[0]
    read = "rolling" if first["rolling"] else f"stride{first['stride']}" if first["stride"] else ""
    parts = [first["text"], first["split"], read, *(text.evaluated_name(row, "-") for row in rows)]
    name = safe("-".join(filter(None, parts)))
    return save(evaluation_figure(rows), folder, name if len(name) <= 120 else f"{name[:110]}-{sha256_text(name)[:8]}")


def evaluation_figure(rows: Sequence[Facts]) -> Figure:
    """The loss by the length of the context, a line for each checkpoint; in bits per byte if the tokenizers differ.

    The bits of unknown characters are spread evenly over the tokens, so that a line has the bits per byte of its row as mean. With a stride
    it begins at the context that all windows but the first have.
    """
    (which, how), bits = text.evaluation_titles(rows), len({(row["tokens"], row["unknown"]) for row in rows}) > 1
    firsts = [row["context"] - (row["stride"] or row["context"]) + 1 for row in rows]
    figure, (axes,) = frame(f"Loss by context  ·  {which}", how, 4.6)
    caption(axes, "bits per byte" if bits else "loss, nats per token")
    log_axis(axes, "x", (0.9 * min(firsts), 1.1 * max(row["context"] for row in rows)), short_count)
    axes.set_xlabel("tokens of context")
    for colour, first, row in zip(itertools.cycle(COLOURS), firsts, rows, strict=False):
        edges = np.unique(np.geomspace(first, row["context"] + 1, BINS).round().astype(int))[:-1]
        counts = np.array(row["by_context"]["tokens"])
        lengths = np.arange(1, len(counts) + 1)
        nats, tokens, sums = np.add.reduceat([row["by_context"]["nats"], counts, counts * lengths], edges - 1, axis=1)
        nats, tokens, sums = np.compress(tokens > 0, [nats, tokens, sums], axis=1)
        losses = nats / tokens
        if bits:
            losses = (losses + sum(row["each"]["hidden"]) / row["tokens"]) * row["tokens"] / row["bytes"] / math.log(2)
        error = f" ± {row['bpb_error']:.4f}" if row["bpb_error"] is not None else ""
        called = one_line(text.evaluated_name(row))
        called = called if len(called) <= LONGEST else f"…{called[-LONGEST:]}"  # the end of a folder's path says more
        style = POINT | {"color": colour, "markersize": 5, "label": f"{called}: {row['bpb']:.4f}{error} bits per byte"}
        axes.plot(sums / tokens, losses, **style)
    for name in axes.legend(loc="best", fontsize=9, frameon=True, framealpha=0.85, edgecolor="white").get_texts():
        name.set_parse_math(False)
    return figure
