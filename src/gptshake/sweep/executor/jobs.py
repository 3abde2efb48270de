"""Runs as jobs of an engine that has machines elsewhere: what Slurm and its like have in common.

A run is ``python -m gptshake.child <folder> <ticket>`` in a folder that all machines see. It ends with what it leaves there itself,
outcome.json, or with the engine's word that its job is gone. A job whose machine was lost, or that had to make way, is submitted again
and resumes from its checkpoint. Jobs outlive their controller; the next one adopts them by job.json in each folder.
"""

import contextlib
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple
from uuid import uuid4

from gptshake.errors import ConfigError, GptshakeError, Stop
from gptshake.processes import (
    GRACE_S,
    THREADS,
    TICK_S,
    Outcome,
    import_path,
    read_end,
    read_job,
    remove_outcome,
    remove_task,
    write_job,
    write_outcome,
    write_task,
)
from gptshake.signals import SIGNALS

POLL_S = 5.0  # between questions to the engine
HURRY_S = 1.0  # the same while jobs are asked to end
LATE_S = 2.0  # that files of another machine may take to be seen here
ASK_AGAIN_S = 30.0  # a job that was just about to begin may not have heard it
MOST_LOSSES = 5  # of a run, one after the other without a new checkpoint
GIVES_WAY = "SIGUSR1"  # what engines send before a time limit, and to a job that must make way


class Unanswered(GptshakeError):
    """The engine does not answer now; nothing is known of its jobs."""


class JobState(NamedTuple):
    """The engine's word on a job."""

    phase: str  # waiting, running, ended; lost: through no fault of the run
    words: str  # the engine's own

    @property
    def gone(self) -> bool:
        return self.phase in ("ended", "lost")


WAITING = JobState("waiting", "")


class Job:
    """A run as a job; see ``protocols.Running``. What is asked of it is passed on to the engine by ``Jobs.wait``."""

    def __init__(self, slot: int, folder: Path, identity: str | None = None) -> None:
        self.slot, self.folder = slot, folder
        self.id = identity  # None: to be submitted
        self.state = WAITING
        self.outcome: Outcome | None = None
        self.started = inf  # known once it runs
        self.stops = False
        self.killed: Outcome | None = None  # what its end will be
        self.asked = -inf  # when the engine passed it on
        self.gone = inf  # since when the engine says so
        self.losses, self.kept = 0, self.checkpoints()

    def stop(self) -> None:
        """Ask it to checkpoint and end."""
        self.stops = True

    def kill(self, reason: str) -> None:
        """End it now, as failed for this reason."""
        self.killed = Outcome("timeout", reason=reason)

    def checkpoints(self) -> set[str]:
        return {path.name for path in (self.folder / "checkpoints").glob("step-*")}

    def end(self) -> Outcome | None:
        """Its outcome by what the run left and what the engine said last; None if it is not over, or is to be submitted again.

        Raises:
            GptshakeError: the job could not do what it was started for, as the sources have changed.
        """
        written, leaves = read_end(self.folder), self.stops or self.killed is not None
        if written and (written.status != "stopped" or self.stops):
            return written
        if leaves and (self.id is None or self.state.gone):
            return self.killed or Outcome("stopped", reason="stopped before it had begun")
        late = written is None and time.monotonic() - self.gone < LATE_S
        if not self.state.gone or late:
            return None
        if self.state.phase != "lost" and not (written and GIVES_WAY in written.reason):
            unseen = "" if (self.folder / "output").exists() else f" before it had begun: can the nodes see {self.folder}?"
            return Outcome("failed", reason=f"its job {self.id} ended as {self.state.words}{f', {written.reason}' if written else unseen}")
        self.losses = self.losses + 1 if self.checkpoints() == self.kept else 1
        if self.losses > MOST_LOSSES:
            return Outcome(
                "failed", reason=f"lost {self.losses} times without a new checkpoint, its job {self.id} last as {self.state.words}"
            )
        self.id, self.state, self.started, self.gone = None, WAITING, inf, inf
        return None


