"""Runs as jobs of an engine that has machines elsewhere: what Slurm and its like have in common.

A run is ``python -m gptshake.child <folder> <ticket>`` in a folder that all machines see. It ends with what it leaves there itself,
outcome.json. A job that has gone without an outcome, or has stopped without being asked to, is lost: it is submitted again and resumes
from its checkpoint, so many times. Jobs outlive their controller; the next one adopts them by job.json in each folder.
"""

import contextlib
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple
from uuid import uuid4

from gptshake.errors import ConfigError, GptshakeError, Stop
from gptshake.estimate.formatting import counted
from gptshake.outcome import Outcome, is_running, read_end, read_job, remove_outcome, remove_task, write_job, write_outcome, write_task
from gptshake.processes import GRACE_S, THREADS, TICK_S, import_path
from gptshake.record.lock import is_alive, last_seen
from gptshake.record.run import steps_saved
from gptshake.signals import SIGNALS

POLL_S = 5.0  # between questions to the engine
HURRY_S = 1.0  # the same while jobs are asked to end, or one has begun of which the engine has not said so
LATE_S = 90.0  # that an outcome of another machine may take to be seen here: NFS remembers for 60 s that a file was not there
ASK_AGAIN_S = 30.0  # a job that was just about to begin may not have heard it
REFUSAL_S = 3600.0  # that an engine may refuse jobs while the study has no other
MOST_LOSSES = 5  # of a run, one after the other without a new checkpoint
NOT_THEIRS = ("SLURM_", "SQUEUE_", "SCANCEL_", "RAY_")  # variables of this process' own job, or that change what the engine's commands say


class Unanswered(GptshakeError):
    """The engine does not answer now; nothing is known of its jobs."""


class JobState(NamedTuple):
    """The engine's word on a job."""

    phase: str  # waiting, running; gone: lost, or ended: somebody's decision, or a limit that it would reach again
    words: str  # the engine's own
    ticket: str | None = None  # that the job was submitted with; None if the engine does not keep it
    node: str = ""  # that it was given
    hint: str = ""  # what helps, if the engine says why it is lost

    @property
    def gone(self) -> bool:
        return self.phase in ("ended", "lost")


WAITING = JobState("waiting", "")
MISSING_ANSWERS = 2  # answers without a job, one after the other, after which it is gone
GO_ON = "Its jobs go on, and the same command adopts them."


class Job:
    """A run as a job; see ``protocols.Running``. What is asked of it is passed on to the engine by ``Jobs.wait``."""

    def __init__(self, slot: int, folder: Path, ticket: str | None = None, identity: str | None = None) -> None:
        self.slot, self.folder, self.ticket = slot, folder, ticket
        self.id = identity  # None: to be submitted
        self.state = WAITING
        self.unknown = 0  # how often in a row the engine did not know it
        self.outcome: Outcome | None = None
        self.started = inf  # known once it runs
        self.stops = inf  # since when it is asked to
        self.killed: Outcome | None = None  # what its end will be
        self.asked = -inf  # when the engine passed it on
        self.gone = inf  # since when the engine says so
        self.losses, self.saved = 0, steps_saved(folder)  # without a new checkpoint; those when it was submitted

    @property
    def place(self) -> str:
        return self.state.words if self.state.phase == "running" else f"waits: {self.state.words or 'to be submitted'}"

    def stop(self) -> None:
        """Ask it to checkpoint and end."""
        self.stops = min(self.stops, time.monotonic())

    def kill(self, reason: str) -> None:
        """End it now, as failed for this reason."""
        self.killed = Outcome("timeout", reason=reason)

    def end(self) -> Outcome | None:
        """Its outcome by what the run left and what the engine said last; None if it is not over, or is to be submitted again.

        Raises:
            GptshakeError: the job could not do what it was started for, as the sources have changed.
        """
        if self.id is None:
            return (self.killed or NOT_BEGUN) if self.is_ending else None
        if self.state.gone:
            with contextlib.suppress(OSError):  # makes a network file system look at the folder anew
                (look := self.folder / f".look-{os.getpid()}").touch()
                look.unlink()
        written = read_end(self.folder, self.ticket)
        if written and (written.status != "stopped" or self.stops < inf):
            return written
        if not self.state.gone:
            return None
        if self.is_ending and (self.killed or self.started == inf):
            return self.killed or NOT_BEGUN
        if written is None and (is_running(self.folder) or is_alive(self.folder) or time.monotonic() - self.gone < LATE_S):
            return None
        if self.is_ending:
            return Outcome("stopped", reason="its job ended before it could say so", ended=last_seen(self.folder))
        why = f"its job {self.id} ended as {self.state.words}{f', {written.reason}' if written else ''}"
        if self.state.phase == "ended":
            return Outcome("failed", reason=why, ended=last_seen(self.folder))
        if written or (self.folder / "output").exists():
            return self._resubmit(why, self.state.hint or "it must live longer, or save more often (trainer.save_minutes)")
        return self._resubmit(f"{why} before it had begun", self.state.hint or f"can {self.state.node or 'the nodes'} see {self.folder}?")

    @property
    def is_ending(self) -> bool:
        return self.stops < inf or self.killed is not None

    def _resubmit(self, why: str, hint: str) -> Outcome | None:
        """Have it submitted again, if that was not in vain too often."""
        self.losses = self.losses + 1 if steps_saved(self.folder) == self.saved else 1
        if self.losses > MOST_LOSSES:
            reason = f"lost {self.losses} times without a new checkpoint, the last time as {why}: {hint}"
            return Outcome("failed", reason=reason, ended=last_seen(self.folder))
        print(f"{self.folder.name}: {why}; it is submitted again.", file=sys.stderr, flush=True)
        self.id, self.ticket, self.state, self.started, self.gone = None, None, WAITING, inf, inf
        return None


