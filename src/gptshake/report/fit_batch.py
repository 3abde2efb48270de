"""Micro-batch sizes as a table, a picture and one sentence: which is the fastest here, and which is the largest that fits.

Takes the facts of ``tasks/fit_batch.py`` (plain values and ``estimate.fit.Tried``).
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from gptshake.estimate.budget import micro_batch
from gptshake.estimate.fit import Tried, fastest, largest
from gptshake.estimate.words import counted, short_bytes, short_count
from gptshake.files import write_atomic
from gptshake.report.frame import BLUE, GREEN, GREY, VERMILION, caption, heading, look, save
from gptshake.report.tables import aligned

Facts = Mapping[str, Any]
MARKED = 11  # sizes written below the axis
LINE: dict[str, Any] = {"linewidth": 1.8, "marker": "o", "markersize": 5, "markeredgecolor": "white"}


def row_text(row: Tried, batch: int, block_size: int) -> str:
    """One trial as a line, while others go on."""
    size = f"{row.size:>5} sequence{'s' if row.size > 1 else ' '}"
    if not row.fits:
        return f"{size}  {'do' if row.size > 1 else 'does'} not fit: {row.why}"
    return f"{size}  {_speed(row, batch, block_size):>6} tokens/s  {short_bytes(row.peak or 0):>8}"


def text(facts: Facts) -> str:
    """The table, and what to do."""
    tried, batch, block = _sorted(facts), facts["batch_size"], facts["block_size"]
    best, beyond, most = fastest(tried, batch), fastest(tried, batch, beyond=True), largest(tried)
    fast = "fastest" if beyond.size <= batch else f"fastest for steps of {batch}"
    answers = ((fast, best), ("fastest of all", beyond if beyond.size > batch else None), ("largest that fits", most))
    table = [["micro-batch", "tokens/s", "ms a pass", "peak memory", ""]]
    for row in tried:
        marks = [word for word, marked in answers if row is marked]
        numbers = [_speed(row, batch, block), f"{1000 * row.micro_batch:.3g}"] if row.fits else ["", ""]
        said = ", ".join(marks) if row.fits else "does not fit" if row.peak else f"does not fit: {row.why}"
        table.append([str(row.size), *numbers, short_bytes(row.peak) if row.peak else "", said])
    return f"\n{aligned(table)}\n\n{sentence(facts)}"


def sentence(facts: Facts) -> str:
    """What to write into the next command, and what else there is room for."""
    tried, batch, block, limit = _sorted(facts), facts["batch_size"], facts["block_size"], short_bytes(facts["limit"])
    best, most = fastest(tried, batch), largest(tried)
    use = micro_batch(batch, best.size)
    divided = f" (it divides the batch of {batch}; {best.size} was tried)" if use != best.size else ""
    beyond = fastest(tried, batch, beyond=True)
    where, more = "here", ""
    if beyond.size > batch:
        where = f"for steps of {counted(batch, 'sequence')}"
        more = f" (larger steps go up to {_speed(beyond, batch, block)}, {beyond.size} at once)"
    full = any(not row.fits for row in tried)
    end = f"{most.size} {'is the largest that fits' if full else 'still fits, and more is no faster'}."
    speed = f"{best.rate(batch) * block:,.0f} tokens/s with {short_bytes(best.peak or 0)} of {limit}"
    return f"data.micro_batch_size={use}{divided} is the fastest {where}: {speed}{more}; {end}"


def draw(facts: Facts, folder: Path) -> list[Path]:
    """Write ``fit_batch.png``, ``.svg`` and the rows as ``.json``; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        asdict(row) | {"tokens_per_s": row.rate(facts["batch_size"]) * facts["block_size"] if row.fits else None} for row in _sorted(facts)
    ]
    best, most = fastest(facts["tried"], facts["batch_size"]), largest(facts["tried"])
    written = dict(facts) | {"tried": rows, "fastest": best.size, "largest": most.size, "sentence": sentence(facts)}
    write_atomic(folder / "fit_batch.json", json.dumps(written, indent=2) + "\n")
    with look():
        return [*save(figure(facts), folder, "fit_batch"), folder / "fit_batch.json"]


