"""``task=report``: the report of a study, or the page of a run, drawn anew at any time, also while it runs. Needs its folder alone."""

import os
from pathlib import Path

from omegaconf import OmegaConf

from gptshake.context import Context
from gptshake.errors import ConfigError
from gptshake.files import expanded, refuse_links, written
from gptshake.record.index import find_study, read_entry, read_study, refuse_damaged
from gptshake.record.run import find_run, run_roots
from gptshake.report.ascii_plots import ascii_plot
from gptshake.report.study_stats import best
from gptshake.report.study_text import table_text, verdict
from gptshake.report.tables import check_targets, study_csv, study_latex, write_tables


def run(context: Context) -> None:
    """Print what ``study`` found and write its pictures, ``report.html``, ``best.yaml`` and tables; or write the page of ``task.run``.

    Raises:
        ConfigError: no study and no run was named, or both.
        RecordError: there is no such study or run, or a record is damaged; what can be read is shown.
    """
    cfg = context.config
    name, wanted = OmegaConf.select(cfg, "study"), OmegaConf.select(cfg, "task.run")
    targets = {key: OmegaConf.select(cfg, key) for key in ("task.csv", "task.latex")}
    aloud = check_targets(targets)
    if bool(name) == bool(wanted):
        raise ConfigError("Choose a study or a run: task=report study=<name>, or task=report task.run=<name, id or path>.")
    if wanted and any(targets.values()):
        raise ConfigError("task.csv and task.latex are tables of a study; of runs: task=runs task.csv=runs.csv.")
    if wanted:
        from gptshake.report.pages import write_run_page  # its curves need numpy

        entry = read_entry(find_run(str(wanted), run_roots(cfg.paths)))
        print(written(lambda: [write_run_page(entry)]))
        refuse_damaged([entry])
        return
    folder = find_study(str(name), expanded(cfg.paths.multirun))
    if aloud:
        conclude(folder)
    study = read_study(folder)
    write_tables(study, targets, (study_csv, study_latex))
    if study.get("program") == "gptshake":
        runs = (folder / run["path"] for row in [*study["trials"], *(study.get("confirm") or [])] for run in row["runs"])
        refuse_damaged(read_entry(path) for path in runs if (path / "run.json").exists())


def conclude(folder: Path, *, aloud: bool = True) -> None:
    """Draw the report of the study in ``folder`` and print what it found, as at the end of a sweep.

    ``aloud=False`` prints no answer, if there is one: another task draws its own from the study.

    Raises:
        RecordError: there is no study, or its record is damaged.
    """
    refuse_links(folder)
    from gptshake.report.pages import write_study_page  # brings matplotlib

    study = read_study(folder)
    files = written(lambda: (file for file in write_study_page(folder) if file.suffix != ".svg"))
    if not aloud and best(study):
        return
    parts = ["\n".join(verdict(study, Path(os.path.relpath(folder)))), table_text(study), ascii_plot(study)]
    print("\n\n".join(part for part in parts if part))
    print(f"\n{files}")
