"""The frame of every picture: size, heading, quiet axes, labels that do not overlap, and saving.

PNG and SVG come out the same, byte for byte, from the same numbers: no date, a fixed salt, characters as paths.
"""

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.legend import Legend
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from gptshake.console import cut, width
from gptshake.estimate.formatting import short_count
from gptshake.files import write_atomic
from gptshake.report.series import BLUE, GREY, INK, LINE, spread

HEADING = 0.62  # inches
FAMILY = "DejaVu Sans"  # comes with matplotlib, so it is everywhere the same
LONGEST = 100  # columns of a line with characters that the usual font lacks: its letters are of 8 points then
NO_GLYPHS = (FAMILY, "Last Resort")  # families that have no further characters: one says by boxes which kind of character is missing
HALO = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]  # around characters that cross lines
POINT: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 6.5, "markeredgecolor": "white"}
DASHED = (0, (5, 3))

_STYLE: dict[Any, Any] = {  # what differs from matplotlib's defaults
    "font.family": FAMILY,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), GREY),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("axes.grid", "axes.axisbelow"), True),
    "axes.formatter.useoffset": False,  # 2.1925 at a tick, not 0.0005 with +2.192 above
    "grid.color": LINE,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "gptshake",
}


@contextmanager
def plot_style() -> Iterator[None]:
    """Decorates what draws and saves; nothing of the caller's matplotlib is changed."""
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}):
        yield


def frame(title: str, subtitle: str, height: float, rows: int = 1, columns: int = 1, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """A figure of 8 inches and ``height`` with a title in bold and a line of numbers below it, both shrunk to 8 points and then cut where they are too long."""
    title, subtitle = cut(title, 100, "…"), cut(subtitle, 124, "…")
    figure = Figure(figsize=(8, height), layout="constrained")
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.004, 0, 0.99, 1 - HEADING / height), w_pad=0.1, h_pad=0.08, hspace=0.04)
    sizes = (min(13.0, 13.0 * 62 / max(1, width(title))), min(9.5, 9.5 * 105 / max(1, width(subtitle))))
    figure.text(0.012, 1 - 0.11 / height, title, size=sizes[0], weight="bold", va="top", parse_math=False)
    figure.text(0.012, 1 - 0.37 / height, subtitle, size=sizes[1], color=GREY, va="top", parse_math=False)
    return figure, list(figure.subplots(rows, columns, squeeze=False, **subplots).flat)


def caption(axes: Axes, text: str) -> None:
    """Say above the axes what they show; easier to read than a turned label."""
    axes.set_title(text, loc="left", size=9.5, color=GREY, pad=5)


def label(
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], edge: Literal["", "x", "y", "xy"] = "", **look: Any
) -> None:
    """Text ``offset`` points away from a point; with ``edge`` x, y or xy these coordinates are shares of the axes."""
    coordinates: Any = {"": "data", "x": axes.get_yaxis_transform(), "y": axes.get_xaxis_transform(), "xy": "axes fraction"}[edge]
    look = {"size": 9, "parse_math": False} | look
    axes.annotate(text, at, xytext=offset, xycoords=coordinates, textcoords="offset points", **look)


def edge_labels(axes: Axes, lines: Sequence[tuple[float, str, str]]) -> None:
    """Name lines at the right edge: (value, text, colour), moved apart where they would overlap, none below the axis."""
    inches = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    gap = min(1.35 * 9.5 / (72 * inches), 1 / max(1, len(lines)))  # as a share of the axes, as all heights
    ordered = sorted(lines, reverse=True)
    ends = axes.transData.transform(np.reshape([(axes.get_xlim()[0], value) for value, _, _ in ordered], (-1, 2)))
    places = np.clip(axes.transAxes.inverted().transform(ends)[:, 1], 0, 1).tolist()
    heights = [-height for height in spread([-max(height, 0.0) for height in reversed(spread(places, gap))], gap)][::-1]
    for (_, text, colour), height in zip(ordered, heights, strict=True):
        label(axes, text, (1.0, height), (6, 0), "xy", color=colour, size=9.5, va="center")