NOT_BEGUN = Outcome("stopped", reason="stopped before it had begun")


class Jobs(ABC):
    """See ``protocols.Executor``.

    Args:
        name: of the engine, as in ``executor=``.
        slots: jobs at once, whether they run or wait in the engine's queue.
        cpus: cores of one run, and so its threads, unless ``trainer.threads`` says.
    """

    def __init__(self, name: str, slots: int, cpus: int) -> None:
        self.name, self.cpus, self.threads, self.device = name, cpus, cpus, ""
        self._slots, self._running = slots, list[Job]()
        self._asked_at, self._silent = -inf, False  # when the engine was asked last, and whether it did not answer
        self._accepts, self._refused = False, inf  # whether it has taken a job; since when it refuses one, and there is no other
        self._keeps_tickets = False  # whether it has shown the ticket of one; some sites write comments of their own

    @abstractmethod
    def submit(self, folder: Path, command: Sequence[str]) -> str:
        """Let a machine run a command, its output appended to the folder's file ``output``.

        Returns:
            What the engine calls this job.
        Raises:
            ConfigError: the engine refuses it, in its own words.
            Unanswered: it is not known whether it was submitted.
        """

    @abstractmethod
    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        """What has become of jobs; one that the engine does not know is left out, and others may be there.

        Raises:
            Unanswered: as of ``submit``.
        """

    @abstractmethod
    def ask(self, ids: Sequence[str]) -> None:
        """Send TERM to the runs of these jobs; those that have not begun never do."""

    @abstractmethod
    def cancel(self, ids: Sequence[str]) -> None:
        """End these jobs at once."""

    def open(self, target: Callable[[Any], Any], modules: Sequence[str], threads: int | None = None) -> None:
        self.threads = threads or self.cpus
        self.cpus = max(self.cpus, self.threads)
        if not isinstance(target, FunctionType):
            raise ConfigError(f"executor={self.name} is for gptshake's own runs; those of another app take executor=local.")
        self._command = (sys.executable, "-m", target.__module__)

    def environment(self) -> dict[str, str]:
        """Variables of a run: those of this process but for what its own machine and job are, and the run's threads."""
        own = {name for name in os.environ if (name.startswith(NOT_THEIRS) and name != "SLURM_CONF") or name.endswith("VISIBLE_DEVICES")}
        kept = {name: value for name, value in os.environ.items() if name not in own}
        return kept | import_path() | dict.fromkeys(THREADS, str(self.threads))

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
        self.device = f"{counted(self._slots, f'{self.name} job')}, {counted(self.threads, 'thread')} each"
        return self._slots

    def start(self, task: Any, folder: Path) -> Job | None:
        return self._begin(task, folder) if len(self._running) < self._slots else None

    def adopt(self, folder: Path) -> Job | None:
        about = read_job(folder)
        if about.get("engine") != self.name:
            return None
        ticket, identity = about["ticket"], about.get("id")
        if identity is None:  # the controller was killed before it knew
            with contextlib.suppress(Unanswered):
                identity = _submitted(ticket, self.states([]))
        return self._add(Job(self._free_slot(), folder, ticket, identity)) if identity else None

    def wait(self, seconds: float) -> list[Job]:
        if not (ended := self._ended()):
            self.pause(min(seconds, TICK_S))
            ended = self._ended()
        for job in ended:
            self._running.remove(job)
            try:
                write_outcome(job.folder, replace(job.outcome or Outcome("failed"), ticket=job.ticket))
            finally:  # also on a full disk, or the next controller would take a job that this one has cancelled for somebody else's decision
                remove_task(job.folder)
        return ended

    def pause(self, seconds: float) -> None:
        """Wait for so long, or until the engine says that a job has ended."""
        time.sleep(seconds)

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
        try:
            self._submit(job)
        except Unanswered as error:
            self._wait_for(error)
        return job

    def _submit(self, job: Job) -> None:
        """Submit a job under a new ticket.

        Raises:
            ConfigError: the engine refuses the first job, or a later one for ``REFUSAL_S`` while there is no other.
            Unanswered: it does not answer, or refuses a later one: it is full, or its options were right when the study began.
        """
        job.ticket, job.saved = uuid4().hex, steps_saved(job.folder)
        remove_outcome(job.folder)
        write_job(job.folder, job.ticket, engine=self.name)
        try:
            identity = self.submit(job.folder, [*self._command, str(job.folder), job.ticket])
        except ConfigError as error:
            now = time.monotonic()
            self._refused = inf if any(other.id for other in self._running) else min(self._refused, now)
            if self._accepts and now - self._refused < REFUSAL_S:
                raise Unanswered(str(error)) from None
            raise
        self._set_id(job, identity)

    def _set_id(self, job: Job, identity: str) -> None:
        for other in self._running:
            if other.id == identity:  # the engine was killed before it had saved that job, and counts from there again
                other.id, other.state = None, WAITING
        self._accepts, self._refused = True, inf
        job.id, job.unknown = identity, 0
        write_job(job.folder, str(job.ticket), engine=self.name, id=job.id)

    def _drop(self, jobs: Sequence[Job]) -> None:
        """End jobs; those that the engine cannot be asked to end go on, for the next controller."""
        known = [job for job in jobs if job.id]
        try:
            if known:
                self.cancel([str(job.id) for job in known])
            known = []
        except Unanswered as error:
            print(f"{error} {GO_ON}", file=sys.stderr, flush=True)
        for job in jobs:
            self._running.remove(job)
            if job not in known:
                remove_task(job.folder)

    def _wait_for(self, error: Unanswered) -> None:
        """Say once that the engine does not answer; leave it if all that is left to do is to stop its jobs.

        Raises:
            Unanswered: they go on.
        """
        now = time.monotonic()
        if self._running and all(now - job.stops > GRACE_S for job in self._running):
            self._running.clear()
            raise Unanswered(f"{error} {GO_ON}")
        if not self._silent:
            print(f"{error} What runs goes on; {self.name} is asked again.", file=sys.stderr, flush=True)
        self._silent = True

    def _ended(self) -> list[Job]:
        ending = any(job.is_ending for job in self._running)
        begins = any(job.started == inf and job.id is not None and is_running(job.folder) for job in self._running)
        if self._running and time.monotonic() - self._asked_at >= (HURRY_S if ending or begins else POLL_S):
            try:
                self._exchange(time.monotonic())
            except Unanswered as error:
                self._wait_for(error)
            self._asked_at = time.monotonic()  # not before the answer: an engine that takes long has enough to do
        for job in self._running:
            job.outcome = job.end()
        return [job for job in self._running if job.outcome is not None]

    def _exchange(self, now: float) -> None:
        """Pass on to the engine what is asked of jobs, and learn from it what has become of them."""
        due = [job for job in self._running if job.is_ending and job.id and now - job.asked > ASK_AGAIN_S]
        for pass_on, jobs in ((self.ask, [job for job in due if not job.killed]), (self.cancel, [job for job in due if job.killed])):
            if jobs:
                pass_on([str(job.id) for job in jobs])
            for job in jobs:
                job.asked = now
        states = self.states([job.id for job in self._running if job.id])
        for job in self._running:
            if (identity := _submitted(job.ticket, states)) not in (None, job.id):  # sbatch had not answered, or with something else
                self._set_id(job, str(identity))
            if job.id is not None:
                self._update(job, states.get(job.id), now)
        for job in self._running:
            if job.id is None and not job.is_ending:
                self._submit(job)
        self._silent = False

    def _update(self, job: Job, state: JobState | None, now: float) -> None:
        self._keeps_tickets |= state is not None and state.ticket == job.ticket
        if state is None or (self._keeps_tickets and state.ticket != job.ticket):
            job.unknown += 1
            state = job.state if job.unknown < MISSING_ANSWERS else JobState("lost", f"unknown to {self.name}")
        else:
            job.unknown = 0
        job.state = state
        if state.phase == "running":
            job.started = min(job.started, now)
        job.gone = min(job.gone, now) if state.gone else inf


def _submitted(ticket: str | None, states: Mapping[str, JobState]) -> str | None:
    """What the engine calls the job of a ticket."""
    return next((identity for identity, state in states.items() if ticket and state.ticket == ticket), None)
