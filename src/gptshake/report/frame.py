"""The frame of every picture: size, heading, quiet axes, labels that do not overlap, and saving.

PNG and SVG come out the same, byte for byte, from the same numbers: no date, a fixed salt, letters as paths.
"""

import io
import logging
import math
from collections.abc import Iterator, Sequence
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
from matplotlib.ticker import FixedFormatter, FuncFormatter

from gptshake.console import width
from gptshake.estimate.formatting import short_count
from gptshake.files import write_atomic
from gptshake.report.series import BLUE, GREY, INK, LINE, spread

PIXELS_PER_INCH = 200
HEADING = 0.62  # inches
FAMILY = "DejaVu Sans"
NO_LETTERS = (FAMILY, "Last Resort")  # families that have no further letters: one says by boxes which kind of letter is missing
HALO = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]  # around letters that cross lines
POINT: dict[str, Any] = {"color": BLUE, "marker": "o", "markersize": 6.5, "markeredgecolor": "white"}
DASHED = (0, (5, 3))

_STYLE: dict[Any, Any] = {
    "font.family": FAMILY,  # comes with matplotlib, so it is everywhere the same
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "lines.solid_joinstyle": "round",
    "figure.facecolor": "white",
    "svg.fonttype": "path",
    "svg.hashsalt": "gptshake",
    "path.simplify": True,
}


@contextmanager
def look() -> Iterator[None]:
    """Draw and save inside of this; nothing of the caller's matplotlib is changed."""
    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    fonts.setLevel(logging.ERROR)  # a font for foreign letters may lack the bold, which nobody needs to know
    try:
        with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}):
            yield
    finally:
        fonts.setLevel(level)


def frame(title: str, subtitle: str, height: float, rows: int = 1, columns: int = 1, **subplots: Any) -> tuple[Figure, list[Axes]]:
    """An 8 inch wide figure with a title in bold and a line of numbers below it; its axes leave room for all labels around them.

    Args:
        title: shrunk where it is longer than 62 letters.
        subtitle: shrunk where it is longer than 105 letters.
        height: in inches.
        rows: of axes.
        columns: of axes.
        subplots: as ``Figure.subplots`` takes it.
    """
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
    axes: Axes, text: str, at: tuple[float, float], offset: tuple[float, float], edge: Literal["", "x", "y"] = "", **look: Any
) -> None:
    """Text ``offset`` points away from a point; with ``edge`` x or y that coordinate is a share of the axes.

    Args:
        axes: where.
        text: of the label.
        at: the point.
        offset: in points.
        edge: which coordinate, if any, is a share of the axes.
        look: properties of the text.
    """
    coordinates: Any = {"": "data", "x": axes.get_yaxis_transform(), "y": axes.get_xaxis_transform()}[edge]
    look = {"size": 9, "parse_math": False} | look
    axes.annotate(text, at, xytext=offset, xycoords=coordinates, textcoords="offset points", **look)


def edge_labels(axes: Axes, lines: Sequence[tuple[float, str, str]], size: float = 9.5) -> None:
    """Name lines at the right edge: (value, text, colour), moved apart where they would overlap, none below the axis."""
    inches = axes.get_position().height * axes.figure.get_figheight()  # type: ignore[union-attr]
    log = axes.get_yscale() == "log"
    bottom, top = (math.log(end) if log else end for end in axes.get_ylim())
    ordered = sorted(((math.log(value) if log else value, text, colour) for value, text, colour in lines), reverse=True)
    gap = min(1.35 * size / (72 * inches), 1 / max(1, len(lines))) * (top - bottom)
    lowered = spread([min(value, top) for value, _, _ in ordered], gap)
    heights = [-height for height in spread([-max(height, bottom) for height in reversed(lowered)], gap)][::-1]
    for (_, text, colour), height in zip(ordered, heights, strict=True):
        label(axes, text, (1.0, math.exp(height) if log else height), (6, 0), "x", color=colour, size=size, va="center")


def legend_above(axes: Axes, columns: int = 6, **look: Any) -> Legend:
    """A legend above the axes, at their right edge."""
    look = {"ncols": columns, "handlelength": 1.2, "columnspacing": 1.2, "borderpad": 0.1, "fontsize": 9} | look
    return axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), **look)


def token_axis(axes: Axes, label: str = "training tokens", left: float | None = 0.0) -> None:
    """An x-axis of tokens, its ticks written as 500k, 1.5M, 2B."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
    axes.set_xlim(left=left)
    axes.set_xlabel(label)


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
    _fix_layout(figure)
    content = io.BytesIO()
    figure.savefig(content, format=suffix, dpi=PIXELS_PER_INCH, metadata={"Software": None} if suffix == "png" else {"Date": None})
    return content.getvalue()


def _fix_layout(figure: Figure) -> None:
    """Give the axes their final places, rounded: the solver sums in the order of memory addresses, so its last digits vary."""
    engine = figure.get_layout_engine()
    if engine is None:
        return
    engine.execute(figure)
    figure.set_layout_engine("none")
    for axes in figure.axes:
        axes.set_position(np.round(axes.get_position(original=True).bounds, 4).tolist())
    for text in figure.texts:
        text.set_position((round(text.get_position()[0], 4), round(text.get_position()[1], 4)))


def _find_glyphs(figure: Figure) -> None:
    """Letters that the usual font lacks are drawn in one of the system's that has them, or else written as ``\\u65e5``."""
    texts = figure.findobj(Text)
    axes = [axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)]
    named: list[Any] = [(axis, ticks) for axis in axes if isinstance(ticks := axis.get_major_formatter(), FixedFormatter)]
    letters = "".join([*(text.get_text() for text in texts), *(name for _, ticks in named for name in ticks.seq)])
    lacking = frozenset(letters) - _letters(findfont(FAMILY)) - {"\n"}
    if not lacking:
        return
    found, still = _fallbacks(lacking)

    def shown(text: str) -> str:
        return "".join(letter.encode("unicode_escape").decode() if letter in still else letter for letter in text)

    for text in texts:
        if lacking & set(text.get_text()):
            text.set(text=shown(text.get_text()), family=[FAMILY, *found], weight="normal")  # its bold may lack them
            if text in figure.texts:  # a heading, which may have become longer
                text.set_fontsize(min(text.get_fontsize(), 800 / width(text.get_text())))
    for axis, ticks in named:
        ticks.seq = [shown(name) for name in ticks.seq]
        axis.set_tick_params(labelfontfamily=[FAMILY, *found])


@cache
def _fallbacks(lacking: frozenset[str]) -> tuple[list[str], frozenset[str]]:
    """Families of this system that have such letters, those with the most first, and the letters that none has."""
    regular_last = sorted(fontManager.ttflist, key=lambda font: font.weight == 400)
    fonts = {font.name: font.fname for font in regular_last if font.style == "normal" and not font.name.startswith(NO_LETTERS)}
    having = {name: lacking & _letters(path) for name, path in fonts.items()}
    found: list[str] = []
    while lacking and having:
        name = max(having, key=lambda name: (len(having[name] & lacking), name))
        if not having[name] & lacking:
            break
        found.append(name)
        lacking -= having[name]
    return found, lacking


@cache
def _letters(path: str) -> frozenset[str]:
    """What a font file can write; nothing if it cannot be read."""
    try:
        return frozenset(map(chr, get_font(path).get_charmap()))
    except (OSError, RuntimeError, ValueError):
        return frozenset()
