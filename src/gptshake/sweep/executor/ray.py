"""Runs as Ray tasks, one each, on whatever nodes a Ray cluster has.

Ray places a run and says when its node has died. The task does not do the run: it starts it as a process that Ray does not know, which
checkpoints and ends when the task is gone, with its worker, its node or the controller. Ray would kill it at once.
"""

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError, GptshakeError
from gptshake.outcome import outcome_of, remove_task
from gptshake.processes import Command
from gptshake.signals import SIGNALS
from gptshake.sweep.executor.jobs import Jobs, JobState

NODE = ".node"  # file in which a task says where it has begun its run
ANSWER_S = 60.0  # after which a cluster is given up; Ray itself would try for ever
LOCAL_STORE = 80 << 20  # bytes of a local cluster's object store, which runs do not use
CALM = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
CALM |= {"RAY_DEDUP_LOGS": "1", "RAY_DEDUP_LOGS_SKIP_REGEX": "^"}  # log_to_driver leaves what a node says as it dies, with its address
QUIET: dict[str, Any] = {"logging_level": "fatal", "log_to_driver": False}
FEWER = "the memory of its node is full; with more hydra.sweeper.executor.cpus fewer runs share it"
OTHER = 3  # exit code: the cluster has another version
CONNECT = f"""import ray, sys
try:
    ray.init(sys.argv[1], **{QUIET})
except RuntimeError as error:
    sys.exit({OTHER} if "Version mismatch" in str(error) else 1)"""
# Starts a command of which this shell's parent is no ancestor, appends its output to the file $0 and prints its exit code. Each line that
# comes in sends TERM, and so does the end of lines, which is that of the task; KILL follows it.
SUPERVISOR = """exec 3<&0
{ "$@" >>"$0" 2>&1 3<&- & run=$!
  { while read -r line; do kill -s TERM $run; done; kill -s TERM $run; sleep 60; kill -s KILL 0; } <&3 >/dev/null 2>&1 & guard=$!
  wait $run; code=$?; kill -s KILL $guard; echo $code; } 2>/dev/null &"""


