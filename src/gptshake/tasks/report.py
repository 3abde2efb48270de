"""``task=report``: draw the report of a study anew, at any time, while it is at work too. Needs its folder alone."""

import difflib
import os
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from gptshake.errors import ConfigError, RecordError
from gptshake.record.launch import Launch
from gptshake.report.study import read_rows_of, report
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
    files, study = report(folder), read_rows_of(folder)
    parts = ["\n".join(verdict(study, Path(os.path.relpath(folder)))), table_text(study), basin_text(study)]
    print("\n\n".join(part for part in parts if part))
    print("\n" + "\n".join(f"  {os.path.relpath(file)}" for file in files if file.suffix != ".svg"))


def find_study(text: str, multirun: Path) -> Path:
    """The folder of a study.

    Args:
        text: its path, or its name below ``multirun``.
        multirun: folder of studies.
    Raises:
        RecordError: if there is none; with the nearest names.
    """
    wanted = text.strip().rstrip("/")
    for folder in (Path(wanted).expanduser(), multirun / wanted):
        if wanted and (folder / "study.json").is_file():
            return folder
    names = sorted(file.parent.name for file in multirun.glob("*/study.json"))
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
    known = f"; did you mean {' or '.join(near)}?" if near else f" in {multirun}; there is {', '.join(names) or 'none at all'}."
    raise RecordError(f"There is no study {wanted!r}{known}")
