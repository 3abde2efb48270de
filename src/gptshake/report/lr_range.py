"""What ``task=find_lr`` found, as one picture and a few sentences, from the record alone.

Above the losses of the ramps if a range test was asked for, in the middle what every rule, law and habit says, below the runs that
decided; all over one axis of rates.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from gptshake.estimate.basin import fit
from gptshake.estimate.lr_range import mean_curve, smooth
from gptshake.estimate.words import counted
from gptshake.record.names import title_of
from gptshake.report.frame import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, caption, heading, look, save, short_rate
from gptshake.report.rerun import quoted

NAMES = {"steep": "steepest fall", "valley": "valley", "minimum": "minimum / 10", "slide": "slide", "middle": "middle of the basin"}
PAPER = {
    "facecolor": "white",
    "alpha": 0.85,
    "pad": 1.0,
    "linewidth": 0,
}  # behind letters that cross lines; an outline of them is 20 times as large
EDGE = 0.15  # of the loss' span that is left free above and below


def plot(info: Mapping[str, Any], run_dir: Path) -> list[Path]:
    """Draw ``plots/lr_range.png`` and ``.svg`` of a run of task=find_lr.

    Args:
        info: its run.json.
        run_dir: its directory.
    """
    with look():
        return save(draw(info), run_dir / "plots", "lr_range")


def draw(info: Mapping[str, Any]) -> Figure:
    """The figure: ramps, advice, and, as far as they are there, the runs that decided."""
    found = info["find_lr"]
    runs, ramps = found.get("confirm") or [], found.get("ramps")
    advice = said(found)
    heights = [*([3.2] if ramps else []), 0.24 * len(advice) + 0.1, *([2.0 if ramps else 3.2] if runs else [])]
    figure = Figure(figsize=(8, 1.5 + sum(heights) + 0.35 * len(heights)))
    rows = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0])
    inches = figure.get_figheight()
    figure.subplots_adjust(left=0.085, right=0.975, top=1 - 0.85 / inches, bottom=0.5 / inches, hspace=0.22)
    heading(figure, f"Learning rate of {' · '.join(title_of(info).split(' · ')[:3])}", _subtitle(info))
    ends = [ramps["rates"][0], ramps["rates"][-1]] if ramps else []
    shown = [*ends, *(rate for _, rate, _ in advice), *(run["lr"] for run in runs)]
    rows[0].set_xscale("log")
    rows[0].xaxis.set_major_locator(LogLocator(numticks=12))
    rows[0].xaxis.set_minor_locator(NullLocator())
    if ramps:
        _draw_ramps(rows[0], found)
    rows[0].set_xlim(min(shown) / 2, max(shown) * 2)
    _draw_advice(rows[1 if ramps else 0], advice)
    if runs:
        _draw_runs(rows[-1], found)
    for axes in rows:
        if found.get("lr") is not None:
            if found.get("low") is not None:
                axes.axvspan(found["low"], found["high"], color=GREEN, alpha=0.12, linewidth=0, zorder=0.4)
            axes.axvline(found["lr"], color=VERMILION, linewidth=1.2, zorder=1.1)
    rows[-1].set_xlabel("peak learning rate")
    return figure


def said(found: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Who says what: name, rate and colour; the answer last."""
    rules = found.get("rules") or {}
    rows = [(name, rules.get(rule), BLUE) for rule, name in NAMES.items()]
    rows += [("high, for one cycle", rules.get("one_cycle"), BLUE)] if found.get("one_cycle") else []
    last = found.get("last") or {}
    rows += [("published laws", found.get("law"), ORANGE), _declared(found), (f"last run {last.get('id', '')}", last.get("lr"), INK)]
    rows += [("recommended", found.get("lr"), VERMILION)]
    return [(name, rate, colour) for name, rate, colour in rows if rate is not None]


def _declared(found: Mapping[str, Any]) -> tuple[str, float | None, str]:
    """The rate that the command would train with: the preset's, unless another was typed."""
    typed = found.get("preset") is None or not math.isclose(found["preset"], found["declared"], rel_tol=1e-6)
    return ("optimizer.lr", found["declared"], INK) if typed else ("preset", found["preset"], INK)


