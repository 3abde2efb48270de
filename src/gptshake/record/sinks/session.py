"""A W&B run opened under our own id: online if that is wished and a server answers, else offline. Everything here may block.

So it is called on a courier's thread (``wandb.py``). wandb keeps an offline run's history per process and loses it with a kill,
so a run that goes on is written anew and its older folders are renamed ``superseded-1-…``, out of the way of an upload. Inside
``wandb agent`` the run is the agent's, or the sweep would not see its numbers. Importing this file imports no wandb.
"""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gptshake.record.run import Run
from gptshake.record.sinks.about import about
from gptshake.record.sinks.reach import mode_to_try, short, within

if TYPE_CHECKING:
    import wandb

INIT_SECONDS = 4.0  # for an online run to begin
UPLOAD_SECONDS = 8.0  # for the rest of the upload when a run ends
KILL_SECONDS = 2.0  # for taking leave of a service that was killed
_X_AXIS = "train/tokens"
SMALLER_IS_BETTER = ("val/loss", "val/bpb")
_DATA_DIR = os.environ.get("WANDB_DATA_DIR")  # the user's own wish; ours would be found there by a second run of the process


class Session(NamedTuple):
    """An open W&B run, and why it is not online."""

    mirror: "wandb.Run"
    mode: str  # online, offline, disabled
    problem: str

    def facts(self) -> dict[str, Any]:
        """What the record keeps of it."""
        mirror = self.mirror
        if self.mode == "disabled":
            return {"mode": self.mode}
        url = mirror.url if self.mode == "online" else None
        named = {"id": mirror.id, "project": mirror.project, "entity": mirror.entity or None}
        return {**named, "mode": self.mode, "url": url, "folder": str(Path(mirror.dir).parent)}

    def refusal(self) -> str:
        """Why the server did not take the run any more, as wandb's service noted it; wandb itself tells nobody but the terminal."""
        log = Path(self.mirror.dir).parent / "logs" / "debug-internal.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if self.mode == "online" and log.exists() else []
        return next((str(json.loads(line)["msg"]) for line in lines if '"level":"ERROR+4"' in line), "")


def open_session(run: Run, project: str, entity: str | None, mode: str) -> Session:
    """Open the W&B run of a record, with its axes and summaries.

    Args:
        run: the record.
        project, entity: where to; inside ``wandb agent`` the sweep's.
        mode: auto, online or offline; with auto the variable WANDB_MODE decides, then whether there is a key.
    Raises:
        ConfigError: ``online`` and no key.
    """
    _begin_anew(run)
    mode, problem = mode_to_try(mode)
    place = _place(run, project, entity)
    if mode == "online" and not problem:
        try:
            return _described(Session(_init(run, place, "online"), "online", ""))
        except Exception as error:  # whatever it is, the offline run is the way out
            problem = f"no answer ({short(error)[:120].strip()})"
            kill_service()  # the attempt still holds the id
            _begin_anew(run)
    mode = "offline" if problem else mode
    return _described(Session(_init(run, place, mode), mode, problem))


def wandb_id(run: Run) -> str:
    """The run's id in W&B: its own, or that of the agent which started it."""
    agents = os.environ.get("WANDB_RUN_ID") if _agent(run) else None
    return agents or (run.info.get("wandb") or {}).get("id") or run.id


def kill_service() -> None:
    """End wandb's service process, frozen or not, so that nothing waits for it any more, not even the end of this process."""

    def kill() -> None:
        from wandb.sdk import wandb_setup

        setup: Any = wandb_setup
        with contextlib.suppress(AttributeError):  # no service was started
            setup._singleton._connection._proc._process.kill()
        forget()

    within(KILL_SECONDS, kill)


def _agent(run: Run) -> bool:
    """Whether ``wandb agent`` started this run; not so a trial of a sweep of ours, which has its own id."""
    return bool(os.environ.get("WANDB_SWEEP_ID")) and not run.info.get("trial")


def _place(run: Run, project: str, entity: str | None) -> dict[str, Any]:
    """Id, project and entity for ``wandb.init``; an agent's run has them from its environment."""
    if _agent(run):
        return {}
    former = run.info.get("wandb") or {}
    if former.get("id", run.id) != run.id:  # an agent began it
        project, entity = former["project"], former["entity"]
    return {"id": wandb_id(run), "project": project, "entity": entity}


def _begin_anew(run: Run) -> None:
    """Begin with wandb as if it were the first time, quietly: a run of this process that failed would stand in the next one's way."""
    if run.info.get("trial"):
        for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
            os.environ.pop(name, None)
    os.environ["WANDB_DATA_DIR"] = _DATA_DIR or str(run.path / "wandb")  # tables lie here until they are uploaded
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # or its service prints what it could not report
    import wandb

    forget()
    wandb.setup(settings=wandb.Settings(silent=True))


def forget() -> None:
    """End wandb's service in this process, which writes its last words then; quietly, whatever state it is in."""
    import wandb

    with contextlib.suppress(Exception, SystemExit):  # its service may be dead already, or end with an exit code
        wandb.teardown()


def _init(run: Run, place: dict[str, Any], mode: Any) -> "wandb.Run":
    import wandb

    _supersede(run.path / "wandb", wandb_id(run))
    # Provenance is ours (theirs misses untracked files and keeps credentials of the remote); so is the console's log.
    settings = wandb.Settings(
        init_timeout=INIT_SECONDS,
        finish_timeout=UPLOAD_SECONDS,
        finish_timeout_raises=True,
        silent=True,
        console="off",
        x_disable_meta=True,  # it holds the command line, and with it whatever was typed there
        disable_git=True,
        disable_code=True,
        save_code=False,
        symlink=False,  # copies: a run directory may be moved
        reinit="create_new",  # not the process's one global run, which a failure would leave behind for the next
    )
    return wandb.init(dir=str(run.path), mode=mode, resume="allow" if mode == "online" else None, settings=settings, **place, **about(run))


def _described(session: Session) -> Session:
    """Tokens are the x-axis of everything, and of the validations the smallest value is what counts."""
    session.mirror.define_metric(_X_AXIS)
    session.mirror.define_metric("*", step_metric=_X_AXIS)
    for name in SMALLER_IS_BETTER:
        session.mirror.define_metric(name, step_metric=_X_AXIS, summary="min")
    return session


def _supersede(folder: Path, run_id: str) -> None:
    """Rename this run's older W&B folders, in which only a part of its history is."""
    number = len(list(folder.glob("superseded-*")))  # wandb's own names repeat within a second
    for old in sorted(folder.glob(f"*run-*-{run_id}")):
        if re.match(r"(offline-)?run-", old.name):
            number += 1
            old.rename(old.with_name(f"superseded-{number}-{old.name}"))
