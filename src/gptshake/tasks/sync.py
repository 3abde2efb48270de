"""``task=sync``: upload to W&B, later and under the same ids, the runs that were offline, cut short or not taken in time.

A W&B folder is uploaded with wandb's own ``wandb sync``, and only if it is whole and where it was written: wandb loses the end of an
offline run with a kill and notes where its files are. Else it is written anew from the record first.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT
from tempfile import TemporaryDirectory
from typing import Any

from gptshake.context import Context
from gptshake.errors import OutOfReach
from gptshake.estimate.formatting import counted
from gptshake.files import refuse_links
from gptshake.processes import run_command
from gptshake.record.index import BROKEN, Entry, read_entry, read_index
from gptshake.record.lock import RunLock
from gptshake.record.run import Run, find_run, run_roots
from gptshake.record.trackers.wandb import WandbTracker
from gptshake.record.trackers.wandb_process import online_problem, short
from gptshake.report.tables import aligned

OPTIONS = ("project", "entity", "every", "artifacts")  # of the tracker, as the run had them


def run(context: Context) -> None:
    """Upload ``task.run``, or all runs that W&B is to have and has not, and print a table of what became of each.

    Raises:
        RecordError: there is no such run.
        OutOfReach: no key, no network, or a run that was not taken; nothing is lost, and the same command tries again.
    """
    cfg = context.config
    roots = run_roots(cfg.paths)
    mirrored = (entry for entry in read_index(roots) if (entry.info.get("wandb") or {}).get("mode") in ("online", "offline"))
    found = [read_entry(find_run(cfg.task.run, roots))] if cfg.task.run else list(mirrored)
    became = {entry.path: why for entry in found if (why := _needless(entry))}
    waiting = [entry for entry in found if entry.path not in became]
    if waiting and (problem := "".join(online_problem(silent=True))):
        raise OutOfReach(
            f"W&B cannot be reached: {problem}. {counted(len(waiting), 'run')} to upload, and nothing is lost: set WANDB_API_KEY or say "
            "`wandb login`, look at the network, and try again."
        )
    refused = _upload(waiting, became) if waiting else 0
    shown = [entry for entry in found if cfg.task.run or entry in waiting or entry.status == "running"]
    rows = [[entry.id, entry.title, became[entry.path]] for entry in shown]
    print(aligned([["run", "", "W&B"], *rows], left=(0, 1)) if rows else "W&B has every run.")
    if refused:
        raise OutOfReach(f"W&B did not accept {counted(refused, 'run')}; nothing is lost, and the same command tries again.")


def _needless(entry: Entry) -> str:
    """Why a run is not uploaded, or an empty text."""
    if entry.status == BROKEN:
        return f"broken: {entry.problem}"
    if entry.status == "running":
        return "still running; upload it when it has ended"
    wandb, folder = entry.info.get("wandb") or {}, _whole_folder(entry.path, entry.info)
    uploaded = wandb.get("uploaded") or (folder is not None and _is_marked(folder))
    return f"there already {wandb.get('url') or ''}".strip() if uploaded else ""


def _whole_folder(path: Path, info: Mapping[str, Any]) -> Path | None:
    """The run's W&B folder, if it is whole and where it was written."""
    wandb = info.get("wandb") or {}
    folder = Path(wandb.get("folder") or "")
    return folder if wandb.get("whole") and folder.is_dir() and folder.parent == path.absolute() / "wandb" else None


def _is_marked(folder: Path) -> bool:
    """Whether ``wandb sync`` has left its mark beside the log: all of it is uploaded."""
    return any(folder.glob("run-*.wandb.synced"))


def folder_to_upload(path: Path) -> Path:
    """The run's W&B folder, written anew with the options that the run had if it is not whole.

    Raises:
        RecordError: the record cannot be read, or a link in it leads out of it.
    """
    refuse_links(path)
    record = Run.open(path)
    known = (record.config().get("logger") or {}) | {key: value for key, value in (record.info.get("wandb") or {}).items() if value}
    tracker = WandbTracker(**{key: value for key, value in known.items() if key in OPTIONS}, mode="offline")
    return _whole_folder(path, record.info) or tracker.write_whole(record)


def _upload(entries: Sequence[Entry], became: dict[Path, str]) -> int:
    """Upload runs while nobody else writes into them; notes in ``became`` what became of each, and returns how many were refused."""
    print(f"uploading {counted(len(entries), 'run')} ...", flush=True)
    folders: dict[Path, Path] = {}
    leases = [RunLock(entry.path) for entry in entries]
    try:
        for path in (entry.path for entry in entries):
            try:
                folders[path] = folder_to_upload(path)
            except Exception as error:  # wandb's or the record's: the other runs are uploaded all the same
                became[path] = f"not taken: {short(error)}"
        with TemporaryDirectory(prefix="gptshake-sync-") as scratch:  # wandb writes a log where it is called
            environment = {"WANDB_DIR": scratch, "WANDB_SILENT": "false", "WANDB_MODE": "online"}
            command = [sys.executable, "-m", "wandb", "sync", "--include-online", *map(str, folders.values())]
            pipes: dict[str, Any] = {"stdin": DEVNULL, "stdout": PIPE, "stderr": STDOUT, "errors": "replace"}
            _, printed = run_command(command, environment, cwd=scratch, **pipes)
        taken = [path for path, folder in folders.items() if _is_marked(folder)]
        for path in taken:
            run_id = re.escape(folders[path].name.rpartition("-")[2])
            address = re.search(rf"https?://\S+/runs/{run_id}\b", printed)
            Run.open(path).update(wandb={"uploaded": True, "url": address and address[0]})
            became[path] = f"uploaded {address[0] if address else ''}"
        for path in folders.keys() - set(taken):
            became[path] = "not taken"
        return len(entries) - len(taken)
    finally:
        for lease in leases:
            lease.release()