class Jobs(ABC):
    """See ``protocols.Executor``.

    Args:
        name: of the engine, as in ``executor=``.
        slots: jobs at once, whether they run or wait in the engine's queue.
        threads: of one run.
    """

    def __init__(self, name: str, slots: int, threads: int) -> None:
        self.name, self.threads, self.device = name, threads, ""
        self._slots, self._running = slots, list[Job]()
        self._talked, self._silent = -inf, False  # when the engine was asked last, and whether it did not answer

    @abstractmethod
    def submit(self, folder: Path, command: Sequence[str]) -> str:
        """Let a machine run a command, its output appended to the folder's file ``output``.

        Returns:
            What the engine calls this job.
        Raises:
            ConfigError: the engine refuses it, in its own words.
            Unanswered: it is not known whether it was submitted; another ticket makes it harmless.
        """

    @abstractmethod
    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """What has become of jobs; one that the engine does not know is left out.

        Raises:
            Unanswered: as of ``submit``.
        """

    @abstractmethod
    def ask(self, ids: Sequence[str]) -> None:
        """Send TERM to the runs of these jobs; those that have not begun never do."""

    @abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End these jobs at once."""

    def open(self, target: Callable[[Any], Any], modules: Sequence[str]) -> None:
        if not isinstance(target, FunctionType):
            raise ConfigError(f"executor={self.name} is for gptshake's own runs; those of another app take executor=local.")
        self._command = (sys.executable, "-m", target.__module__)

    def environment(self) -> dict[str, str]:
        """Variables of a run: those of this process, and its threads."""
        return os.environ | import_path() | dict.fromkeys(THREADS, str(self.threads))

    def probe(self, task: Any, folder: Path) -> Outcome:
        job, said, shown, over = self._begin(task, folder), "", 0, False
        soon = time.monotonic() + POLL_S
        try:
            while not over:
                over = bool(self.wait(TICK_S))
                if job.state.phase == "waiting" and job.state.words not in ("", said) and time.monotonic() > soon:
                    said = job.state.words
                    print(f"The preparation of the study waits for a machine: job {job.id}, {said}", flush=True)
                with contextlib.suppress(OSError), (folder / "output").open("rb") as output:
                    output.seek(shown)
                    print(output.read().decode(errors="replace"), end="", flush=True)
                    shown = output.tell()
                if SIGNALS.received is not None:
                    raise Stop(SIGNALS.received)
        finally:
            if not over:
                self._drop([job])
        return job.outcome or Outcome("failed")

    def allot(self, device: str | None, memory: int | None, most: int | None) -> int:
        """As many as were asked for, as the engine knows its machines."""
        self._slots = min(self._slots, most or self._slots)
        each = f"{self.threads} thread{'s' if self.threads > 1 else ''} each"
        self.device = f"{self._slots} {self.name} job{'s' if self._slots > 1 else ''}, {each}"
        return self._slots

    def start(self, task: Any, folder: Path) -> Job | None:
        return self._begin(task, folder) if len(self._running) < self._slots else None

    def adopt(self, folder: Path) -> Job | None:
        about = read_job(folder)
        return self._add(Job(self._free_slot(), folder, about["id"])) if about.get("engine") == self.name and "id" in about else None

    def wait(self, seconds: float) -> list[Job]:
        if not (ended := self._ended()):
            time.sleep(min(seconds, TICK_S))
            ended = self._ended()
        for job in ended:
            self._running.remove(job)
            write_outcome(job.folder, job.outcome or Outcome("failed"))
            remove_task(job.folder)
        return ended

    def close(self) -> None:
        """Ask jobs to checkpoint and end, and cancel those that do not."""
        for job in self._running:
            job.stop()
        until = time.monotonic() + GRACE_S
        while self._running and time.monotonic() < until:
            with contextlib.suppress(GptshakeError, OSError):
                self.wait(TICK_S)
        self._drop(list(self._running))

    def _free_slot(self) -> int:
        return min(set(range(len(self._running) + 1)) - {job.slot for job in self._running})

    def _add(self, job: Job) -> Job:
        self._running.append(job)
        return job

    def _begin(self, task: Any, folder: Path) -> Job:
        write_task(folder, task)
        job = self._add(Job(self._free_slot(), folder))
        with contextlib.suppress(Unanswered):
            self._submit(job)
        return job

    def _submit(self, job: Job) -> None:
        ticket, job.kept = uuid4().hex, job.checkpoints()
        remove_outcome(job.folder)
        write_job(job.folder, ticket, engine=self.name)
        identity = self.submit(job.folder, [*self._command, str(job.folder), ticket])
        for other in self._running:
            if other.id == identity:  # the engine was killed before it had saved that job, and counts from there again
                other.id, other.state = None, WAITING
        job.id = identity
        write_job(job.folder, ticket, engine=self.name, id=job.id)

    def _drop(self, jobs: Sequence[Job]) -> None:
        if ids := [job.id for job in jobs if job.id]:
            with contextlib.suppress(Unanswered):
                self.cancel(ids)
        for job in jobs:
            self._running.remove(job)
            remove_task(job.folder)

    def _ended(self) -> list[Job]:
        try:
            self._talk(time.monotonic())
        except Unanswered as error:
            if not self._silent:
                print(f"{error} What runs goes on; {self.name} is asked again until it answers.", file=sys.stderr, flush=True)
            self._silent = True
        for job in self._running:
            job.outcome = job.end()
        return [job for job in self._running if job.outcome is not None]

    def _talk(self, now: float) -> None:
        """Pass on to the engine what is asked of jobs, and learn from it what has become of them."""
        leaving = [job for job in self._running if job.stops or job.killed]
        if not self._running or now - self._talked < (HURRY_S if leaving else POLL_S):
            return
        self._talked = now
        for job in self._running:
            if job.id is None and job not in leaving:
                self._submit(job)
        due = [job for job in leaving if job.id and now - job.asked > ASK_AGAIN_S]
        for pass_on, jobs in ((self.ask, [job for job in due if not job.killed]), (self.cancel, [job for job in due if job.killed])):
            if jobs:
                pass_on([str(job.id) for job in jobs])
            for job in jobs:
                job.asked = now
        submitted = {job.id: job for job in self._running if job.id}
        states = self.states(list(submitted))
        for identity, job in submitted.items():
            job.state = states.get(identity, JobState("lost", f"unknown to {self.name}"))
            job.started = min(job.started, now) if job.state.phase == "running" else job.started
            job.gone = min(job.gone, now) if job.state.gone else inf
        self._silent = False
