"""Runs as Slurm jobs, one sbatch each, watched by squeue and ended by scancel; neither an accounting database nor an array is needed."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.sweep.executor.jobs import Job, Jobs, JobState, Unanswered

COMMANDS = ("sbatch", "squeue", "scancel")
TAIL = 1 << 14  # bytes of a job's output in which its end is looked for
ANSWER_S = 60.0  # after which a command is given up
LOOK_S = 0.5  # between looks at what it complains about
RETRIES = b"retrying"  # what sbatch says when it begins to wait for two minutes; it is asked again, and other jobs meanwhile
WARNING_S = 120  # before a job's time limit, to write a checkpoint
EARLIER_S = 60  # that Slurm may send this signal earlier
# What a busy or restarting slurmctld says, in the words of Slurm's clients.
SILENT = ("unable to contact", "timed out", "zero bytes", "connection refused", "temporarily", "standby mode", "communication")
RUNS = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
ENDED = {"CANCELLED", "OUT_OF_MEMORY", "DEADLINE", "REVOKED", "SPECIAL_EXIT"}  # by somebody's decision, or a limit that stays
REASONS = {"JobLaunchFailure": "killed by a signal (out of memory?), or never launched"}  # what Slurm's own word for it means
LOST = {"COMPLETED", "FAILED", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "TIMEOUT"}
# Flags that ours stand in the way of; without --error Slurm says in the job's output that it was cancelled.
RESERVED = {"--clusters", "-M", "--array", "-a", "--wait", "-W", "--comment", "--parsable", "--export", "--test-only"}
RESERVED |= {"--output", "-o", "--error", "-e"}
TIME_FLAG = re.compile(r"(?:--time=|-t ?)(.+)")
DEFAULTS = ("SBATCH_WAIT", "SBATCH_ARRAY_INX", "SBATCH_CLUSTERS", "SBATCH_EXPORT", "SBATCH_ERROR")  # the same as variables


class SlurmJobs(Jobs):
    """See ``protocols.Executor``. All but ``slots`` and ``cpus`` is Slurm's default where it is None.

    Args:
        slots: jobs at once, running or in the queue.
        partition, account: that jobs are charged to.
        time: limit of one job, as sbatch takes it; a run that reaches it is checkpointed and submitted again.
        gpus: of a run: 1, or with a type, ``a100:1``.
        cpus: cores of a run, and so its threads, unless ``trainer.threads`` says.
        memory: main memory of a run, as in ``16G``.
        flags: more options of sbatch.
    Raises:
        ConfigError: slots=auto, a time limit in which no run could take a step, or a flag with which a job would not be one job of this cluster.
    """

    def __init__(
        self,
        slots: int | str = 4,
        partition: str | None = None,
        account: str | None = None,
        time: str | int | None = None,
        gpus: str | int | None = None,
        cpus: int = 1,
        memory: str | int | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        if slots == "auto":
            raise ConfigError("hydra.sweeper.executor.slots=auto cannot work with executor=slurm: it must be a number of jobs.")
        if wrong := [flag for flag in map(str, flags) if flag.partition("=")[0].partition(" ")[0] in RESERVED or flag[:2] in RESERVED]:
            raise ConfigError(
                f"hydra.sweeper.executor.flags={wrong[0]} cannot work: each run is one job of this cluster, which gptshake follows."
            )
        limits = [("SBATCH_TIMELIMIT", os.environ.get("SBATCH_TIMELIMIT")), ("hydra.sweeper.executor.time", time)]
        limits += [("hydra.sweeper.executor.flags", found[1]) for flag in flags if (found := TIME_FLAG.fullmatch(str(flag)))]
        name, limit = next(((name, str(limit)) for name, limit in reversed(limits) if limit is not None), ("", ""))  # sbatch takes the last
        if 0 < (minutes := _minutes(limit)) <= (warned := (WARNING_S + EARLIER_S) / 60):
            raise ConfigError(
                f"{name}={limit} is a limit of {minutes:.3g} minute{'s' * (minutes != 1)}, and Slurm asks a run to write a checkpoint and end up "
                f"to {warned:g} minutes before it: give it more."
            )
        super().__init__("slurm", int(slots), cpus)
        gres = None if gpus is None else f"gpu:{gpus}"
        options = {"partition": partition, "account": account, "time": time, "gres": gres, "mem": memory}
        self._options = [f"--{name}={value}" for name, value in options.items() if value is not None] + [str(flag) for flag in flags]

    def open(self, target: Callable[[Any], Any], modules: Sequence[str], threads: int | None = None) -> None:
        if lacking := [name for name in COMMANDS if not shutil.which(name)]:
            raise ConfigError(f"executor=slurm needs Slurm's commands, and {lacking[0]} is not found here: start the sweep where they are.")
        if (conf := os.environ.get("SLURM_CONF")) and not os.access(conf, os.R_OK):  # Slurm's commands would try for a minute, each time
            raise ConfigError(f"SLURM_CONF={conf} cannot be read, and Slurm's commands need it: correct this variable, or unset it.")
        super().open(target, modules, threads)

    def submit(self, folder: Path, command: Sequence[str]) -> str:
        script = f"#!/bin/sh\nunset SLURM_NTASKS\nexec {shlex.join(command)}\n"  # Lightning would take the job for one of its own
        name, output = "-".join(folder.parts[-2:]), str(folder / "output").replace("%", "%%")
        fixed = ["--parsable", "--no-requeue", "--export=ALL", "--open-mode=append", f"--job-name={name}", f"--output={output}"]
        fixed += [f"--comment={command[-1]}"]  # its ticket
        said = self._call(["sbatch", *fixed, f"--signal=B:USR1@{WARNING_S}", f"--cpus-per-task={self.cpus}", *self._options], script)
        if not (ids := re.findall(r"^(\d+)(?:;\S*)?$", said, re.MULTILINE)):  # a site may print more
            raise ConfigError(f"Slurm's sbatch does not say which job it has taken: {' '.join(said.split())[:200]}")
        return str(ids[-1])

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        said = self._call(["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%k|%N|%r"])
        rows = [row for line in said.splitlines() if len(row := line.split("|", 4)) == 5]  # a site may print more
        states = {identity: _job_state(*row) for identity, *row in rows}
        for job in self._running:  # Slurm says CANCELLED of a job, too, whose node could not begin it as the node's prolog has failed
            state = states.get(str(job.id))
            if state and state.node and state.words.startswith("CANCELLED") and not _is_cancelled(job):
                states[str(job.id)] = state._replace(phase="lost")
        return states

    def ask(self, ids: Sequence[str]) -> None:
        self._call(["scancel", "--quiet", "--state=PENDING", *ids])
        self._call(["scancel", "--quiet", "--signal=TERM", "--batch", *ids])

    def cancel(self, ids: Sequence[str]) -> None:
        self._call(["scancel", "--quiet", *ids])

    def _call(self, command: Sequence[str], script: str | None = None) -> str:
        """What one of Slurm's commands prints.

        Raises:
            ConfigError: it refuses what it is asked for.
            Unanswered: slurmctld does not answer.
        """
        own = {name: value for name, value in self.environment().items() if name not in DEFAULTS}
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        until, complained = time.monotonic() + ANSWER_S, b""
        said, given = None, os.fsencode(script or "") or None
        with subprocess.Popen(command, env=own, start_new_session=True, **pipes) as process:
            while said is None and time.monotonic() < until and RETRIES not in complained:
                try:
                    said, complained = process.communicate(given, LOOK_S)
                except subprocess.TimeoutExpired as error:
                    given, complained = None, error.stderr or b""
            if said is None:
                os.killpg(process.pid, signal.SIGKILL)  # of a site's own sbatch the real one, too, or it would submit a second job later
        lines = complained.decode(errors="replace").strip().splitlines()
        words = "; ".join(line.partition("error: ")[2] or line for line in lines)
        if said is None:
            raise Unanswered(f"Slurm does not answer ({words or f'{command[0]} took more than {ANSWER_S:g} s'}).")
        if process.returncode and (command[0] == "squeue" or any(text in words.lower() for text in SILENT)):
            raise Unanswered(f"Slurm does not answer ({words}).")
        if process.returncode and command[0] == "sbatch":
            raise ConfigError(f"Slurm refuses the job: {words}.")
        return str(said, errors="replace")  # another job's comment may be in any encoding


def _minutes(limit: str) -> float:
    """A time limit as sbatch takes it, such as ``90``, ``4:00:00`` or ``2-12``; 0 is none, or one of which sbatch will say what it means."""
    if not re.fullmatch(r"(\d+-)?\d+(:\d+){0,2}", limit, re.ASCII):
        return 0.0
    days, _, rest = limit.rpartition("-")
    numbers = [int(number) for number in rest.split(":")]
    hours, minutes, seconds = (([] if days or len(numbers) > 2 else [0]) + numbers + [0, 0])[:3]
    return 1440 * int(days or 0) + 60 * hours + minutes + seconds / 60


def _is_cancelled(job: Job) -> bool:
    """Whether somebody has ended a job that ran, which Slurm then writes into its output."""
    with contextlib.suppress(OSError), (job.folder / "output").open("rb") as output:
        output.seek(max(0, output.seek(0, os.SEEK_END) - TAIL))
        return f"JOB {job.id} ON ".encode() in output.read()
    return False


def _job_state(state: str, ticket: str, node: str, reason: str) -> JobState:
    phase = "running" if state in RUNS else "ended" if state in ENDED else "lost" if state in LOST else "waiting"
    why = "" if reason in ("", "None") else f" ({REASONS.get(reason, reason)})"
    return JobState(phase, f"on {node}" if state == "RUNNING" else f"{state}{why}", ticket, node)
