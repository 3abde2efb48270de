"""Small pictures for the journal, as SVG: loss and learning rate of a run, what a sweep found, what a finder drew.

A picture carries the key of what it shows in its last line, so only what is missing or has changed is drawn, and matplotlib is
imported only for a study. Its numbers are rounded to a tenth of a point, which nobody sees, and makes them a third smaller.
"""

import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from gptshake.files import sha256_text, write_atomic
from gptshake.report.journal.chapter import Chapter
from gptshake.report.journal.stories import Story
from gptshake.report.small_plots import sketch
from gptshake.report.study_stats import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DRAWN_AS = 2  # raise it when the pictures shall look otherwise
_LONG = re.compile(r'<path d="([^"]{300,})"')
_SMALL = re.compile(r"-?\d+\.\d+")


def pictures(chapter: Chapter, folder: Path) -> tuple[list[tuple[str, Path]], int]:
    """The pictures of one entry, drawn now where they are not there yet.

    Returns:
        What each shows and where it lies, and how many were drawn now.
    """
    story = chapter.story
    if story.study is None and story.main.info.get("task", "train") != "train":
        return _copied(story, folder)
    path, what = folder / f"{story.id}.svg", f"{chapter.title}: {'what the sweep found' if story.study else 'loss and learning rate'}"
    key = _key(story)
    if _key_in(path) == key:
        return [(what, path)], 0
    svg = _drawn(story)
    if svg is None:
        return [], 0
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{svg}<!-- {key} -->\n", encoding="utf-8")  # a torn one lacks its key, and is drawn anew
    return [(what, path)], 1


def _copied(story: Story, folder: Path) -> tuple[list[tuple[str, Path]], int]:
    """What a finder drew itself."""
    found, copied = [], 0
    for source in sorted((story.folder / "plots").glob("*.svg")):
        target, content = folder / f"{story.id}-{source.name}", source.read_bytes()
        if not target.exists() or target.read_bytes() != content:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomic(target, content)
            copied += 1
        found.append((source.stem.replace("_", " "), target))
    return found, copied


def _key(story: Story) -> str:
    """Changes whenever the picture would."""
    metrics = story.main.path / "metrics.csv"
    rows = [story.main.id, story.main.info.get("finished"), metrics.stat().st_size if metrics.exists() else 0]
    shown = json.dumps(story.study, sort_keys=True) if story.study else rows
    return sha256_text(f"{DRAWN_AS} {shown}")[:16]


def _key_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(-min(64, path.stat().st_size), 2)
            found = re.search(rb"<!-- ([0-9a-f]{16}) -->\n$", file.read())
    except OSError:
        return ""
    return found[1].decode() if found else ""


def _drawn(story: Story) -> str | None:
    """The picture of a story as SVG; None where it has nothing to show."""
    if story.study is None:
        return sketch(story.main.info, story.main.columns)
    from gptshake.report.frame import drawn, look

    with look():
        figure = _of_study(story.study, story.folder)
        if figure is None:
            return None
        svg = drawn(figure, "svg").decode()
    return _compact(svg)


def _compact(svg: str) -> str:
    """The same picture in fewer letters: matplotlib names itself, sets every point on a line of its own and writes six decimals."""
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(?<= d=")[^"]+', lambda found: re.sub(r"\s*([A-Za-z])\s*", r"\1", _SMALL.sub(_rounded, found[0])), svg)
    svg = re.sub(r'(?<= (?:x|y)=")[\d.-]+', _rounded, svg)
    for n, path in enumerate(path for path, times in Counter(_LONG.findall(svg)).items() if times > 1):  # letters and their halo
        svg = svg.replace(f'<path d="{path}"', f'<use xlink:href="#long{n}"')
        svg = svg.replace("<defs>", f'<defs><path id="long{n}" d="{path}"/>', 1)
    return re.sub(r"^ +", "", svg, flags=re.MULTILINE)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}".removesuffix(".0")


def _of_study(study: Rows, folder: Path) -> "Figure | None":
    """The basin, or the comparison; the learning curves of a study that has no axis of numbers."""
    from gptshake.report.batch_time import learning_curves
    from gptshake.report.history import ablate_figure, curves_figure
    from gptshake.report.plots_study import basin_figure

    found = ablate_figure(study) if study.get("ablate") else basin_figure(study)
    return found or curves_figure(study, learning_curves(study, folder))
