"""``task=sync``: upload to W&B, later and under the same ids, the runs that were offline, cut short or not taken in time."""

from pathlib import Path

from gptshake.context import Context
from gptshake.errors import OutOfReach
from gptshake.files import refuse_links
from gptshake.record.index import BROKEN, Entry, read_entry, read_index
from gptshake.record.lease import Lease
from gptshake.record.run import Run, find_run, run_roots
from gptshake.record.sinks import upload
from gptshake.record.sinks.about import config_of
from gptshake.record.sinks.reach import short
from gptshake.record.sinks.wandb import WandbSink
from gptshake.report.tables import aligned

OPTIONS = ("project", "entity", "every", "artifacts")  # of the sink, as the run had them


def run(context: Context) -> None:
    """Upload ``task.run``, or all runs that W&B is to have and has not, and print a table of what became of each.

    Raises:
        RecordError: there is no such run.
        OutOfReach: no key, no network, or a run that was not taken; nothing is lost, and the same command tries again.
    """
    cfg = context.config
    roots = run_roots(cfg.paths)
    found = [read_entry(find_run(cfg.task.run, roots))] if cfg.task.run else [entry for entry in read_index(roots) if _is_mirrored(entry)]
    needless = {entry.path: why for entry in found if (why := _needless(entry))}
    waiting = [entry for entry in found if entry.path not in needless]
    if waiting and (problem := upload.out_of_reach()):
        raise OutOfReach(
            f"W&B cannot be reached: {problem}. {_count(len(waiting))} to upload, and nothing is lost: set WANDB_API_KEY or say "
            "`wandb login`, look at the network, and try again."
        )
    taken, refused = _upload(waiting) if waiting else ({}, {})
    became = needless | refused | {path: f"uploaded {address}" for path, address in taken.items()}
    shown = [entry for entry in found if cfg.task.run or entry in waiting or entry.status == "running"]
    rows = [[entry.id, entry.title, became[entry.path]] for entry in shown]
    print(aligned([["run", "", "W&B"], *rows], left=(0, 1)) if rows else "W&B has every run.")
    if refused:
        raise OutOfReach(f"W&B did not take {_count(len(refused))}; nothing is lost, and the same command tries again.")


def _is_mirrored(entry: Entry) -> bool:
    """Whether a run was meant for W&B; others are uploaded only by name."""
    return (entry.info.get("wandb") or {}).get("mode") in ("online", "offline")


def _needless(entry: Entry) -> str:
    """Why a run is not uploaded, or an empty text."""
    if entry.status == BROKEN:
        return f"broken: {entry.problem}"
    if entry.status == "running":
        return "still running; upload it when it has ended"
    mirror = entry.info.get("wandb") or {}
    return f"there already {mirror.get('url') or ''}".strip() if upload.is_uploaded(Run.open(entry.path)) else ""


def _upload(entries: list[Entry]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Upload runs while nobody else writes into them.

    Returns:
        Address of each run that was taken, reason of each that was not; both by run directory.
    """
    print(f"uploading {_count(len(entries))} ...", flush=True)
    folders, refused = dict[Path, Path](), dict[Path, str]()
    leases = [Lease(entry.path) for entry in entries]
    try:
        for entry in entries:
            try:
                folders[entry.path] = _whole_folder(Run.open(entry.path))
            except Exception as error:  # wandb's or the record's: the other runs are uploaded all the same
                refused[entry.path] = f"not taken: {short(error)}"
        taken = upload.upload(list(folders.values()))
        for path, folder in folders.items():
            if folder in taken:
                Run.open(path).update(wandb={"uploaded": True, "url": taken[folder] or None})
            else:
                refused[path] = "not taken"
        return {path: taken[folder] for path, folder in folders.items() if folder in taken}, refused
    finally:
        for lease in leases:
            lease.release()


def _whole_folder(run: Run) -> Path:
    """The run's W&B folder, written anew if it is not whole, with the options that the run had; not with what a link in it points to."""
    refuse_links(run.path)
    if folder := upload.folder_of(run):
        return folder
    known = (config_of(run).get("logger") or {}) | {key: value for key, value in (run.info.get("wandb") or {}).items() if value}
    options = {key: value for key, value in known.items() if key in OPTIONS}
    return upload.write_anew(WandbSink(**options, mode="offline").mirror(run))


def _count(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"
