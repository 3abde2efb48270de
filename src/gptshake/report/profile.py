"""A profile for the terminal and as a picture: where a step's time goes, where the start's went, and what to do about it.

Takes the plain values of ``tasks/profile.py``; writes ``profile.png``, ``.svg`` and ``.json``.
"""

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gptshake.estimate.words import counted, percent, short_count, three_digits
from gptshake.files import write_atomic
from gptshake.record.names import title
from gptshake.report.frame import BLUE, GREEN, GREY, INK, ORANGE, VERMILION, caption, heading, look, save
from gptshake.report.tables import aligned

Facts = Mapping[str, Any]
NAMES = {
    "data": "waiting for data",
    "transfer": "copying to device",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimizer",
    "logging": "record, callbacks",
    "other": "the loop",
}
COLOURS = {"data": VERMILION, "transfer": ORANGE, "forward": BLUE, "backward": BLUE, "optimizer": GREEN}  # the rest is grey
LINE = 118  # letters of a line on the terminal
LEAST_START_S = 0.005  # shorter phases of the start are not shown


def text(facts: Facts) -> str:
    """Tables, and the verdict last, where the eye is."""
    return "\n\n".join([_step_table(facts), *_beside(facts), _start_table(facts), _verdict(facts)])


def draw(facts: Facts, folder: Path) -> list[Path]:
    """Write the picture and the numbers; gives their paths."""
    with look():
        files = save(figure(facts), folder, "profile")
    numbers = folder / "profile.json"
    write_atomic(numbers, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return [*files, numbers]


def figure(facts: Facts) -> Figure:
    """Bars of a step's parts on the left, of the start's phases on the right, the verdict below."""
    picture = Figure(figsize=(9, 4.4))
    left, right = picture.subplots(1, 2, width_ratios=(1.25, 1))
    picture.subplots_adjust(left=0.16, right=0.965, top=0.79, bottom=0.2, wspace=0.62)
    heading(picture, f"Where the time goes  ·  {title(facts['name'])}", _figures(facts))
    _bars(left, [(NAMES[part["name"]], 1e3 * part["mean_s"], part["share"], COLOURS.get(part["name"], GREY)) for part in facts["parts"]])
    caption(left, "milliseconds of a step, and share")
    total = sum(facts["start"].values())
    _bars(right, [(name, seconds, seconds / total, GREY) for name, seconds in _phases(facts).items()])
    caption(right, f"seconds of the start ({three_digits(total)}), and share")
    picture.text(0.012, 0.11, textwrap.fill(facts["verdict"][0], 128), size=9.5, va="top", color=INK, parse_math=False)
    return picture


def _bars(axes: Axes, rows: list[tuple[str, float, float, str]]) -> None:
    """One bar a row, the first on top; each with its value and share beside it."""
    names, values, shares, colours = zip(*reversed(rows), strict=True)
    axes.barh(names, values, color=colours, height=0.62)
    for place, (value, share) in enumerate(zip(values, shares, strict=True)):
        label = f"{three_digits(round(value, 2))}  {percent(share)}"
        axes.annotate(label, (value, place), xytext=(4, 0), textcoords="offset points", va="center", size=9)
    axes.set_xlim(0, 1.42 * max(values))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelsize=9.5)
    axes.spines["left"].set_visible(False)


def _figures(facts: Facts) -> str:
    cost = facts["measuring"]
    parts = [
        f"a step takes {three_digits(1e3 * facts['step_s'])} ms",
        f"{short_count(facts['tokens_per_s'])} tokens/s",
        f"MFU {facts['mfu']:.2g}",
        f"{facts['data']}, {facts['device']}",
        f"measuring costs {percent(cost)}" if cost >= 0.0005 else "measuring costs less than the noise",
    ]
    return "  ·  ".join(parts)


def _phases(facts: Facts) -> dict[str, float]:
    return {name: seconds for name, seconds in facts["start"].items() if seconds >= LEAST_START_S}


def _step_table(facts: Facts) -> str:
    rows = [["a step", "median ms", "mean ms", "share"]]
    for part in facts["parts"]:
        rows.append([NAMES[part["name"]], f"{1e3 * part['median_s']:,.2f}", f"{1e3 * part['mean_s']:,.2f}", f"{100 * part['share']:.1f} %"])
    batch = facts["batch"]
    rows.append(["all", "", f"{1e3 * facts['step_s']:,.2f}", ""])
    accumulated = f" = {batch['accumulation']} micro-batches" if batch["accumulation"] > 1 else ""
    from_few = f", estimated from {batch['measured']} of them" if batch["measured"] < batch["accumulation"] else ""
    head = f"{_figures(facts)}\nmeasured: {counted(len(facts['steps']['measured_s']), 'step')} of {counted(batch['size'], 'sequence')}{accumulated}{from_few}"
    return f"{head}\n\n{_right(rows)}"


def _right(rows: list[list[str]]) -> str:
    return aligned([[*row, ""] for row in rows], left=(0,))


def _beside(facts: Facts) -> list[str]:
    """The callbacks that take most, and what comes now and then."""
    slow = [f"{name} {1e3 * seconds:.2g} ms" for name, seconds in list(facts["callbacks"].items())[:3]]
    lines = [f"slowest callbacks, a step: {', '.join(slow)}"] if slow else []
    for name, row in facts["occasions"].items():
        lines.append(f"a {name} takes {three_digits(row['seconds'])} s ({row['times']} seen); it is no part of the step above")
    return ["\n".join(lines)] if lines else []


def _start_table(facts: Facts) -> str:
    total = sum(facts["start"].values())
    rows = [["the start", "seconds", "share"]]
    rows += [[name, f"{seconds:.2f}", f"{100 * seconds / total:.1f} %"] for name, seconds in _phases(facts).items()]
    return _right([*rows, ["all", f"{total:.2f}", ""]])


def _verdict(facts: Facts) -> str:
    return "\n".join(textwrap.fill(sentence, LINE, break_on_hyphens=False, break_long_words=False) for sentence in facts["verdict"])
