"""Runs as Slurm jobs, one sbatch each, watched by squeue and ended by scancel; neither an accounting database nor an array is needed."""

import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.sweep.executor.jobs import Jobs, JobState, Unanswered

COMMANDS = ("sbatch", "squeue", "scancel")
ANSWER_S = 60.0  # after which a command is given up
WARNING_S = 120  # before a job's time limit, to write a checkpoint; Slurm may send the signal a minute earlier
# What a busy or restarting slurmctld says, in the words of Slurm's clients.
SILENT = ("unable to contact", "timed out", "zero bytes", "connection refused", "temporarily", "standby mode", "communication")
RUNS = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "OUT_OF_MEMORY", "DEADLINE", "REVOKED", "SPECIAL_EXIT"}
REASONS = {"JobLaunchFailure": "killed by a signal (out of memory?), or never launched"}  # what Slurm's own word for it means
LOST = {"NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "TIMEOUT"}


class SlurmJobs(Jobs):
    """See ``protocols.Executor``. All but ``slots`` and ``cpus`` is Slurm's default where it is None.

    Args:
        slots: jobs at once, running or in the queue.
        partition, account: that jobs are charged to.
        time: limit of one job, as sbatch takes it; a run that reaches it is checkpointed and submitted again.
        gpus: of a run: 1, or with a type, ``a100:1``.
        cpus: cores, and so threads, of a run.
        memory: main memory of a run, as in ``16G``.
        flags: more options of sbatch.
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
            raise ConfigError("hydra.sweeper.executor.slots=auto cannot work with executor=slurm: it is a number of jobs.")
        super().__init__("slurm", int(slots), cpus)
        gres = None if gpus is None else f"gpu:{gpus}"
        options = {"partition": partition, "account": account, "time": time, "gres": gres, "cpus-per-task": cpus, "mem": memory}
        self._options = [f"--{name}={value}" for name, value in options.items() if value is not None] + [str(flag) for flag in flags]

    def open(self, target: Callable[[Any], Any], modules: Sequence[str]) -> None:
        if lacking := [name for name in COMMANDS if not shutil.which(name)]:
            raise ConfigError(f"executor=slurm needs Slurm's commands, and {lacking[0]} is not found here: start the sweep where they are.")
        super().open(target, modules)

    def submit(self, folder: Path, command: Sequence[str]) -> str:
        script = f"#!/bin/sh\nunset SLURM_NTASKS\nexec {shlex.join(command)}\n"  # Lightning would take the job for one of its own
        name, output = "-".join(folder.parts[-2:]), str(folder / "output").replace("%", "%%")
        fixed = ["--parsable", "--no-requeue", "--open-mode=append", f"--job-name={name}", f"--output={output}"]
        said = self._call(["sbatch", *fixed, f"--signal=B:USR1@{WARNING_S}", *self._options], script)
        return said.strip().partition(";")[0]

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        rows = [
            line.split("|", 2) for line in self._call(["squeue", "--me", "--noheader", "--states=all", "--format=%i|%T|%r"]).splitlines()
        ]
        return {identity: JobState(_phase(state), f"{state} ({REASONS.get(reason, reason)})") for identity, state, reason in rows}

    def ask(self, ids: Sequence[str]) -> None:
        self._call(["scancel", "--quiet", "--state=PENDING", *ids])
        self._call(["scancel", "--quiet", "--signal=TERM", "--batch", *ids])

    def cancel(self, ids: Sequence[str]) -> None:
        self._call(["scancel", "--quiet", *ids])

    def _call(self, command: Sequence[str], script: str | None = None) -> str:
        """What one of Slurm's commands prints; the variables of a job that this process may live in are not for its jobs.

        Raises:
            ConfigError: it refuses what it is asked for.
            Unanswered: slurmctld does not answer.
        """
        own = {name: value for name, value in self.environment().items() if not name.startswith("SLURM_") or name == "SLURM_CONF"}
        try:
            done = subprocess.run(
                command, input=script, env=own, capture_output=True, text=True, timeout=ANSWER_S, check=False, start_new_session=True
            )
        except subprocess.TimeoutExpired:
            raise Unanswered(f"Slurm does not answer ({command[0]} took more than {ANSWER_S:g} s).") from None
        words = "; ".join(line.partition("error: ")[2] or line for line in done.stderr.strip().splitlines())
        if done.returncode and (command[0] == "squeue" or any(text in words.lower() for text in SILENT)):
            raise Unanswered(f"Slurm does not answer ({words}).")
        if done.returncode and command[0] == "sbatch":
            raise ConfigError(f"Slurm refuses the job: {words}.")
        return done.stdout


def _phase(state: str) -> str:
    return "running" if state in RUNS else "ended" if state in ENDED else "lost" if state in LOST else "waiting"
