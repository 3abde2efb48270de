"""Keeps the run safe: checkpoints at the end of steps, signals, patience, the lease. The last of the callbacks.

A checkpoint is written before every validation, every few minutes, before the rate falls, at the end, and when a signal came. A signal inside a step
drops the unfinished step (its weights are unchanged, and randomness depends on the position only, so this is exact) and saves
the last finished one. Ranks that train together agree on all of it at the end of a step.
"""

import time
from typing import Any

import pytorch_lightning as pl

from gptshake.errors import Pruned, Stop
from gptshake.estimate.words import counted
from gptshake.record.lease import Lease
from gptshake.signals import SIGNALS
from gptshake.training.callbacks.recorder import Recorder
from gptshake.training.checkpoint import OURS, folder_of, keep_only
from gptshake.training.module import GPTModule
from gptshake.training.rewind import rewrite_counters

ASK_SECONDS = 0.2  # between looks at whether a sweep wishes the run to end


class Keeper(pl.Callback):
    """Checkpoints, and the ways a run ends.

    Args:
        recorder: whose rows a checkpoint waits for.
        lease: shows that the run is alive.
        save_minutes: most minutes between checkpoints.
        patience: validations without a better loss before the run ends, or None.
        saved_step: step of the checkpoint that this sitting started from, or None.
    """

    def __init__(self, recorder: Recorder, lease: Lease, *, save_minutes: float, patience: int | None, saved_step: int | None) -> None:
        self.recorder, self.lease = recorder, lease
        self.save_s, self.patience = 60 * save_minutes, patience
        self._saved_step = saved_step
        self._stable_step: int | None = None  # the last one before the rate fell, kept for a longer run that goes on from there
        self._saved_at = self._asked_at = 0.0
        recorder.save = self.save

    def on_train_start(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        """A run that had nothing left but its last validation takes no step."""
        self._saved_at = time.monotonic()
        over = self.recorder.max_seconds is not None and pl_module.bench.elapsed_s >= self.recorder.max_seconds
        if "val/loss" in pl_module.bench.row and (over or self._impatient(pl_module)):
            trainer.should_stop = True
        self.recorder.tick(pl_module)  # what the other callbacks did until now is no part of the first step

    def on_exception(self, trainer: pl.Trainer, pl_module: GPTModule, exception: BaseException) -> None:  # type: ignore[override]
        """A signal that ended a sample found the step finished, so that it can be saved."""
        if isinstance(exception, Stop) and pl_module.micro_batches == 0:
            self.save(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GPTModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """After every micro-batch the signals; after every step the checkpoint if due.

        Raises:
            Stop: a signal came; the last finished step is saved.
            Pruned: the sweep wishes the run to end.
        """
        bench = pl_module.bench
        self.lease.beat(step=pl_module.steps, value=bench.row.get("val/loss"))
        signum = (SIGNALS.received or 0) if bench.ranks.size == 1 else 0
        if pl_module.micro_batches == 0:
            signum = self._after_step(trainer, pl_module)
        if signum:
            self.save(trainer, pl_module)
            raise Stop(signum)
        self.recorder.tick(pl_module)

    def _after_step(self, trainer: pl.Trainer, module: GPTModule) -> int:
        """Save if due, hear the sweep; gives the signal that came to any rank, or 0."""
        bench, wish = module.bench, self._wish()
        validated = bench.row.get("step") == module.steps and "val/loss" in bench.row
        overdue = time.monotonic() - self._saved_at >= self.save_s
        signum, save, pruned = bench.ranks.agreed(SIGNALS.received or 0, overdue, wish is not None)
        if validated and self._impatient(module):
            trainer.should_stop = True
        if validated and trainer.is_global_zero:
            keep_only(bench.run.path, bench.best_step, stable_step=self._stable_step)
        if trainer.should_stop or save or module.step.plateau_ends:
            self.save(trainer, module)
        if pruned:
            raise Pruned(wish or "")
        return signum

    def _impatient(self, module: GPTModule) -> bool:
        """Whether the validations have been without a better loss for too long; says so."""
        if not self.patience or module.bench.validations_since_best < self.patience:
            return False
        module.bench.run.say(f"val loss has not improved in {counted(self.patience, 'validation')}: stopping (trainer.patience)")
        return True

    def _wish(self) -> str | None:
        """Why the sweep wishes the run to end, asked now and then."""
        if time.monotonic() - self._asked_at < ASK_SECONDS:
            return None
        self._asked_at = time.monotonic()
        return self.lease.wish()

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: GPTModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Our own state, and Lightning's counters as of the last finished step."""
        bench = pl_module.bench
        checkpoint[OURS] = {
            "steps": pl_module.steps,
            "tokens": pl_module.tokens,
            "elapsed_s": self.recorder.elapsed(pl_module),
            "best_step": bench.best_step,
            "best_loss": bench.best_loss if bench.best_step else None,
            "validations_since_best": bench.validations_since_best,
            "validation_due": self.recorder.due,
            "stable_step": self._stable_step,
            "skipped_steps": bench.skipped_steps,
        }
        rewrite_counters(checkpoint, pl_module.steps, pl_module.budget.accumulation)

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: GPTModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """Go on from what ``on_save_checkpoint`` wrote, perhaps with other devices, which share a step in another way."""
        ours, bench = checkpoint[OURS], pl_module.bench
        rewrite_counters(checkpoint, ours["steps"], pl_module.budget.accumulation)
        pl_module.step.steps = ours["steps"]
        bench.elapsed_s, bench.best_step = ours["elapsed_s"], ours["best_step"]
        bench.best_loss = float("inf") if ours["best_loss"] is None else ours["best_loss"]
        bench.validations_since_best = ours["validations_since_best"]
        self._stable_step = ours.get("stable_step")
        self.recorder.due = ours.get("validation_due")  # a checkpoint from before 2026-12 was written after its validation
        bench.skipped_steps = ours.get("skipped_steps", 0)

    def save(self, trainer: pl.Trainer, module: GPTModule) -> None:
        """Checkpoint the last finished step, unless it is saved already or none is finished."""
        self.recorder.drain(module)
        if module.steps in (0, self._saved_step):
            return
        with SIGNALS.saving(), trainer.profiler.profile("[Callback]Keeper.save"):  # type: ignore[attr-defined]  # not the recorder's time
            module.bench.run.flush()
            if module.step.plateau_ends:
                self._stable_step = module.steps
            trainer.save_checkpoint(folder_of(module.bench.run.path, module.steps))
            self._saved_step, self._saved_at = module.steps, time.monotonic()
            if trainer.is_global_zero:
                keep_only(module.bench.run.path, module.bench.best_step, stable_step=self._stable_step)
