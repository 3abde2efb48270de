"""One look for all pictures: quiet axes, few colours that everybody can tell apart, text that survives a README.

SVGs come out the same, byte for byte, from the same numbers: no date, a fixed salt, letters as paths.
"""

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.text import Text
from matplotlib.ticker import FixedFormatter, FuncFormatter

from gptshake.console import width
from gptshake.estimate.words import short_count
from gptshake.estimate.words import short_rate as short_rate
from gptshake.files import write_atomic
from gptshake.report.series import BLUE as BLUE
from gptshake.report.series import GREEN as GREEN
from gptshake.report.series import GREY as GREY
from gptshake.report.series import INK as INK
from gptshake.report.series import LINE as LINE
from gptshake.report.series import ORANGE as ORANGE
from gptshake.report.series import VERMILION as VERMILION

PIXELS_PER_INCH = 200
FAMILY = "DejaVu Sans"
NO_LETTERS = (FAMILY, "Last Resort")  # families that have no further letters: one says by boxes which kind of letter is missing

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
    content = io.BytesIO()
    figure.savefig(content, format=suffix, dpi=PIXELS_PER_INCH, metadata={"Software": None} if suffix == "png" else {"Date": None})
    return content.getvalue()


def _find_glyphs(figure: Figure) -> None:
    """Letters that the usual font lacks are drawn in one of the system's that has them, or else written as ``\\u65e5``."""
    texts = figure.findobj(Text)
    fixed = [(axis, names) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) if (names := _names(axis))]
    letters = "".join([*(text.get_text() for text in texts), *(name for _, names in fixed for name in names.seq)])
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
    for axis, names in fixed:
        names.seq = [shown(name) for name in names.seq]
        axis.set_tick_params(labelfontfamily=[FAMILY, *found])


def _names(axis: Axis) -> Any:
    """What writes the labels of an axis whose ticks have names; None if they are numbers."""
    names = axis.get_major_formatter()
    return names if isinstance(names, FixedFormatter) else None


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


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """A title in bold and a line of numbers below it, at the figure's left edge."""
    top = 1 - 0.11 / figure.get_figheight()
    figure.text(
        0.012, top, title, size=min(13, 13 * 62 / max(1, width(title))), weight="bold", va="top", parse_math=False
    )  # 62 letters: the width
    size = min(9.5, 9.5 * 105 / max(1, width(subtitle)))  # 105 letters: the width
    figure.text(0.012, top - 0.26 / figure.get_figheight(), subtitle, size=size, color=GREY, va="top", parse_math=False)


def caption(axes: Axes, text: str) -> None:
    """Say above an axis what it shows; easier to read than a turned label."""
    axes.set_title(text, loc="left", size=9.5, color=GREY, pad=5)


def count_axis(axes: Axes) -> None:
    """Label the x-axis' numbers as 500k, 1.5M, 2B."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
