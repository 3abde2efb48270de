"""Live progress: one line that renews itself on a terminal, a line now and then in a log file.

Moves with every micro-batch, so that a step that takes minutes is seen to move. Costs a clock reading per micro-batch between
two prints.
"""

import time
from typing import Any

import pytorch_lightning as pl

from gptshake.console import Console
from gptshake.estimate.formatting import duration
from gptshake.training.module import GPTModule

_SPARE = (4, 3, 1, 5)  # of the parts of a line, if a terminal is narrow: speed, learning rate, percent, time left


class Progress(pl.Callback):
    """Loss, learning rate, speed and time left: five times a second on a terminal, else a line every ``every_s`` seconds."""

    rank_zero_only = True

    def __init__(self, every_s: float = 10.0) -> None:
        self._console = Console()
        self.every_s = 0.2 if self._console.renews else every_s
        self._shown_at = self._began = self._first = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        self._began = time.monotonic()
        self._shown_at = self._began - max(self.every_s - 2, 0)  # the first line soon
        self._first = _done(pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GPTModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        now, row = time.monotonic(), pl_module.context.row
        if now - self._shown_at < self.every_s:
            return
        rate, left = self._speed(pl_module, now)
        parts = [
            f"step {pl_module.steps:>6,} of {pl_module.budget.steps:,}",
            f"{100 * _done(pl_module) / pl_module.budget.total_tokens:5.1f} %",
            *([f"loss {row['train/loss']:.4f}", f"lr {row['train/lr']:.2e}"] if row else ["first step", ""]),
            f"{row.get('perf/tokens_per_s', rate):,.0f} tokens/s",
            left,
        ]
        self._console.show(parts, _SPARE)
        self._shown_at = now

    def on_validation_end(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        row, now = pl_module.context.row, time.monotonic()
        self._console.clear()
        pl_module.context.run.say(
            f"step {pl_module.steps:>6,} of {pl_module.budget.steps:,} | val loss {row['val/loss']:.4f} | {row['val/bpb']:.3f} bpb"
            f" | train {row['train/loss']:.4f} | lr {row['train/lr']:.2e} | {row['perf/tokens_per_s']:,.0f} tokens/s"
            f" | {self._speed(pl_module, now)[1]}"
        )
        self._shown_at = now

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._console.clear()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._console.clear()

    def _speed(self, module: GPTModule, now: float) -> tuple[float, str]:
        """Tokens per second of this session, and the time left in words."""
        done = _done(module)
        rate = (done - self._first) / max(now - self._began, 1e-9)
        return rate, f"left {duration((module.budget.total_tokens - done) / rate) if rate else '?'}"


def _done(module: GPTModule) -> float:
    """Tokens, with those of the unfinished step."""
    return module.tokens + module.micro_batches / module.budget.accumulation * module.budget.tokens_per_step
