"""Uploads what W&B does not have yet of some records, under the runs' own ids, with wandb's own ``wandb sync``.

A folder is uploaded only if it is whole and where it was written: wandb loses the end of an offline run with a kill and notes
where its files lie. Else the folder is written anew from the record first (older ones are renamed, never removed).
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gptshake.record.run import Run
from gptshake.record.sinks.mirror import Mirror
from gptshake.record.sinks.reach import answers, key_problem


def out_of_reach() -> str:
    """Why nothing can be uploaded now; empty if something can."""
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True, mode="online"))
    return key_problem() or answers()


def folder_of(run: Run) -> Path | None:
    """The run's W&B folder, if it is whole and lies where it was written."""
    told: dict[str, Any] = run.info.get("wandb") or {}
    folder = Path(told.get("folder") or "")
    return folder if told.get("whole") and folder.is_dir() and folder.parent == run.path / "wandb" else None


def is_uploaded(run: Run) -> bool:
    """Whether W&B has all of a run, as the record says or the mark that ``wandb sync`` leaves."""
    folder = folder_of(run)
    return bool((run.info.get("wandb") or {}).get("uploaded")) or (folder is not None and _mark(folder).exists())


def write_anew(mirror: Mirror) -> Path:
    """Write the W&B folder of a record that ended, offline, and note in the record where it lies."""
    run = mirror.run
    opened = mirror.open()
    run.update(wandb={**opened.facts(), "whole": False, "uploaded": False})
    mirror.catch_up(run.rows(), run.samples())
    for picture in sorted((run.path / "plots").glob("*.png")):
        mirror.log_image(picture.stem, picture)
    mirror.end()
    run.update(wandb={"whole": True})
    return Path(str(opened.facts()["folder"]))


def upload(folders: Sequence[Path]) -> dict[Path, str]:
    """Upload W&B folders; what is uploaded is marked.

    Returns:
        Folder -> address of its run, for those that were uploaded.
    Raises:
        KeyboardInterrupt, Stop: whoever ended it; what is uploaded by then stays so.
    """
    with TemporaryDirectory(prefix="gptshake-sync-") as scratch:  # wandb writes a log where it is called
        environment = os.environ | {"WANDB_DIR": scratch, "WANDB_SILENT": "false", "WANDB_MODE": "online"}
        command = [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, folders)]
        done = subprocess.run(
            command, env=environment, cwd=scratch, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, errors="replace"
        )
    said = done.stdout + done.stderr
    return {folder: _address(folder, said) for folder in folders if _mark(folder).exists()}


def _mark(folder: Path) -> Path:
    """What ``wandb sync`` leaves beside a log that it has uploaded whole."""
    logs = sorted(folder.glob("run-*.wandb"))
    return (logs[0] if logs else folder / "run-.wandb").with_suffix(".wandb.synced")


def _address(folder: Path, said: str) -> str:
    run_id = folder.name.rpartition("-")[2]
    found = re.search(rf"https?://\S+/runs/{re.escape(run_id)}\b", said)
    return found[0] if found else ""
