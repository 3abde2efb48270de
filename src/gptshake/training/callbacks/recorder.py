"""Measures every optimizer step and writes its row; validates when a validation is due. The first of the callbacks.

A row is complete when the step's validation, if due, is done. The checkpoint of the step is written before it and holds the row, so
a validation that was cut off is repeated first on resume. On a GPU a step's values are copied without waiting and read one step
later, and its beginning and end are moments of the GPU's own time, so the loop never stands still for the record.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gptshake.errors import TrainingError
from gptshake.record.metrics import Row
from gptshake.record.sinks.protocol import Sink
from gptshake.signals import SIGNALS
from gptshake.training.bench import Bench
from gptshake.training.device import Stamp
from gptshake.training.module import GPTModule

LATE = {"cuda"}  # devices whose values are read one step late
WATCHED = 5  # steps after the first that are held against the expected speed
SLOW = 5  # times slower than expected is said


@dataclass
class _Pending:
    """A finished step whose values may still be on their way from the device."""

    values: Tensor | list[float]  # summed loss of the micro-batches, gradient norm and, in 16-mixed, the next step's loss scale
    began: Stamp
    ended: Stamp  # values are there
    row: dict[str, float]


class Recorder(pl.Callback):
    """Rows of metrics.csv, and the validations.

    Args:
        val_check_interval: optimizer steps between validations; the last step is always validated.
        max_seconds: training time after which the run ends, or None.
    """

    def __init__(self, val_check_interval: int, max_seconds: int | None) -> None:
        self.interval, self.max_seconds = val_check_interval, max_seconds
        self.due: Row | None = None  # the row of the last step while its validation is missing
        self.save: Callable[[pl.Trainer, GPTModule], None] = lambda trainer, module: None  # the keeper's, called before a validation
        self._pending: _Pending | None = None
        self._began = self._data_s = self._batch_ended = 0.0
        self._step_began = Stamp("cpu")
        self._rates: list[float] = []  # tokens per second of this sitting's first steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put our signal handler in front of Lightning's again, start the clocks, complete a step whose validation was cut off."""
        SIGNALS.install()
        self._began = time.perf_counter()
        self.complete(_ours(pl_module))
        self.tick(_ours(pl_module))

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        """Count the time since the last batch ended: fetching and everything that is not the step itself."""
        self._data_s += time.perf_counter() - self._batch_ended

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """At the end of a step: its row, and the validation if due.

        Raises:
            TrainingError: the loss or the gradient of a step is not finite.
        """
        module = _ours(pl_module)
        if module.micro_batches:
            return
        self.drain(module)
        pending = self._measure(module)
        if self.max_seconds and any(module.bench.ranks.agreed(self.elapsed(module) >= self.max_seconds)):
            trainer.should_stop = True
            if module.steps < module.budget.steps:
                module.bench.run.say(f"the time limit is reached: stopping after step {module.steps:,} (trainer.max_time)")
        if module.steps >= module.budget.steps or trainer.should_stop or module.steps % self.interval == 0:
            self.due = self._read(module, pending)
            self.save(trainer, module)
            self.complete(module)
        else:
            self._pending = pending
            if not self._late(module):
                self.drain(module)

    def complete(self, module: GPTModule) -> None:
        """Validate if the last step's validation is due, and write its row; a resumed run may have the row already.

        Raises:
            TrainingError: the validation loss is not finite.
            Stop: a signal ended the validation; the row is written without it.
        """
        if self.due is None:
            return
        row, known = self.due, module.bench.row
        if known.get("step") == row["step"] and "val/loss" in known:
            row = known
        else:
            try:
                result = module.bench.validate()
            except BaseException:
                _write(module, row, [])
                raise
            row = row | {"val/loss": result.loss, "val/bpb": result.bpb}
            _write(module, row, module.bench.sinks)
        self.due = None
        if not math.isfinite(row["val/loss"]):
            raise TrainingError(not_finite(row, "validation loss"))
        _remember_best(module.bench, int(row["step"]), row["val/loss"])

    def tick(self, module: GPTModule) -> None:
        """Start the clock of the next micro-batch; called when all callbacks are done, so that their time is nobody's step."""
        self._batch_ended = time.perf_counter()
        if module.micro_batches == 0:
            self._data_s, self._step_began = 0.0, self._stamp(module)

    def elapsed(self, module: GPTModule) -> float:
        """Seconds of training over all sittings of this run."""
        return module.bench.elapsed_s + time.perf_counter() - self._began

    def drain(self, module: GPTModule) -> None:
        """Write the row that is still on its way; to be called before a checkpoint.

        Raises:
            TrainingError: the loss or the gradient of its step is not finite.
        """
        if pending := self._pending:
            self._pending = None
            _write(module, self._read(module, pending), module.bench.sinks)

    def _measure(self, module: GPTModule) -> _Pending:
        step = module.step
        values = torch.stack((step.loss, step.grad_norm.to(step.loss.dtype)))
        if step.scaler is not None:
            values = torch.cat((values, step.scaler.scale(values.new_ones(1))))
        if self._late(module):
            read: Tensor | list[float] = torch.empty(len(values), pin_memory=values.is_cuda).copy_(values, non_blocking=True)
        else:
            read = values.tolist()  # waits for the device, and so its clock is the host's
        row = {
            "step": module.steps,
            "train/tokens": module.tokens,
            "train/lr": step.lr,
            "perf/data_ms": 1e3 * self._data_s,
            "time": module.bench.run.now(),
        } | ({} if step.beta1 is None else {"train/beta1": step.beta1})
        return _Pending(read, self._step_began, self._stamp(module), row)

    def _late(self, module: GPTModule) -> bool:
        """Whether values are read one step late."""
        return module.device.type in LATE

    def _stamp(self, module: GPTModule) -> Stamp:
        return Stamp(module.device.type if self._late(module) else "cpu")

    def _read(self, module: GPTModule, pending: _Pending) -> Row:
        """The row of a step whose values have arrived; one that is not finite is written at once."""
        pending.ended.wait()
        loss_sum, grad_norm, *scale = map(float, pending.values)
        skipped = bool(scale) and module.step.overflowed(loss_sum, grad_norm, scale[0])
        finite = skipped or (math.isfinite(loss_sum) and math.isfinite(grad_norm))
        seconds = pending.began.until(pending.ended)
        rate = module.budget.tokens_per_step / seconds
        row = pending.row | {
            "train/loss": loss_sum / module.budget.accumulation,
            "perf/step_ms": 1e3 * seconds,
            "perf/tokens_per_s": rate,
            "perf/mfu": rate * module.bench.flops_per_token / module.bench.peak_flops,
        }
        if skipped:
            module.bench.skipped_steps += 1
        else:
            row["train/grad_norm"] = grad_norm
        self._watch(module.bench, rate)
        if not finite:
            _write(module, row, module.bench.sinks)
            raise TrainingError(not_finite(row, "gradient" if math.isfinite(loss_sum) else "loss", "; its update was not applied"))
        return row

    def _watch(self, bench: Bench, rate: float) -> None:
        """Once, after the first steps: say so if several threads are far slower than they should be, as they are where cores are shared."""
        if bench.expected_rate is None or len(self._rates) > WATCHED:
            return
        self._rates.append(rate)
        if len(self._rates) > WATCHED and (typical := median(self._rates[1:])) < bench.expected_rate / SLOW:
            bench.run.say(
                f"note: {typical:,.0f} tokens/s, where about {bench.expected_rate:,.0f} were expected: "
                "if another process uses the cores, try trainer.threads=1"
            )


def not_finite(row: Row, what: str, effect: str = "") -> str:
    """The sentence that ends a diverging run."""
    return (
        f"Step {row['step']}: the {what} is not finite (learning rate {row['train/lr']:.3g}){effect}. "
        "Try a lower optimizer.lr, a longer warm-up or a tighter trainer.gradient_clip_val."
    )


def _write(module: GPTModule, row: Row, sinks: Sequence[Sink]) -> None:
    module.bench.row = row
    module.bench.run.append_row(row)
    for sink in sinks:
        sink.row(row)


def _remember_best(bench: Bench, step: int, loss: float) -> None:
    bench.validations_since_best += 1
    if loss < bench.best_loss:
        bench.best_step, bench.best_loss, bench.validations_since_best = step, loss, 0


def _ours(module: pl.LightningModule) -> GPTModule:
    if not isinstance(module, GPTModule):
        raise TypeError(f"this callback belongs to GPTModule, not to {type(module).__name__}")
    return module
