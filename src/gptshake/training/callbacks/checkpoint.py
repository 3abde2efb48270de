"""Ends each step, when all other callbacks are done with it: its row, the validation, the checkpoint, and the ways a run ends.

The last of the callbacks. A checkpoint is written before every validation, every few minutes, before the rate falls, at the end, and
when a signal came. It holds the step's row while the validation is missing, so one that was cut off is repeated first on resume. A
signal inside a step drops the unfinished step (its weights are unchanged, and randomness depends on the position only, so this is
exact) and saves the last finished one. Ranks that train together agree on all of it at the end of a step.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from gptshake.errors import Pruned, Stop, TrainingError
from gptshake.estimate.formatting import counted
from gptshake.record.lock import RunLock
from gptshake.record.metrics import Row
from gptshake.signals import SIGNALS
from gptshake.training.callbacks.metrics import Metrics, monitor, not_finite, write_row
from gptshake.training.checkpoint import OURS, folder_of, keep_only
from gptshake.training.module import GPTModule
from gptshake.training.trainer import stop

MAX_TIME, PATIENCE = "trainer.max_time", "trainer.patience"
ASK_SECONDS = 0.2  # between looks at whether a sweep asks the run to end


@dataclass(eq=False)
class Checkpoint(pl.Callback):
    """Rows, validations, checkpoints, signals."""

    metrics: Metrics
    lock: RunLock
    val_check_interval: int  # optimizer steps between validations; the last step is always validated
    max_seconds: int | None  # training time after which the run ends
    save_minutes: float  # most minutes between checkpoints
    patience: int | None  # validations without a better loss before the run ends
    saved_step: int | None  # of the newest checkpoint; at first of the one that this session started from
    stable_step: int | None = None  # the last one before the rate fell, kept for a longer run that continues from there
    due: Row | None = None  # the row of the last step while its validation is missing
    saved_at: float = 0.0  # when the newest checkpoint was written, on the monotonic clock
    asked_at: float = 0.0  # when it was last asked whether the sweep wants the run to end, on the same

    def on_train_start(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        """Complete a step whose validation was cut off; a run that had nothing left but that takes no step."""
        self.saved_at = time.monotonic()
        self.complete(trainer, pl_module)
        over = self.max_seconds is not None and pl_module.elapsed_s >= self.max_seconds
        if "val/loss" in pl_module.context.row and (over or self._impatient(pl_module)):
            stop(trainer, MAX_TIME if over else PATIENCE)
        self.metrics.start_clock(pl_module)  # what the other callbacks did until now is no part of the first step

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GPTModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """After every micro-batch the signals; after every step the row, and validation and checkpoint if due.

        Raises ``Stop`` for a signal, when the last finished step is saved, and ``Pruned`` where the sweep asks the run to end.
        """
        signum = (SIGNALS.received or 0) if pl_module.context.ranks.size == 1 else 0
        if pl_module.micro_batches == 0:
            signum = self._end_step(trainer, pl_module)
        self.lock.heartbeat(step=pl_module.steps, value=pl_module.context.row.get("val/loss"))
        if signum:
            self.save(trainer, pl_module)
            raise Stop(signum)
        self.metrics.start_clock(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: GPTModule, exception: BaseException) -> None:  # type: ignore[override]
        """Write the row of a step that another callback has broken off; where a signal did (in a sample), the step is saved, too."""
        with suppress(TrainingError, RuntimeError):  # the device may be lost; the first error is the one that counts
            self._close_row(trainer, pl_module)
            self.metrics.write(pl_module)
        if isinstance(exception, Stop) and pl_module.micro_batches == 0:
            self.save(trainer, pl_module)
        if self.due and pl_module.context.run.last_row().get("step") != self.due["step"]:
            write_row(pl_module, self.due, [])

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: GPTModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Our own state, and Lightning's counters as of the last finished step."""
        checkpoint[OURS] = {
            "steps": pl_module.steps,
            "tokens": pl_module.tokens,
            "elapsed_s": self.metrics.elapsed(pl_module),
            "best_step": pl_module.best_step,
            "best_loss": pl_module.best_loss if pl_module.best_step else None,
            "validations_since_best": pl_module.validations_since_best,
            "validation_due": self.due,
            "stable_step": self.stable_step,
            "skipped_steps": pl_module.step.skipped_steps,
        }
        rewrite_counters(checkpoint, pl_module.steps, pl_module.budget.accumulation)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: GPTModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Continue from what ``on_save_checkpoint`` wrote, perhaps with other devices, which share a step in another way."""
        ours = checkpoint[OURS]
        rewrite_counters(checkpoint, ours["steps"], pl_module.budget.accumulation)
        pl_module.step.steps, pl_module.step.skipped_steps = ours["steps"], ours.get("skipped_steps", 0)
        pl_module.elapsed_s, pl_module.best_step = ours["elapsed_s"], ours["best_step"]
        pl_module.best_loss = float("inf") if ours["best_loss"] is None else ours["best_loss"]
        pl_module.validations_since_best = ours["validations_since_best"]
        self.stable_step = ours.get("stable_step")
        self.due = ours.get("validation_due")  # a checkpoint from before 2026-12 was written after its validation

    def _end_step(self, trainer: pl.Trainer, module: GPTModule) -> int:
        """Gives the signal that came to any rank, or 0."""
        context, steps = module.context, module.steps
        if self.max_seconds and any(context.ranks.all_reduce_max(self.metrics.elapsed(module) >= self.max_seconds)):
            stop(trainer, MAX_TIME)
            if steps < module.budget.steps:
                context.run.say(f"the time limit is reached: stopping after step {steps:,} ({MAX_TIME})")
        self._close_row(trainer, module)
        if validated := self.due is not None:
            self.save(trainer, module)
            self.complete(trainer, module)
        asked = None
        if time.monotonic() - self.asked_at >= ASK_SECONDS:
            self.asked_at = time.monotonic()
            asked = self.lock.stop_requested()
        overdue = time.monotonic() - self.saved_at >= 60 * self.save_minutes
        signum, save, pruned = context.ranks.all_reduce_max(SIGNALS.received or 0, overdue, asked is not None)
        if validated and self._impatient(module):
            stop(trainer, PATIENCE)
        if validated and trainer.is_global_zero:
            keep_only(context.run.path, module.best_step, stable_step=self.stable_step)
        if trainer.should_stop or save or module.step.plateau_ends:
            self.save(trainer, module)
        if pruned:
            raise Pruned(asked or "")
        return signum

    def _close_row(self, trainer: pl.Trainer, module: GPTModule) -> None:
        """The row of the step that has ended is written, or due where a validation comes first."""
        validates = module.steps >= module.budget.steps or trainer.should_stop or module.steps % self.val_check_interval == 0
        self.due = self.metrics.close(module, validates=validates) or self.due

    def complete(self, trainer: pl.Trainer, module: GPTModule) -> None:
        """Validate if the last step's validation is due, and write its row; a resumed run may have the row already.

        Where a signal ends the validation, the row is written without it.
        """
        if self.due is None:
            return
        context, row, known = module.context, self.due, module.context.row
        is_written = known.get("step") == row["step"] and "val/loss" in known
        monitor(module, row)
        with _validation(trainer, module):
            if is_written:
                row = known
            else:
                try:
                    loss, bpb = module.validate()
                except BaseException:
                    write_row(module, row, [])
                    raise
                row = row | {"val/loss": loss, "val/bpb": bpb}
            monitor(module, row)
        row, context.logged = context.row | {name: float(value) for name, value in context.logged.items()}, {}
        if not is_written:
            write_row(module, row, context.trackers)
        self.due = None
        if not math.isfinite(row["val/loss"]):
            raise TrainingError(not_finite(row, "validation loss"))
        module.validations_since_best += 1
        if row["val/loss"] < module.best_loss:
            module.best_step, module.best_loss, module.validations_since_best = int(row["step"]), row["val/loss"], 0

    def _impatient(self, module: GPTModule) -> bool:
        """Whether the validations have been without a better loss for too long; says so."""
        if not self.patience or module.validations_since_best < self.patience:
            return False
        module.context.run.say(f"val loss has not improved in {counted(self.patience, 'validation')}: stopping ({PATIENCE})")
        return True

    def save(self, trainer: pl.Trainer, module: GPTModule) -> None:
        """Checkpoint the last finished step, unless it is saved already or none is finished."""
        self._close_row(trainer, module)
        self.metrics.write(module)
        if module.steps in (0, self.saved_step):
            return
        run = module.context.run
        with SIGNALS.saving(), trainer.profiler.profile("[Callback]Checkpoint.save"):  # type: ignore[attr-defined]
            run.flush()
            if module.step.plateau_ends:
                self.stable_step = module.steps
            trainer.save_checkpoint(folder_of(run.path, module.steps))
            self.saved_step, self.saved_at = module.steps, time.monotonic()
            if trainer.is_global_zero:
                keep_only(run.path, module.best_step, stable_step=self.stable_step)


def rewrite_counters(checkpoint: dict[str, Any], steps: int, accumulation: int) -> None:
    """Make a Lightning checkpoint say: ``steps`` steps of ``accumulation`` micro-batches are done, the epoch has begun.

    It is written while Lightning is inside a batch, or after a step was broken off; its own counters would then repeat or skip
    batches. The key names are Lightning 2.6's; a test pins them.
    """
    done = steps * accumulation
    fit = checkpoint["loops"]["fit_loop"]
    for part in ("total", "current"):
        fit["epoch_loop.batch_progress"][part].update({"ready": done, "started": done, "processed": done, "completed": done})
        fit["epoch_progress"][part].update({"ready": 1, "started": 1, "processed": 0, "completed": 0})
    fit["epoch_loop.batch_progress"]["is_last_batch"] = False
    fit["epoch_loop.state_dict"]["_batches_that_stepped"] = steps
    fit["state_dict"]["combined_loader"] = [{"micro_batches": done}]
    checkpoint["global_step"] = steps


@contextmanager
def _validation(trainer: pl.Trainer, module: GPTModule) -> Iterator[None]:
    """Call Lightning's hooks around our validation, in its order: callbacks, then the module."""

    def call(hook: str) -> None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            with trainer.profiler.profile(f"[Callback]{callback.state_key}.{hook}"):  # type: ignore[attr-defined]
                getattr(callback, hook)(trainer, module)
        getattr(module, hook)()

    trainer.validating = True
    try:
        call("on_validation_start")
        call("on_validation_epoch_start")
        with trainer.profiler.profile("validation"):  # type: ignore[attr-defined]
            yield
        call("on_validation_epoch_end")
        call("on_validation_end")
    finally:
        trainer.training = True