def _draw_ramps(axes: Axes, found: Mapping[str, Any]) -> None:
    ramps = found["ramps"]
    quick, rates = _finite(ramps["quick"]), ramps["rates"]
    axes.plot(ramps["quick_rates"][: len(quick)], smooth(quick), color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), label="quick ramp")
    curves = [_finite(losses) for losses in ramps["losses"]]
    each = [smooth(curve) for curve in curves]
    n = min(len(curve) for curve in each)
    columns = np.array([curve[:n] for curve in each])
    many = "s" if len(each) > 1 else ""
    if many:
        axes.fill_between(rates[:n], columns.min(axis=0), columns.max(axis=0), color=BLUE, alpha=0.2, linewidth=0)
    mean = smooth(mean_curve(curves))
    axes.plot(
        rates[:n], mean, color=BLUE, linewidth=1.8, label=f"mean of {len(each)} slow ramp{many}, band of all" if many else "slow ramp"
    )
    start, lowest = max(mean[0], quick[0] if quick else mean[0]), min(mean)
    axes.set_ylim(lowest - EDGE * (start - lowest), start + 2 * EDGE * (start - lowest))
    _draw_divergence(axes, found.get("diverged"))
    caption(axes, "held-out loss, nats per token")
    axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.985), ncols=2, handlelength=1.6, borderpad=0.1, fontsize=9)


def _draw_divergence(axes: Axes, rate: float | None) -> None:
    if rate is None:
        return
    axes.axvline(rate, color=INK, linewidth=1.0, linestyle=":")
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    axes.annotate("diverges", (rate, 0.02), xytext=(-4, 2), ha="right", va="bottom", color=GREY, size=8.5, **place)


def _draw_advice(axes: Axes, advice: Sequence[tuple[str, float, str]]) -> None:
    """One row for everybody who says something, so that no names cross."""
    low, high = axes.get_xlim()
    axes.set_xlim(low, high)
    for row, (name, rate, colour) in enumerate(advice):
        place = min(max(rate, low), high)
        axes.plot([place], [-row], marker="o", markersize=6, color=colour, markeredgecolor="white", zorder=3)
        left = math.log(place / low) > 0.62 * math.log(high / low)
        side: dict[str, Any] = {"ha": "right", "xytext": (-8, 0)} if left else {"ha": "left", "xytext": (8, 0)}
        side["bbox"] = PAPER
        weight = "bold" if colour == VERMILION else "normal"
        words = f"{short_rate(rate)}  {name}" if left else f"{name}  {short_rate(rate)}"
        axes.annotate(
            words, (place, -row), textcoords="offset points", va="center", size=8.5, color=colour, weight=weight, zorder=3, **side
        )
    axes.set_ylim(-len(advice) + 0.4, 0.6)
    axes.set_yticks([])
    axes.grid(visible=False, axis="y")
    caption(axes, "estimates")


def _draw_runs(axes: Axes, found: Mapping[str, Any]) -> None:
    """Final losses of the short runs, and the parabola through the best."""
    ended = [(run["lr"], run["value"]) for run in found["confirm"] if run["value"] is not None and math.isfinite(run["value"])]
    best, worst = min(value for _, value in ended), max(value for _, value in ended)
    room = (worst - best) or abs(best) * 0.01
    axes.set_ylim(best - 0.2 * room, worst + 0.2 * room)
    parabola = fit([(math.log2(rate), value) for rate, value in ended])
    if parabola:
        x = np.geomspace(min(rate for rate, _ in ended), max(rate for rate, _ in ended), 200)
        y = [parabola(math.log2(rate)) for rate in x]
        axes.plot(x, y, color=GREEN, linewidth=1.4, linestyle=(0, (4, 2)), zorder=2, scaley=False, label="parabola")
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 0.985), handlelength=1.6, borderpad=0.1, fontsize=9)
    axes.plot(
        *zip(*ended, strict=True), color=BLUE, marker="o", markersize=7, markeredgecolor="white", linewidth=0, zorder=3, clip_on=False
    )
    lost = [run["lr"] for run in found["confirm"] if run["value"] is None and run["state"] != "failed"]
    if lost:
        place = axes.get_xaxis_transform()
        axes.plot(
            lost, [0.93] * len(lost), color=INK, marker="X", markersize=8, markeredgecolor="white", linewidth=0, transform=place, zorder=3
        )
        axes.annotate(
            "gave up", (lost[-1], 0.93), xytext=(7, 0), xycoords=place, textcoords="offset points", color=GREY, size=8.5, va="center"
        )
    caption(
        axes, f"{found['objective']} of {len(found['confirm'])} runs of {counted(found['steps'], 'step')}, each with its whole schedule"
    )


