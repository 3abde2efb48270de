"""Slots of this machine: one or several runs to a GPU, or the CPU's cores shared out.

A run is pinned to its GPU by its environment before CUDA can start, and gets its share of threads.
"""

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from gptshake import hardware
from gptshake.errors import ConfigError
from gptshake.processes import Child, ChildRunner, Outcome, Spec, read_task, remove_task, write_task

MEMORY_SHARE = 0.8  # of the main memory that runs side by side may fill
MOST_SLOTS = 64


@dataclass
class _Slot:
    index: int
    gpu: str | None
    child: Child | None = None


class SlotRun:
    """A run in a slot; see ``protocol.Running``."""

    def __init__(self, slot: _Slot, child: Child) -> None:
        self._child = child
        self.slot, self.folder, self.started = slot.index, child.spec.folder, child.started

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, if it has."""
        return self._child.outcome

    def stop(self) -> None:
        """Ask it to checkpoint and end."""
        self._child.terminate()

    def kill(self, reason: str) -> None:
        """End it now."""
        self._child.kill(reason=reason)


class LocalSlots:
    """See ``protocol.Executor``.

    Args:
        slots: runs at once; ``auto``: one a GPU, without a GPU one a core.
        slots_per_gpu: runs that share a GPU.
        threads: of one run; ``auto``: its share of the cores.
    Raises:
        ConfigError: a number below 1.
    """

    def __init__(self, slots: int | str = "auto", slots_per_gpu: int = 1, threads: int | str = "auto") -> None:
        for key, value in (("slots", slots), ("slots_per_gpu", slots_per_gpu), ("threads", threads)):
            if value != "auto" and not (isinstance(value, int) and value >= 1):
                raise ConfigError(f"hydra.sweeper.executor.{key}={value} cannot work: it is a whole number from 1 up, or auto.")
        self._wish, self._per_gpu, self._threads_wish = slots, slots_per_gpu, threads
        self._slots: list[_Slot] = []
        self._server: ChildRunner | None = None
        self.threads, self.device = 1, ""

    def open(self, target: Callable[[Any], Any], modules: Sequence[str]) -> None:
        """Start the server that runs are forked from."""
        self._server = ChildRunner(partial(_do, target), preload=modules)

    @property
    def server(self) -> ChildRunner:
        """The server, once it is open."""
        if self._server is None:
            raise RuntimeError("open the executor first")
        return self._server

    def probe(self, task: Any, folder: Path) -> Outcome:
        """Do one task with the threads and the GPU that a run would have."""
        gpus = visible_gpus()
        write_task(folder, task)
        spec = Spec(str(folder), folder, env=_environment(gpus[0] if gpus else None), threads=self._share(len(gpus), None), quiet=False)
        try:
            return self.server.run(spec)
        finally:
            remove_task(folder)

    def allot(self, device: str | None, memory: int | None, most: int | None) -> int:
        """Make the slots; on the CPU no more than fit into the main memory."""
        gpus = visible_gpus() if device in (None, "cuda") else []
        wanted = self._wanted(len(gpus), device)
        if not gpus and memory and self._wish == "auto":
            wanted = max(1, min(wanted, int(MEMORY_SHARE * hardware.memory_bytes() / memory)))
        number = min(wanted, most or wanted) if self._wish == "auto" else wanted
        self._slots = [_Slot(index, gpus[index % len(gpus)] if gpus else None) for index in range(number)]
        self.threads = self._share(len(gpus), number)
        kind = f"GPU {', '.join(gpus)}" if gpus else {"mps": "Apple GPU"}.get(device or "", "CPU")
        self.device = f"{number} slot{'s' if number > 1 else ''} on {kind}, {self.threads} thread{'s' if self.threads > 1 else ''} each"
        return number

    def start(self, task: Any, folder: Path) -> SlotRun | None:
        """Begin a run in the first free slot."""
        slot = next((slot for slot in self._slots if slot.child is None), None)
        if slot is None:
            return None
        write_task(folder, task)
        slot.child = self.server.start(Spec(str(folder), folder, env=_environment(slot.gpu), threads=self.threads))
        return SlotRun(slot, slot.child)

    def wait(self, seconds: float) -> list[SlotRun]:
        """The runs that have ended; their slots are free again."""
        taken = {slot.child.pid: slot for slot in self._slots if slot.child is not None}
        ended = self.server.wait([slot.child for slot in taken.values() if slot.child is not None], seconds)
        for child in ended:
            taken[child.pid].child = None
            remove_task(child.spec.folder)
        return [SlotRun(taken[child.pid], child) for child in ended]

    def close(self) -> None:
        """End the server and what still runs."""
        if self._server is not None:
            self._server.close()
        for slot in self._slots:
            if slot.child is not None:
                remove_task(slot.child.spec.folder)

    def _wanted(self, n_gpus: int, device: str | None) -> int:
        if self._wish != "auto":
            return min(int(self._wish), MOST_SLOTS)
        if n_gpus:
            return n_gpus * self._per_gpu
        return 1 if device == "mps" else min(hardware.physical_cores(), MOST_SLOTS)

    def _share(self, n_gpus: int, number: int | None) -> int:
        slots = number if number is not None else self._wanted(n_gpus, None)
        return int(self._threads_wish) if self._threads_wish != "auto" else max(1, hardware.physical_cores() // slots)


def _do(target: Callable[[Any], Any], folder: str) -> Any:
    return target(read_task(Path(folder)))


def visible_gpus() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; asks the driver, not CUDA, which must not start here."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(index) for index in range(sum(line.startswith("GPU ") for line in listed.splitlines()))]


def _environment(gpu: str | None) -> dict[str, str | None]:
    return {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