class RayJobs(Jobs):
    """See ``protocols.Executor``.

    Args:
        address: ``auto``: the cluster that this machine belongs to; ``local``: one on this machine, for this sweep alone; or host and port.
        slots: runs at once, at work or waiting for a node; ``auto``: as many as the cluster can run when the sweep starts.
        slots_per_gpu: runs that share a GPU, where the cluster has any.
        cpus: cores of a run, and so its threads, unless ``trainer.threads`` says.
    """

    def __init__(self, address: str = "auto", slots: int | str = "auto", slots_per_gpu: int = 1, cpus: int = 1) -> None:
        super().__init__("ray", 0 if slots == "auto" else int(slots), cpus)
        self._address, self._gpu = address, 1 / slots_per_gpu  # of a run
        self._tasks: dict[str, tuple[Any, Path]] = {}  # by id: what Ray calls it, and its folder
        self._replaced = False  # whether another cluster is at the address

    def open(self, target: Callable[[Any], Any], modules: Sequence[str], threads: int | None = None) -> None:
        if find_spec("ray") is None:
            raise ConfigError("executor=ray needs Ray, which is not installed: pip install 'gptshake[ray]'")
        super().open(target, modules, threads)
        os.environ.update(CALM)
        import ray

        self._ray: Any = ray
        if self._address == "local":
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
            ray.init("local", include_dashboard=False, object_store_memory=LOCAL_STORE, **QUIET)
        else:
            self._try_address()
            ray.init(self._address, **QUIET)
        SIGNALS.install()  # Ray has put its own handler in front
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # whatever a node's Python has installed
        self._task = ray.remote(max_retries=0)(_supervise)
        if not ray.cluster_resources().get("GPU"):
            self._gpu = 0.0

    def _try_address(self) -> None:
        """Connect to the cluster in a process that can be given up.

        Raises:
            ConfigError: it does not answer, has another version, or is not asked as one of its nodes.
        """
        asked = f"hydra.sweeper.executor.address={self._address}"
        address = os.environ.get("RAY_ADDRESS", "") if self._address == "auto" else self._address
        if "://" in address:
            raise ConfigError(
                f"A sweep cannot go through Ray's client ({address}): start it on a node of the cluster, with {asked.partition('=')[0]}=auto."
            )
        trial = Command([sys.executable, "-c", CONNECT, self._address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = trial.wait(ANSWER_S)
        trial.kill()
        if end and end.value == OTHER:
            raise ConfigError(
                f"The Ray cluster at {asked} has another version of Ray or Python than this installation: they must be equal."
            )
        if end is None or end.status != "ok":
            raise ConfigError(
                f"No Ray cluster answers at {asked} (tried for at most {ANSWER_S:g} s), or this machine "
                "is not one of its nodes: ray start --address=<host>:<port> makes it one. address=local starts a cluster for this sweep alone."
            )

    def allot(self, device: str | None, memory: int | None, most: int | None) -> int:
        if device not in (None, "cuda"):
            self._gpu = 0.0
        if not self._slots:
            available, needed = self._ray.cluster_resources(), {"CPU": self.cpus, "GPU": self._gpu}
            self._slots = max(1, min(int(available.get(name, 0) / share) for name, share in needed.items() if share))
        return super().allot(device, memory, most)

    def adopt(self, folder: Path) -> None:
        """Nothing: tasks end with their controller, and runs save and end with their task."""

    def submit(self, folder: Path, command: Sequence[str]) -> str:
        (folder / NODE).unlink(missing_ok=True)
        task = self._task.options(num_cpus=self.cpus, num_gpus=self._gpu, name=f"gptshake {folder.name}")
        identity = command[-1][:8]
        self._tasks[identity] = task.remote(list(command), str(folder), str(Path.cwd()), self.environment()), folder
        return identity

    def states(self, ids: Sequence[str]) -> Mapping[str, JobState]:
        found = {identity: self._state(*self._tasks[identity]) for identity in ids}
        if any(state.phase != "running" for state in found.values()):
            try:
                self._ray.util.list_named_actors()  # a question that every head answers, but only to those who have connected to it
            except self._ray.exceptions.AuthenticationError:
                self._replaced = True
                raise GptshakeError(
                    "The head of the Ray cluster has died, and another cluster is at its address, which does not know this study. Its runs "
                    "write a checkpoint and end; the same command resumes them there."
                ) from None
        return found

    def ask(self, ids: Sequence[str]) -> None:
        tasks = [self._tasks[identity][0] for identity in ids]
        _, working = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
        for task in working:  # Ray aborts this process if one is cancelled that has just ended
            self._ray.cancel(task)

    def cancel(self, ids: Sequence[str]) -> None:
        for identity in ids:
            remove_task(self._tasks[identity][1])  # so it is not asked to stop, but killed
        self.ask(ids)

    def pause(self, seconds: float) -> None:
        tasks = [self._tasks[job.id][0] for job in self._running if job.id and not job.state.gone]
        if not tasks:
            super().pause(seconds)
        elif self._ray.wait(tasks, timeout=seconds)[0]:
            self._asked_at = -inf  # so it is asked for the end, and not waited for again

    def close(self) -> None:
        if self._replaced:
            self._running.clear()  # nobody passes on what they are asked, and they end with their tasks
        super().close()
        self._ray.shutdown()

    def _state(self, task: Any, folder: Path) -> JobState:
        """No text of Ray's own goes further, as there are addresses of nodes in it."""
        errors = self._ray.exceptions
        try:
            if not self._ray.wait([task], timeout=0)[0]:
                needs = f"{self.cpus} free CPU" + (f" and {self._gpu:.3g} of a GPU" if self._gpu else "")
                with suppress(OSError):
                    return JobState("running", f"on {(folder / NODE).read_text(encoding='utf-8')}")
                return JobState("waiting", f"for a node with {needs}")
            end = self._ray.get(task)
        except errors.TaskCancelledError:
            return JobState("ended", "cancelled")
        except errors.RayTaskError as error:
            return JobState("ended", f"{type(error.cause).__name__}: {error.cause}")
        except errors.RayError as error:
            return JobState("lost", type(error).__name__, hint=FEWER if isinstance(error, errors.OutOfMemoryError) else "")
        if isinstance(end, str):
            raise ConfigError(end)
        return JobState("lost", outcome_of(128 - end).reason if end > 128 else f"exit code {end}")


def _supervise(command: list[str], folder: str, cwd: str, environment: dict[str, str]) -> int | str:
    """In a worker of Ray: let the run live, pass on what Ray is asked to cancel, and return its exit code, or what is missing here."""
    if unseen := [path for path in (folder, cwd, command[0]) if not os.path.exists(path)]:  # noqa: PTH110 -- pickled with all it uses
        return (
            f"The node {socket.gethostname()} of the Ray cluster does not see {unseen[0]}: the studies (paths.multirun), the working directory "
            "and the installation must have the same path on all nodes."
        )
    with open(f"{folder}/{NODE}", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(socket.gethostname())
    gpus = {name: value for name, value in os.environ.items() if name.endswith("VISIBLE_DEVICES")}  # Ray's choice
    shell = ["sh", "-c", SUPERVISOR, f"{folder}/output", *command]
    supervisor: Any = subprocess.Popen(
        shell, cwd=cwd, env=environment | gpus, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
    )
    while True:
        try:
            supervisor.wait()  # which it does not long
            if select.select([supervisor.stdout], [], [], 0.2)[0]:
                return int(supervisor.stdout.read() or 128 + signal.SIGKILL)
        except KeyboardInterrupt:
            if os.path.exists(f"{folder}/job.json"):  # noqa: PTH110
                supervisor.stdin.write(b"\n")
            else:
                os.killpg(supervisor.pid, signal.SIGKILL)