def _finite(losses: Sequence[float | None]) -> list[float]:
    """A ramp's losses up to its divergence."""
    broken = next((i for i, loss in enumerate(losses) if loss is None or not math.isfinite(loss)), len(losses))
    return [float(loss) for loss in losses[:broken] if loss is not None]


def _subtitle(info: Mapping[str, Any]) -> str:
    found = info["find_lr"]
    if found.get("lr") is None:
        return f"range test  ·  {info['id']}"
    interval = _between(found) if found.get("low") is not None else "" if found.get("confirm") else "no run has confirmed it"
    return "  ·  ".join(filter(None, (f"recommended {short_rate(found['lr'])}", interval, info["id"])))


def sentences(info: Mapping[str, Any], overrides: Sequence[str]) -> list[str]:
    """What to do and why, then who says what.

    Args:
        info: run.json of the run.
        overrides: of the training that it is for.
    """
    found = info["find_lr"]
    table = [f"  {name:<22}{short_rate(rate)}" for name, rate, _ in said(found)[:-1]]
    return [
        "estimates:",
        *table,
        f"  scaling law: {found['law_says'].removeprefix('law says ')}",
        f"optimizer.lr={short_rate(found['lr'])} is the peak to train with{_interval(found)}: {_reason(found)}.",
        *([f"It is the peak of this run's schedule: {found['schedule']}."] if "schedule" in found else []),  # older records lack it
        *_ratios(found),
        *_doubts(found),
        f"  picture: {Path('plots') / 'lr_range.png'} in the record",
        f"  next:    gptshake {' '.join(map(quoted, overrides))} optimizer.lr=from:{info['id']}",
    ]


def _interval(found: Mapping[str, Any]) -> str:
    return f" ({_between(found)})" if found.get("low") is not None else ""


def _between(found: Mapping[str, Any]) -> str:
    """The interval in words: without measured noise it ends at rates that were tried."""
    low, high = short_rate(found["low"]), short_rate(found["high"])
    return f"the best is from {low} to {high}" if found.get("assumed") else f"{low} to {high} are indistinguishable from it"


def _reason(found: Mapping[str, Any]) -> str:
    if found.get("confirm"):
        return f"best of {len(found['confirm'])} runs of {counted(found['steps'], 'step')}, each with its whole schedule"
    return "median of the range test, the published laws and optimizer.lr; no run has confirmed it"


def _ratios(found: Mapping[str, Any]) -> list[str]:
    """The rate as a multiple of what is used to: an exponent is easily misread."""
    name, rate, _ = _declared(found)
    assert rate is not None
    texts = [f"{_times(found['lr'] / rate)} {name if name != 'preset' else 'the preset'} ({short_rate(rate)})"]
    if last := found.get("last"):
        texts.append(f"{_times(found['lr'] / last['lr'])} the last run of this model and data ({short_rate(last['lr'])}, {last['id']})")
    return [f"That is {' and '.join(texts)}."]


def _times(ratio: float) -> str:
    return f"{ratio:.3g} x" if ratio >= 1 else f"{ratio:.2f} x" if ratio >= 0.1 else f"{ratio:.2g} x"


def _doubts(found: Mapping[str, Any]) -> list[str]:
    """Why the answer may be off, and what would settle it."""
    doubts = []
    if found.get("ramps") and not found.get("rules"):
        doubts.append("The loss did not fall at any rate of the range test, so the runs began at the rate of the scaling law.")
    if found.get("still_falls"):
        doubts.append(
            f"The loss still fell at the end of the range test, {short_rate(found['ramps']['rates'][-1])}, so it says little: "
            "a higher task.high looks further, a higher task.steps more slowly."
        )
    if found.get("edge"):
        doubts.append(f"The best is at the {found['edge']} end of what was run: task.confirm={len(found['confirm']) + 3} looks further.")
    return doubts
