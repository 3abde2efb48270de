"""Where the time of real training steps goes, measured through the names by which Lightning announces what it does.

Steps are measured and left alone in turns, so that the cost of measuring is itself measured, whatever else the machine does.
On a GPU the stamps are events on its own stream: work that is hidden behind it takes no time there. A trace of a few more
steps comes after, because tracing is slow. Ends the training when it has seen enough.
"""

import os
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import Profiler as LightningProfiler
from torch import Tensor

from gptshake.training.device import Stamp
from gptshake.training.module import GPTModule
from gptshake.training.trainer import callback_of

OTHER, LOGGING = "other", "logging"
TRACED = 2  # steps in the trace: two, to see what lies between them
OCCASIONAL = ("validation", "checkpoint")  # timed wherever they come, and no part of a step
_ACTIONS = {
    "batch_to_device": "transfer",
    "training_step": "forward",
    "backward": "backward",
    "optimizer_step": "optimizer",
    "optimizer_zero_grad": "optimizer",
    "save_checkpoint": "checkpoint",
    "data": "data",
    "validation": "validation",
}


class Measured(BaseException):
    """The profile has seen enough, and the training ends here. Like ``Stop`` it passes every ``except Exception``."""


@cache
def part_of(action: str) -> str | None:
    """The part of a step that an action of Lightning's belongs to; ``logging/<callback>`` for callbacks; None: to what it lies in."""
    if action.startswith("[Callback]"):
        return f"{LOGGING}/{callback_of(action)}"
    return _ACTIONS.get(action.rpartition(".")[2])


class Timeline:
    """Seconds by part on a device's clock, each moment counted once: to the innermost part, the first of which is ``within``."""

    def __init__(self, device: str, *within: str) -> None:
        self._device, self._within = device, [OTHER, *within]
        self._marks = [("", Stamp(device))]  # the part that ends at each stamp

    def begin(self, part: str) -> None:
        self.close()
        self._within.append(part)

    def end(self) -> None:
        self._marks.append((self._within.pop(), Stamp(self._device)))

    def close(self) -> None:
        """End the stretch of the innermost part so far."""
        self._marks.append((self._within[-1], Stamp(self._device)))

    def seconds(self) -> dict[str, float]:
        """Seconds by part; waits for a device."""
        self._marks[-1][1].wait()
        found: dict[str, float] = {}
        for (_, before), (part, now) in zip(self._marks, self._marks[1:], strict=False):
            found[part] = found.get(part, 0.0) + before.until(now)
        return found


class Labels:
    """Names the parts in a trace of torch's."""

    def __init__(self) -> None:
        self._open: list[Any] = []

    def begin(self, part: str) -> None:
        self._open.append(torch.profiler.record_function(part))
        self._open[-1].__enter__()

    def end(self) -> None:
        if self._open:  # the first end is of a part that was open before
            self._open.pop().__exit__(None, None, None)


