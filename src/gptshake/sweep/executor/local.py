"""Slots of this machine: one or several runs to a GPU, or the CPU's cores shared out.

A run is pinned to its GPU by its environment before CUDA can start, and gets its share of threads.
"""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gptshake import hardware
from gptshake.errors import ConfigError
from gptshake.estimate.formatting import counted
from gptshake.outcome import Outcome, read_task, remove_task, write_task
from gptshake.processes import Child, ChildRunner, Environment, Spec

MEMORY_SHARE = 0.8  # of the main memory that runs side by side may fill
MOST_SLOTS = 64


class LocalSlots:
    """See ``protocols.Executor``.

    Args:
        slots: runs at once; ``auto``: one a GPU, without a GPU as many as have cores for their threads.
        slots_per_gpu: runs that share a GPU.
        threads: of one run, unless ``trainer.threads`` says; ``auto``: its share of the cores.
    Raises:
        ConfigError: a number below 1.
    """

    def __init__(self, slots: int | str = "auto", slots_per_gpu: int = 1, threads: int | str = "auto") -> None:
        for key, value in (("slots", slots), ("slots_per_gpu", slots_per_gpu), ("threads", threads)):
            if value != "auto" and not (isinstance(value, int) and value >= 1):
                raise ConfigError(f"hydra.sweeper.executor.{key}={value} cannot work: it must be a whole number from 1 up, or auto.")
        self._slots, self._per_gpu, self._threads = slots, slots_per_gpu, threads
        self._number, self._gpus, self._running = 0, list[str](), list[Child]()
        self.threads, self.device = 1, ""

    def open(self, target: Callable[[Any], Any], modules: Sequence[str], threads: int | None = None) -> None:
        self._threads = threads or self._threads
        self.server = ChildRunner(partial(_do, target), preload=modules)

    def probe(self, task: Any, folder: Path) -> Outcome:
        gpus = hardware.visible_gpus()
        write_task(folder, task)
        threads = self._share(self._wanted(len(gpus), None))
        try:
            return self.server.run(Spec(str(folder), folder, env=_pinned(gpus, 0), threads=threads, quiet=False))
        finally:
            remove_task(folder)

    def allot(self, device: str | None, memory: int | None, most: int | None) -> int:
        """Make the slots; on the CPU no more than fit into the main memory."""
        self._gpus = hardware.visible_gpus() if device in (None, "cuda") else []
        number = self._wanted(len(self._gpus), device)
        if self._slots == "auto":
            if not self._gpus and memory:
                number = max(1, min(number, int(MEMORY_SHARE * hardware.memory_bytes() / memory)))
            number = min(number, most or number)
        self._number, self.threads = number, self._share(number)
        chosen = self._slots == self._threads == "auto"
        if not chosen and number * self.threads > (cores := hardware.physical_cores()):
            print(f"warning: {number} x {self.threads} threads on {cores} cores is slow: try fewer threads, or fewer slots", flush=True)
        kind = f"GPU {', '.join(self._gpus)}" if self._gpus else "Apple GPU" if device == "mps" else "CPU"
        self.device = f"{counted(number, 'slot')} on {kind}, {counted(self.threads, 'thread')} each"
        return number

    def start(self, task: Any, folder: Path) -> Child | None:
        slot = min(set(range(self._number)) - {run.slot for run in self._running}, default=None)
        if slot is None:
            return None
        write_task(folder, task)
        run = self.server.start(Spec(str(folder), folder, env=_pinned(self._gpus, slot), threads=self.threads))
        run.slot = slot
        self._running.append(run)
        return run

    def adopt(self, folder: Path) -> None:
        """Nothing: children save and end when their controller has died."""

    def wait(self, seconds: float) -> list[Child]:
        ended = self.server.wait(self._running, seconds)
        for run in ended:
            self._running.remove(run)
            remove_task(run.folder)
        return ended

    def close(self) -> None:
        self.server.close()
        for run in self._running:
            remove_task(run.folder)

    def _wanted(self, n_gpus: int, device: str | None) -> int:
        if self._slots != "auto":
            return min(int(self._slots), MOST_SLOTS)
        if n_gpus:
            return n_gpus * self._per_gpu
        each = 1 if self._threads == "auto" else int(self._threads)
        return 1 if device == "mps" else max(1, min(hardware.physical_cores() // each, MOST_SLOTS))

    def _share(self, slots: int) -> int:
        return int(self._threads) if self._threads != "auto" else max(1, hardware.physical_cores() // slots)


def _do(target: Callable[[Any], Any], folder: str) -> Any:
    return target(read_task(Path(folder)))


def _pinned(gpus: Sequence[str], slot: int) -> Environment:
    return {"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {}
