"""``task=sync``: upload to W&B, from their records and under the same ids, runs that were offline, cut short or not taken in time.

With another ``logger=`` the record of one run is written there.
"""

from collections.abc import Sequence
from pathlib import Path

from gptshake.console import aligned
from gptshake.context import Context
from gptshake.errors import ConfigError, Unreachable, first_line
from gptshake.estimate.formatting import counted
from gptshake.record.index import BROKEN, Entry, read_entry, read_index
from gptshake.record.lock import RunLock
from gptshake.record.run import Run, find_run, read_run, run_roots
from gptshake.record.trackers.protocol import Tracker
from gptshake.record.trackers.wandb import WandbTracker, online_problem
from gptshake.setup.lifecycle import trackers_of

OPTIONS = ("project", "entity", "every", "artifacts")  # of W&B's, that an upload takes from the run


def run(context: Context) -> None:
    """Upload ``task.run``, or all runs that W&B is to have and has not, and print a table of what became of each.

    Raises:
        ConfigError: another logger, and no run.
        RecordError: there is no such run.
        Unreachable: no key, no network, or a run that was not taken; nothing is lost, and the same command tries again.
    """
    named, roots, trackers = context.config.task.run, run_roots(context.config.paths), trackers_of(context.config)
    if others := [tracker for tracker in trackers if not isinstance(tracker, WandbTracker)]:
        if not named:
            raise ConfigError("Only W&B is asked which runs it lacks: name one with task.run=, or leave logger= out.")
        write_to(find_run(named, roots), others)
        if len(others) == len(trackers):
            return
    mirrored = (entry for entry in read_index(roots) if entry.part("wandb").get("mode") in ("online", "offline"))
    found = [read_entry(find_run(named, roots))] if named else [entry for entry in mirrored if not entry.part("wandb").get("uploaded")]
    became = {entry.path: why for entry in found if (why := _why_not(entry))}
    waiting = [entry for entry in found if entry.path not in became]
    if waiting and (problem := "".join(online_problem(silent=True))):
        raise Unreachable(
            f"W&B cannot be reached: {problem}. {counted(len(waiting), 'run')} to upload, and nothing is lost: set WANDB_API_KEY or say "
            "`wandb login`, look at the network, and try again."
        )
    for number, entry in enumerate(waiting, start=1):
        print(f"uploading run {number} of {len(waiting)} ...", flush=True)
        try:
            became[entry.path] = upload(entry)
        except Exception as error:  # the other runs are uploaded all the same
            became[entry.path] = f"not taken: {first_line(error)}"
    rows = [[entry.id, entry.title, became[entry.path]] for entry in found]
    print(aligned([["run", "", "W&B"], *rows], left=(0, 1)) if rows else "W&B has every run.")
    if refused := sum(became[entry.path].startswith("not taken") for entry in waiting):
        raise Unreachable(f"W&B did not accept {counted(refused, 'run')}; nothing is lost, and the same command tries again.")


def _why_not(entry: Entry) -> str:
    """Why a run is not uploaded now; empty if it is to be."""
    if entry.status == BROKEN:
        return f"broken: {entry.problem}"
    if entry.status == "running":
        return "still running; upload it when it has ended"
    return f"there already {entry.part('wandb').get('url') or ''}".strip() if entry.part("wandb").get("uploaded") else ""


def write_to(path: Path, trackers: Sequence[Tracker]) -> None:
    """Write the record of a run that has ended into mirrors, as at a resume; Unreachable: one of them failed."""
    lock = RunLock(path)
    try:
        record = Run.open(path)
        for tracker in trackers:
            tracker.waits = True
            tracker.start(record)
            for picture in sorted((path / "plots").glob("*.png")):
                tracker.image(picture.stem, picture)
            tracker.finish()
    finally:
        lock.release()
    if problems := [problem for tracker in trackers if (problem := getattr(tracker, "problem", ""))]:  # a class of one's own may lack it
        raise Unreachable(f"{record.name} is not written there: {'; '.join(problems)}. Nothing is lost, and the same command tries again.")


def upload(entry: Entry) -> str:
    """Upload what W&B does not have of a run, with the options that it had; gives what became of it."""
    had, config = entry.part("wandb"), entry.config
    options = {key: had.get(key) or config.get(f"logger.wandb.{key}", config.get(f"logger.{key}")) for key in OPTIONS}
    write_to(entry.path, [WandbTracker(**{key: value for key, value in options.items() if value is not None}, mode="online")])
    mirrored = read_run(entry.path).get("wandb") or {}
    return f"uploaded {mirrored['url']}" if mirrored.get("uploaded") else "not taken"
