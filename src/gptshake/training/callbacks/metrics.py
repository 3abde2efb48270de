"""Measures every optimizer step, and writes its row: loss, rate, gradient norm, times, and whatever anybody logged.

The first of the callbacks, so that a step's time ends where theirs begins; ``checkpoint.py``, the last, closes the row. On a GPU a
step's values are copied without waiting and read one step later, and its beginning and end are moments of the GPU's own time, so the
loop never stands still for the record.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gptshake.errors import TrainingError, nearest
from gptshake.record.metrics import Row
from gptshake.record.trackers.protocol import Tracker
from gptshake.signals import SIGNALS
from gptshake.training.device import Stamp
from gptshake.training.module import GPTModule

LATE = {"cuda"}  # devices whose values are read one step late
WATCHED = 5  # steps after the first that are compared with the expected speed
SLOW = 5  # times slower than expected gives a note
MONITORED = ("train/loss", "train/lr", "train/grad_norm", "val/loss", "val/bpb")  # in ``trainer.callback_metrics``


@dataclass
class _PendingRow:
    """The row of a finished step, whose values may still be on their way from the device."""

    row: Row
    values: Tensor | list[float] | None  # summed loss of the micro-batches, gradient norm, in 16-mixed the next scale; None: in the row
    began: Stamp
    ended: Stamp  # values are there
    logged: dict[str, Tensor] | None = None  # by others, as tensors; None as long as more may be logged in this step
    logged_at: Stamp | None = None  # these are there


class Metrics(pl.Callback):
    """The rows of metrics.csv; ``expected_rate``, in tokens per second, is None if not known or where processes share the cores."""

    def __init__(self, expected_rate: float | None = None) -> None:
        self.expected_rate = expected_rate
        self._pending: _PendingRow | None = None  # not written
        self._began = self._data_s = self._batch_ended = 0.0
        self._step_began = Stamp("cpu")
        self._rates: list[float] = []  # tokens per second of this session's first steps

    def on_train_start(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        SIGNALS.install()  # in front of Lightning's own
        self._began = time.perf_counter()
        self.start_clock(pl_module)

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self._data_s += time.perf_counter() - self._batch_ended  # fetching, and everything that is not the step itself

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GPTModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """At the end of a step: write the row before, and measure; TrainingError if loss or gradient are not finite."""
        if pl_module.micro_batches:
            return
        self.write(pl_module)
        step, late = pl_module.step, self._is_late(pl_module)
        values = torch.stack((step.loss, step.grad_norm.to(step.loss.dtype)))
        if step.scaler is not None:
            values = torch.cat((values, step.scaler.scale(values.new_ones(1))))
        read = _copied(values) if late else values.tolist()  # which waits for the device, and so its clock is the host's
        row: Row = {
            "step": step.steps,
            "train/tokens": step.tokens,
            "train/lr": step.lr,
            "perf/data_ms": 1e3 * self._data_s,
            "time": pl_module.context.run.now(),
        }
        if step.beta1 is not None:
            row["train/beta1"] = step.beta1
        self._pending = _PendingRow(row, read, self._step_began, self._stamp(pl_module))
        if not late:
            self._read(pl_module, self._pending)

    def start_clock(self, module: GPTModule) -> None:
        """Start the clock of the next micro-batch; called when all callbacks are done, so that their time is nobody's step."""
        self._batch_ended = time.perf_counter()
        if module.micro_batches == 0:
            self._data_s, self._step_began = 0.0, self._stamp(module)

    def elapsed(self, module: GPTModule) -> float:
        """Seconds of training over all sessions of this run."""
        return module.elapsed_s + time.perf_counter() - self._began

    def close(self, module: GPTModule, *, validates: bool) -> Row | None:
        """Once after a step: collect what was logged in it, and write its row, on a late device with the next one.

        Where a validation comes first, the row is given to who writes it then.
        """
        pending = self._pending
        if pending is None or pending.logged is not None or pending.row["step"] != module.steps:
            return None
        pending.logged = {}
        for name, value in module.context.logged.items():
            if isinstance(value, Tensor) and self._is_late(module):
                pending.logged[name] = _copied(value.reshape(1).to(module.device, torch.float32))
                pending.logged_at = self._stamp(module)
            else:
                pending.row[name] = float(value)
        module.context.logged = {}
        if validates:
            return self._take(module)
        if not self._is_late(module):
            self.write(module)
        return None

    def write(self, module: GPTModule) -> None:
        """Write the row that is still on its way, if there is one (before a checkpoint, too); TrainingError if its step is not finite."""
        if self._pending is not None:
            write_row(module, self._take(module), module.context.trackers)

    def _take(self, module: GPTModule) -> Row:
        """The row of the last step when its values have arrived; who takes it writes it."""
        pending, self._pending = self._pending, None
        assert pending is not None
        self._read(module, pending)
        if pending.logged and pending.logged_at:
            pending.logged_at.wait()
            pending.row |= {name: float(value) for name, value in pending.logged.items()}
        return pending.row

    def _read(self, module: GPTModule, pending: _PendingRow) -> None:
        """Once: complete the row with the values that have arrived; one that is not finite is written at once."""
        if pending.values is None:
            return
        pending.ended.wait()
        loss_sum, grad_norm, *scale = map(float, pending.values)
        context, row, pending.values = module.context, pending.row, None
        skipped = bool(scale) and module.step.overflowed(loss_sum, grad_norm, scale[0])
        seconds = pending.began.until(pending.ended)
        rate = module.budget.tokens_per_step / seconds
        row |= {"train/loss": loss_sum / module.budget.accumulation, "perf/step_ms": 1e3 * seconds, "perf/tokens_per_s": rate}
        if context.flops_per_token is not None:
            row["perf/mfu"] = rate * context.flops_per_token / context.peak_flops
        if skipped:
            module.step.skipped_steps += 1
        else:
            row["train/grad_norm"] = grad_norm
        monitor(module, row)
        self._note_slow(module, rate)
        if not (skipped or (math.isfinite(loss_sum) and math.isfinite(grad_norm))):
            self._pending = None
            write_row(module, row, context.trackers)
            raise TrainingError(not_finite(row, "gradient" if math.isfinite(loss_sum) else "loss", "; its update was not applied"))

    def _note_slow(self, module: GPTModule, rate: float) -> None:
        """Once, after the first steps: say so if several threads are far slower than they should be, as they are where cores are shared."""
        expected = self.expected_rate
        if expected is None or len(self._rates) > WATCHED:
            return
        self._rates.append(rate)
        if len(self._rates) > WATCHED and (typical := median(self._rates[1:])) < expected / SLOW:
            module.context.run.say(
                f"note: {typical:,.0f} tokens/s, where about {expected:,.0f} were expected: "
                "if another process uses the cores, try trainer.threads=1"
            )

    def _is_late(self, module: GPTModule) -> bool:
        return module.device.type in LATE

    def _stamp(self, module: GPTModule) -> Stamp:
        return Stamp(module.device.type if self._is_late(module) else "cpu")


def monitor(module: GPTModule, row: Row) -> None:
    module.context.row = row
    module.trainer.callback_metrics.update({name: torch.tensor(row[name]) for name in MONITORED if name in row})


def write_row(module: GPTModule, row: Row, trackers: Sequence[Tracker]) -> None:
    """Write a row into the record and to these trackers."""
    module.context.row = row
    module.context.run.append_row(row)
    for tracker in trackers:
        tracker.row(row)


def not_finite(row: Row, what: str, effect: str = "") -> str:
    return (
        f"Step {row['step']}: the {what} is not finite (learning rate {row['train/lr']:.3g}){effect}. "
        "Try a lower optimizer.lr, a longer warm-up or a tighter trainer.gradient_clip_val."
    )


def not_logged(callback: str, wanted: str, names: Iterable[str]) -> str:
    """A sentence about a callback that monitors what nobody logs, and the names that there are."""
    names = sorted(names)
    return f"The callback {callback} monitors {wanted}, which nobody logs{nearest(wanted, names)} Logged are {', '.join(names)}."


def _copied(values: Tensor) -> Tensor:
    """Values on their way to the host; nobody waits for them."""
    return torch.empty(len(values), pin_memory=values.is_cuda).copy_(values, non_blocking=True)