def legend_above(axes: Axes, columns: int = 6, **look: Any) -> Legend:
    look = {"ncols": columns, "handlelength": 1.2, "columnspacing": 1.2, "borderpad": 0.1, "fontsize": 9} | look
    return axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), **look)


def token_axis(axes: Axes, label: str = "training tokens", left: float | None = 0.0) -> None:
    """An x-axis of tokens, its ticks written as 500k, 1.5M, 2B."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlim(left=left)
    axes.set_xlabel(label)


def log_axis(
    axes: Axes, which: Literal["x", "y"], ends: tuple[float, float], text: Callable[[float], str], most: int = 14, base: int = 10
) -> None:
    """A log axis with ticks at round values, of base 10 at most as many as given, and with ``text`` as their labels."""
    axes.set(**{f"{which}scale": "log", f"{which}lim": ends})
    axis, decades = axes.xaxis if which == "x" else axes.yaxis, math.log10(ends[1] / ends[0])
    few = base == 10 and decades < 0.7
    subs = next((subs for subs in ((1, 2, 5), (1, 3)) if base == 10 and decades * len(subs) <= most), (1,))
    axis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]) if few else LogLocator(base, subs, numticks=most))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg``, each whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        write_atomic(path, drawn(figure, path.suffix[1:]))
    return paths


def drawn(figure: Figure, suffix: str) -> bytes:
    """The figure as a file of this kind, png or svg; the same bytes for the same figure."""
    _find_glyphs(figure)
    if engine := figure.get_layout_engine():  # final places, rounded: it sums in the order of memory addresses, so its last digits vary
        engine.execute(figure)
        figure.set_layout_engine("none")
        for axes in figure.axes:
            axes.set_position(np.round(axes.get_position(original=True).bounds, 4).tolist())
        for text in figure.texts:
            text.set_position(np.round(text.get_position(), 4).tolist())
    content = io.BytesIO()
    figure.savefig(content, format=suffix, dpi=200, metadata={"Software": None} if suffix == "png" else {"Date": None})
    return content.getvalue()


def small_svg(make: Callable[[], Figure | None]) -> str:
    """The figure that ``make`` gives as an SVG of a fifth of the size, to be one of many: its characters are of the reader's own font.

    Empty without a figure.
    """
    with plot_style(), matplotlib.rc_context({"svg.fonttype": "none"}):
        figure = make()
        svg = drawn(figure, "svg").decode() if figure else ""
    return re.sub(r' [dxy]="[^"]+', lambda path: re.sub(r"(\.\d)\d+", r"\1", path[0]), svg)  # to a tenth of a point


def lay_out(figure: Figure) -> None:
    """Give the axes their places before the figure is saved, for what depends on them."""
    _find_glyphs(figure)
    figure.draw_without_rendering()


def _find_glyphs(figure: Figure) -> None:
    """Characters that the usual font lacks are drawn in one of the system's that has them, or else written as ``\\u65e5``."""
    texts = figure.findobj(Text)
    lacking = frozenset("".join(text.get_text() for text in texts)) - _characters_of(findfont(FAMILY)) - {"\n"}
    if not lacking:
        return
    found, still = _fallbacks(lacking)
    for text in texts:
        if lacking & set(text.get_text()):
            characters = (character.encode("unicode_escape").decode() if character in still else character for character in text.get_text())
            lines = "".join(characters).split("\n")  # longer than before: an escape is longer than its character
            shown = "\n".join(cut(line, LONGEST, "...") for line in lines)
            text.set(text=shown, family=[FAMILY, *found], weight="normal")  # its bold may lack them
            text.set_fontsize(min(text.get_fontsize(), 800 / width(shown)))


@cache
def _fallbacks(lacking: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Families of this system that have such characters, those with the most first, and the characters that none has."""
    regular_last = sorted(fontManager.ttflist, key=lambda font: font.weight == 400)
    fonts = {font.name: font.fname for font in regular_last if font.style == "normal" and not font.name.startswith(NO_GLYPHS)}
    having = {name: characters for name, path in fonts.items() if (characters := lacking & _characters_of(path))}
    return sorted(having, key=lambda name: (-len(having[name]), name)), lacking.difference(*having.values())


@cache
def _characters_of(path: str) -> frozenset[str]:
    """What a font file can write; nothing if it cannot be read."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
