"""The report of a study: pictures, ``report.html`` and ``best.yaml``, drawn from its folder alone, at any time.

Takes a study's folder (study.json and the run directories below it). A study at work, one without trials and runs without
metrics.csv have a report too; it shows what is there.
"""

from pathlib import Path

from matplotlib.figure import Figure

from gptshake.files import write_atomic
from gptshake.record.studies import read_rows_of
from gptshake.report.batch_time import learning_curves
from gptshake.report.frame import look, save
from gptshake.report.history import ablate_figure, curves_figure, time_figure, timeline_figure
from gptshake.report.page import page
from gptshake.report.plane import map_figure
from gptshake.report.plots_study import basin_figure
from gptshake.report.rerun import best_yaml
from gptshake.report.study_stats import Rows, best
from gptshake.report.study_text import verdict


def report(folder: Path) -> list[Path]:
    """Draw a study anew.

    Returns:
        The files written: pictures, report.html, and best.yaml once a trial has finished.
    Raises:
        RecordError: there is no study, or its record is damaged.
    """
    study = read_rows_of(folder)
    files: list[Path] = []
    with look():
        for name, figure in _figures(study, folder).items():
            files += save(figure, folder / "plots", name)
    pictures = {path.stem: path.read_text(encoding="utf-8") for path in files if path.suffix == ".svg"}
    texts = {"report.html": page(study, verdict(study, _shown(folder)), pictures)}
    if (winner := best(study)) and study.get("program") == "gptshake":
        texts["best.yaml"] = best_yaml(study, winner)
    for name, text in texts.items():
        write_atomic(folder / name, text)
    return [*files, *(folder / name for name in texts)]


def _shown(folder: Path) -> Path:
    """The folder as a person would type it here."""
    here = Path.cwd()
    return folder.resolve().relative_to(here) if folder.resolve().is_relative_to(here) else folder


def _figures(study: Rows, folder: Path) -> dict[str, Figure]:
    curves = learning_curves(study, folder)
    drawn = {
        "basin": None if study.get("ablate") else basin_figure(study),
        "map": None if study.get("ablate") else map_figure(study),
        "ablate": ablate_figure(study),
        "curves": curves_figure(study, curves),
        "time": time_figure(study, curves),
        "timeline": timeline_figure(study),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}