class Announcer(LightningProfiler):
    """Hands on what Lightning announces to the watcher of the moment, if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.watcher: Timeline | Labels | None = None
        self.occasions: dict[str, list[float]] = {name: [] for name in OCCASIONAL}
        self._began = 0.0

    def start(self, action_name: str) -> None:
        part = part_of(action_name)
        if part in OCCASIONAL:
            self._began = time.perf_counter()
        if part and self.watcher:
            self.watcher.begin(part)

    def stop(self, action_name: str) -> None:
        part = part_of(action_name)
        if part and self.watcher:
            self.watcher.end()
        if part in OCCASIONAL:
            self.occasions[part].append(time.perf_counter() - self._began)


class Profiler(pl.Callback):
    """Watches the training it is put into, as the last of its callbacks, and ends it with ``Measured``."""

    def __init__(self, *, warmup: int, steps: int, seconds: float, trace: Path) -> None:
        self.warmup = warmup  # steps before the first measured one; ended by a quarter of ``seconds`` too
        self.steps = steps  # to measure; as many between them are only timed as a whole
        self.seconds = seconds  # after which no further step is measured
        self.trace = trace  # file for torch's trace
        self.start: dict[str, float] = {}  # seconds from ``setup`` to the first step, by part
        self.first_step_s = self.peak_flops = 0.0
        self.flops_per_token: float | None = None
        self.measured: list[dict[str, float]] = []  # seconds by part of each measured step
        self.measured_s: list[float] = []  # and as a whole, on the clock
        self.plain_s: list[float] = []  # of the steps between them
        self.exhausted = False  # whether the data ended first, and not another callback the training
        self.announcer = Announcer()
        self._computed_s = self._fetched_s = 0.0  # processor time and time of fetching
        self.arrived = 0.0  # clock at ``setup``
        self._began = self._ended = Stamp("cpu")
        self._watching: Iterator[Timeline | Labels | None] = iter(())

    def timed(self, loader: Iterable[Tensor]) -> Iterator[Tensor]:
        """The batches of a loader, each of them announced."""
        batches, ended = iter(loader), object()
        while True:
            computed, began = time.thread_time(), time.perf_counter()
            with self.announcer.profile("data"):
                batch: Any = next(batches, ended)
            if batch is ended:
                return
            self._computed_s += time.thread_time() - computed
            self._fetched_s += time.perf_counter() - began
            yield batch

    @property
    def computing(self) -> float:
        """Share of the time of fetching in which this process computed; the rest of it, it waited."""
        return self._computed_s / self._fetched_s if self._fetched_s else 0.0

    def setup(self, trainer: pl.Trainer, pl_module: GPTModule, stage: str) -> None:  # type: ignore[override]
        """Listen; the start is measured on the clock, whatever the device."""
        self.arrived = time.perf_counter()
        context = pl_module.context
        self.flops_per_token, self.peak_flops = context.flops_per_token, context.peak_flops
        context.draw = lambda folder: []
        trainer.profiler = self.announcer  # type: ignore[attr-defined]  # set by a connector, out of mypy's sight
        self.announcer.watcher = Timeline("cpu")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(self.announcer.watcher, Timeline)
        self.announcer.watcher.close()
        self.start = self.announcer.watcher.seconds()
        self.announcer.watcher = None
        self._watching = self._watchers(pl_module.device.type)
        self._began = Stamp(pl_module.device.type)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GPTModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """At the end of a step: how long it took, and who watches the next; ``Measured`` when nobody needs to."""
        if pl_module.micro_batches:
            return
        self._ended = Stamp(pl_module.device.type)
        try:
            self.announcer.watcher = next(self._watching)
        except StopIteration:
            raise Measured from None
        self._began = Stamp(pl_module.device.type)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.exhausted = not trainer.should_stop
        raise Measured

    def _watchers(self, device: str) -> Iterator[Timeline | Labels | None]:
        """Who watches the steps from the second on, one after the other; resumed at the end of each."""
        began, warm = time.perf_counter(), 1
        self._ended.wait()
        self.first_step_s = self._began.until(self._ended)
        while warm < self.warmup and time.perf_counter() - began < self.seconds / 4:
            yield None
            warm += 1
        timelines: list[Timeline] = []
        measured, plain = list[tuple[Stamp, Stamp]](), list[tuple[Stamp, Stamp]]()
        while len(timelines) < self.steps and (not timelines or time.perf_counter() - began < self.seconds):
            timelines.append(Timeline(device, LOGGING))
            yield timelines[-1]
            timelines[-1].close()
            measured.append((self._began, self._ended))
            yield None
            plain.append((self._began, self._ended))
        self._ended.wait()  # only now, or a device would be waited for between steps
        self.measured = [timeline.seconds() for timeline in timelines]
        self.measured_s, self.plain_s = ([began.until(ended) for began, ended in steps] for steps in (measured, plain))
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # it talks to the terminal about its own work
        kinds = [torch.profiler.ProfilerActivity.CPU, *([torch.profiler.ProfilerActivity.CUDA] if device == "cuda" else [])]
        with torch.profiler.profile(activities=kinds) as trace:  # a run on the CPU does not start CUDA
            for _ in range(TRACED):
                yield Labels()
        trace.export_chrome_trace(str(self.trace))
