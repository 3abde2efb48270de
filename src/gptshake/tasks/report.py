"""``task=report``: draw the report of a study anew, at any time, while it is at work too. Needs its folder alone."""

import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gptshake.errors import ConfigError
from gptshake.files import refuse_links
from gptshake.record.launch import Launch
from gptshake.record.studies import find_study, read_rows_of
from gptshake.report.study import report
from gptshake.report.terminal import basin_text, table_text, verdict


def run(cfg: DictConfig, launch: Launch) -> None:
    """Print what ``study`` found, and write its pictures, ``report.html`` and ``best.yaml``.

    Raises:
        ConfigError: no study was named.
        RecordError: there is no such study.
    """
    del launch  # leaves no record
    name = OmegaConf.select(cfg, "study")
    if not name:
        raise ConfigError("Say which study: task=report study=<name or path>.")
    conclude(find_study(str(name), Path(cfg.paths.multirun).expanduser()))


def conclude(folder: Path) -> None:
    """Draw the report of the study in ``folder`` and print what it found, as at the end of a sweep.

    Raises:
        RecordError: there is no study, or its record is damaged.
    """
    refuse_links(folder)
    files, study = report(folder), read_rows_of(folder)
    parts = ["\n".join(verdict(study, Path(os.path.relpath(folder)))), table_text(study), basin_text(study)]
    print("\n\n".join(part for part in parts if part))
    print("\n" + "\n".join(f"  {os.path.relpath(file)}" for file in files if file.suffix != ".svg"))
