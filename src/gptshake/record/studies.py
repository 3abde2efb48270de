"""Folders of sweeps: how one is found by its name, and what its study.json holds. Read only, and quick to import."""

import difflib
import json
from pathlib import Path
from typing import Any

from gptshake.errors import RecordError
from gptshake.files import expanded, read_text
from gptshake.record.run import LARGEST_RECORD
from gptshake.record.shape import malformed_study

ROWS = "study.json"
_WITHOUT: dict[str, Any] = {"state": "stopped", "fixed": [], "started": 0.0, "updated": 0.0}  # of a study.json that does not say


def read_rows_of(folder: Path) -> dict[str, Any]:
    """What a study's study.json holds.

    Raises:
        RecordError: it is missing or damaged.
    """
    try:
        rows = json.loads(read_text(folder / ROWS, LARGEST_RECORD))
    except OSError as error:
        raise RecordError(f"{folder} is no study: it has no study.json that can be read.") from error
    except ValueError as error:
        raise RecordError(f"{folder / ROWS} is damaged: {error}.") from error
    except RecursionError as error:
        raise RecordError(f"{folder / ROWS} is damaged: it is nested too deep.") from error
    if not isinstance(rows, dict) or not {"name", "trials", "axes", "objective"} <= rows.keys():
        raise RecordError(f"{folder / ROWS} is not the record of a study: it lacks name, trials, axes or objective.")
    if why := malformed_study(rows):
        raise RecordError(f"{folder / ROWS} is damaged: {why}.")
    return _WITHOUT | {key: value for key, value in rows.items() if value is not None or key not in _WITHOUT}


def find_study(text: str, multirun: Path) -> Path:
    """The folder of a study.

    Args:
        text: its path, or its name below ``multirun``.
        multirun: folder of studies.
    Raises:
        RecordError: if there is none; with the nearest names.
    """
    wanted = text.strip().rstrip("/")
    for folder in (expanded(wanted), multirun / wanted):
        if wanted and (folder / ROWS).is_file():
            return folder
    names = sorted(file.parent.name for file in multirun.glob(f"*/{ROWS}"))
    near = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4)
    known = f"; did you mean {' or '.join(near)}?" if near else f" in {multirun}; there is {', '.join(names) or 'none at all'}."
    raise RecordError(f"There is no study {wanted!r}{known}")


def find_sweep(text: str, multirun: Path) -> Path | None:
    """The folder of a sweep, one of Hydra's basic sweeper too; None if the text names none.

    Args:
        text: its path, or its name below ``multirun``.
        multirun: folder of sweeps.
    """
    wanted = text.strip().rstrip("/")
    for folder in (expanded(wanted), multirun / wanted):
        inside = bool(wanted) and folder.resolve().parent == multirun.resolve()
        if inside and ((folder / ROWS).is_file() or any(folder.glob("*/run.json"))):
            return folder
    return None
