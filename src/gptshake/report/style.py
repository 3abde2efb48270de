"""One look for all pictures: quiet axes, few colours that everybody can tell apart, text that survives a README.

SVGs come out the same, byte for byte, from the same numbers: no date, a fixed salt, letters as paths.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from gptshake.estimate.words import short_count
from gptshake.estimate.words import short_rate as short_rate
from gptshake.files import write_atomic
from gptshake.report.colours import BLUE as BLUE
from gptshake.report.colours import GREEN as GREEN
from gptshake.report.colours import GREY as GREY
from gptshake.report.colours import INK as INK
from gptshake.report.colours import LINE as LINE
from gptshake.report.colours import ORANGE as ORANGE
from gptshake.report.colours import VERMILION as VERMILION

PIXELS_PER_INCH = 200

_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is everywhere the same
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
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE}):
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``name.png`` and ``name.svg``, each whole or not at all; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{suffix}" for suffix in ("png", "svg")]
    for path in paths:
        write_atomic(path, drawn(figure, path.suffix[1:]))
    return paths


def drawn(figure: Figure, suffix: str) -> bytes:
    """The figure as a file of this kind, png or svg; the same bytes for the same figure."""
    content = io.BytesIO()
    figure.savefig(content, format=suffix, dpi=PIXELS_PER_INCH, metadata={"Software": None} if suffix == "png" else {"Date": None})
    return content.getvalue()


def heading(figure: Figure, title: str, subtitle: str) -> None:
    """A title in bold and a line of numbers below it, at the figure's left edge."""
    top = 1 - 0.11 / figure.get_figheight()
    figure.text(0.012, top, title, size=min(13, 13 * 62 / len(title)), weight="bold", va="top", parse_math=False)  # 62 letters: the width
    figure.text(0.012, top - 0.26 / figure.get_figheight(), subtitle, size=9.5, color=GREY, va="top", parse_math=False)


def caption(axes: Axes, text: str) -> None:
    """Say above an axis what it shows; easier to read than a turned label."""
    axes.set_title(text, loc="left", size=9.5, color=GREY, pad=5)


def count_axis(axes: Axes) -> None:
    """Label the x-axis' numbers as 500k, 1.5M, 2B."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short_count(value)))