def figure(facts: Facts) -> Figure:
    """Speed above, memory below, over the same sizes."""
    batch, block = facts["batch_size"], facts["block_size"]
    picture = Figure(figsize=(8, 4.8))
    heading(picture, facts["title"], f"{facts['settings']}  ·  step of {counted(batch, 'sequence')} of {block:,} tokens")
    above, below = picture.subplots(2, 1, sharex=True)
    picture.subplots_adjust(left=0.085, right=0.975, top=0.82, bottom=0.105, hspace=0.32)
    _draw_speed(above, _sorted(facts), batch, block)
    _draw_memory(below, _sorted(facts), facts["limit"])
    below.set_xlabel("micro-batch, sequences", size=9.5, color=GREY)
    _sizes(below, _sorted(facts))
    return picture


def _draw_speed(axes: Axes, tried: list[Tried], batch: int, block_size: int) -> None:
    fitting = [row for row in tried if row.fits]
    rates = [row.rate(batch) * block_size for row in fitting]
    axes.plot([row.size for row in fitting], rates, color=BLUE, **LINE)
    axes.set_ylim(0, 1.3 * max(rates))
    best, beyond = fastest(tried, batch), fastest(tried, batch, beyond=True)
    words = f"tokens/s: {_speed(best, batch, block_size)} with {best.size} at once"
    _ring(axes, best.size, best.rate(batch) * block_size)
    if beyond.size > batch:
        words += f"; in larger steps up to {_speed(beyond, batch, block_size)} with {beyond.size}"
        _ring(axes, beyond.size, beyond.rate(batch) * block_size)
    caption(axes, words)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))


def _draw_memory(axes: Axes, tried: list[Tried], limit: int) -> None:
    most, fitting, lost = largest(tried), [row for row in tried if row.fits], [row for row in tried if not row.fits]
    near = bool(lost) or limit < 3 * (most.peak or 0)
    top = limit if near else most.peak or 1
    unit, name = (2**30, "GiB") if top >= 2**31 else (2**20, "MiB")
    axes.plot([row.size for row in fitting], [(row.peak or 0) / unit for row in fitting], color=GREEN, **LINE)
    axes.set_ylim(0, 1.35 * top / unit)
    if near:
        axes.axhline(limit / unit, color=VERMILION, linewidth=1.2, linestyle=(0, (5, 3)))
        heights = [min(row.peak or limit, int(1.2 * limit)) / unit for row in lost]  # a trial that ran out of memory has no peak
        axes.plot([row.size for row in lost], heights, "x", color=VERMILION, markersize=7, markeredgewidth=1.8)
        words = f"limit {short_bytes(limit)}" + ("; crosses: did not fit" if lost else "")
        axes.text(0.005, limit / unit, words, transform=axes.get_yaxis_transform(), size=9, color=VERMILION, va="bottom")
    _ring(axes, most.size, (most.peak or 0) / unit)
    holds = f"peak memory, {name}: {most.size} {'is the largest that fits' if lost else 'still fits'}, with {short_bytes(most.peak or 0)}"
    caption(axes, holds + ("" if near else f" of {short_bytes(limit)}"))


def _ring(axes: Axes, x: float, y: float) -> None:
    """Around a point that is named in the caption."""
    axes.plot([x], [y], "o", markersize=10, markerfacecolor="none", markeredgecolor=VERMILION, markeredgewidth=1.6, clip_on=False)


def _sizes(axes: Axes, tried: list[Tried]) -> None:
    """Powers of two below a logarithmic axis."""
    axes.set_xscale("log", base=2)
    powers = [size for row in tried if (size := row.size) & (size - 1) == 0]
    axes.xaxis.set_major_locator(FixedLocator(powers[:: 1 + len(powers) // MARKED]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlim(tried[0].size / 1.15, tried[-1].size * 1.15)


def _sorted(facts: Facts) -> list[Tried]:
    return sorted(facts["tried"], key=lambda row: row.size)


def _speed(row: Tried, batch: int, block_size: int) -> str:
    return short_count(row.rate(batch) * block_size)
