"""``task=sync``: upload to W&B, later and under the same ids, the runs that were offline, cut short or not taken in time."""

from pathlib import Path

from omegaconf import DictConfig

from gptshake.errors import OutOfReach
from gptshake.record.catalogue import BROKEN, Entry, catalogue, read_entry
from gptshake.record.launch import Launch
from gptshake.record.lease import Lease
from gptshake.record.run import Run, find_run
from gptshake.record.sinks import upload
from gptshake.record.sinks.about import config_of
from gptshake.record.sinks.wandb import WandbSink
from gptshake.report.terminal import aligned


def run(cfg: DictConfig, launch: Launch) -> None:
    """Upload ``task.run``, or all runs that W&B is to have and has not, and print a table of what became of each.

    Raises:
        RecordError: there is no such run.
        OutOfReach: no key, no network, or a run that was not taken; nothing is lost, and the same command tries again.
    """
    del launch  # leaves no record of its own
    roots = [Path(cfg.paths.runs).expanduser(), Path(cfg.paths.multirun).expanduser()]
    found = [read_entry(find_run(cfg.task.run, roots))] if cfg.task.run else [entry for entry in catalogue(roots) if _is_mirrored(entry)]
    waiting = [entry for entry in found if entry.status not in (BROKEN, "running") and not upload.is_uploaded(Run.open(entry.path))]
    table = {
        entry.id: [entry.name, _reason(entry)] for entry in found if entry not in waiting and (cfg.task.run or entry.status == "running")
    }
    if waiting and (problem := upload.out_of_reach()):
        raise OutOfReach(
            f"W&B cannot be reached: {problem}. {_count(len(waiting))} wait{'s' if len(waiting) == 1 else ''} on the disk and nothing is lost: "
            "set WANDB_API_KEY or run `wandb login`, look at the network, and say task=sync again."
        )
    taken = _upload(waiting)
    table |= {entry.id: [entry.name, f"uploaded {taken[entry.id]}" if entry.id in taken else "not taken"] for entry in waiting}
    print(aligned([["run", "W&B"], *table.values()], left=(0, 1)) if table else "W&B has every run.")
    if len(taken) < len(waiting):
        raise OutOfReach(f"W&B did not take {_count(len(waiting) - len(taken))}; nothing is lost, and the same command tries again.")


def _is_mirrored(entry: Entry) -> bool:
    """Whether a run was meant for W&B; others are uploaded only by name."""
    return (entry.info.get("wandb") or {}).get("mode") in ("online", "offline")


def _reason(entry: Entry) -> str:
    if entry.status == "running":
        return "at work; it is uploaded when it has ended"
    return entry.problem or f"uploaded before {(entry.info.get('wandb') or {}).get('url') or ''}".strip()


def _upload(entries: list[Entry]) -> dict[str, str]:
    """Upload runs while nobody else writes into them; id -> address of those that were taken."""
    leases, runs = [Lease(entry.path) for entry in entries], {entry.id: Run.open(entry.path) for entry in entries}
    try:
        folders = {id: upload.folder_of(run) or upload.write_anew(_sink(run).mirror(run)) for id, run in runs.items()}
        print(f"uploading {_count(len(folders))} ..." if folders else "", end="\n" if folders else "", flush=True)
        taken = upload.upload(list(folders.values())) if folders else {}
        for id, folder in folders.items():
            if folder in taken:
                runs[id].update(wandb={"uploaded": True, "url": taken[folder] or None})
        return {id: taken[folder] for id, folder in folders.items() if folder in taken}
    finally:
        for lease in leases:
            lease.release()


def _sink(run: Run) -> WandbSink:
    """The sink with the options that the run had, offline; its own defaults for a run that had none."""
    options = {
        key: value for key, value in (config_of(run).get("logger") or {}).items() if key in ("project", "entity", "every", "artifacts")
    }
    return WandbSink(**options, mode="offline")


def _count(number: int) -> str:
    return f"{number} run{'' if number == 1 else 's'}"
