"""A whole training in memory: a network of a few hundred parameters, a stream of numbers for tokens, a real record."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from gptshake.context import Context, RunSpec
from gptshake.data.module import TrainBatches
from gptshake.distributed import ALONE, Ranks
from gptshake.estimate.budget import Budget
from gptshake.model.gpt import GPT
from gptshake.optim.adamw import adamw
from gptshake.optim.schedule import cosine
from gptshake.record.lock import RunLock
from gptshake.record.run import Run
from gptshake.training.callbacks.checkpoint import Checkpoint
from gptshake.training.callbacks.metrics import Metrics
from gptshake.training.module import GPTModule
from gptshake.training.step import Step
from gptshake.training.trainer import RecordLogger, build_trainer

VOCABULARY, BLOCK = 11, 8
TOKENS = np.random.default_rng(0).integers(0, VOCABULARY, 4000).astype(np.uint16)


class Distorted(GPT):
    """A network whose losses a test may change."""

    def distort(self, loss: torch.Tensor) -> torch.Tensor:
        return loss

    def loss(self, *args: Any, **options: Any) -> torch.Tensor:
        return self.distort(super().loss(*args, **options))


class Training:
    """One training; ``fit`` may raise what a run would raise. ``val_losses`` are told one after the other, the last for ever."""

    def __init__(
        self, path: Path, *, batch: int = 8, micro: int = 8, steps: int = 4, dropout: float = 0.0, lr: float = 1e-2, **options: Any
    ):
        self.ranks: Ranks = options.pop("ranks", ALONE)
        each = batch // self.ranks.size // micro
        self.budget = Budget(batch, micro, each, BLOCK, steps, batch * BLOCK, steps * batch * BLOCK, 1.0, "max_steps", ())
        self.run = Run.create(path, id="x1234567", name="x", task="train", config_yaml="", overrides=[])
        self.val_losses: list[float] = options.pop("val_losses", [2.5])
        self.micro, self.steps = micro, steps
        torch.manual_seed(0)
        self.model = Distorted(n_layer=1, n_head=2, n_embd=8, block_size=BLOCK, vocab_size=VOCABULARY, dropout=dropout)
        self.store = SimpleNamespace(entropy={"unigram": 2.0}, tokenizer=None)
        spec = RunSpec("x1234567", "x", path, [], {})
        self.context = Context(None, spec, lambda context: self.store, lambda context: self.budget, flops_per_token=1.0, ranks=self.ranks)
        self.context.run = self.run
        optimizer = partial(adamw, lr=lr, fused=options.pop("fused", "auto"))
        how = {"seed": 1, "clip": 1.0, "say": self.run.say, "ranks": self.ranks} | {
            key: options.pop(key) for key in ("seed", "clip", "compile", "precision") if key in options
        }
        self.step = Step(self.model, optimizer, options.pop("schedule", cosine), self.budget, **how)
        self.module = GPTModule(self.step, self.context, self._validate)
        self.interval, self.max_seconds = options.pop("interval", 2), options.pop("max_seconds", None)
        self.patience, self.expected_rate = options.pop("patience", None), options.pop("expected_rate", None)
        assert not options

    def fit(self, *callbacks: pl.Callback) -> list[dict[str, Any]]:
        """Train to the end; the rows of metrics.csv."""
        return self.train(callbacks)

    def train(self, callbacks: Sequence[pl.Callback] = (), precision: str = "32-true", resume: Path | None = None) -> list[dict[str, Any]]:
        """The same, in another precision or from a checkpoint."""
        metrics, lease = Metrics(self.expected_rate), RunLock(self.run.path)
        limits: Any = {"val_check_interval": self.interval, "max_seconds": self.max_seconds, "patience": self.patience}
        last = Checkpoint(metrics, lease, save_minutes=10, saved_step=None, **limits)
        self.trainer = build_trainer(
            budget=self.budget,
            callbacks=[metrics, *callbacks, last],
            accelerator="cpu",
            devices=self.ranks.size,
            strategy="fsdp" if self.ranks.size > 1 else None,
            precision=precision,
            record=RecordLogger(self.context),
        )
        try:
            self.trainer.fit(self.module, train_dataloaders=self.batches(), ckpt_path=resume, weights_only=True)
            last.save(self.trainer, self.module)
        finally:
            lease.release()
        return self.run.rows()

    def batches(self) -> TrainBatches:
        return TrainBatches(TOKENS, BLOCK, self.micro, 1, self.ranks.rank, self.ranks.size)

    def _validate(self) -> tuple[float, float]:
        loss = self.val_losses.pop(0) if len(self.val_losses) > 1 else self.val_losses[0]
        return loss, loss


@pytest.fixture
def training(tmp_path: Path) -> Callable[..., Training]:
    count = iter(range(100))
    return lambda **options: Training(tmp_path / f"run{next(count)}", **options)


@pytest.fixture(scope="session")
def training_class() -> type[Training]:
    """For what several tests share."""
    return Training
