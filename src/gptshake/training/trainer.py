"""Lightning's Trainer as this project needs it: one endless epoch, our own checkpoints, validations and signals, the record as its logger.

Our keys of ``conf/trainer`` (limits, precision words, threads) are resolved before; what Lightning knows goes to it unchanged.
"""

import logging
import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment, TorchElasticEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.plugins.io import CheckpointIO
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import Strategy

from gptshake import torchrun
from gptshake.context import Context
from gptshake.estimate.budget import Budget
from gptshake.training.checkpoint import load, save
from gptshake.training.config import REPLACED
from gptshake.training.device import ScaledPrecision


class RecordLogger(Logger):
    """The run record as Lightning's callbacks know a logger: what they log is in the row of the current step."""

    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context

    @property
    def name(self) -> str:
        return self._context.run.name

    @property
    def version(self) -> str:
        return self._context.run.id

    @property
    def save_dir(self) -> str:
        return str(self._context.run.path)

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        self._context.log(metrics)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing: the record holds the whole config."""


class FolderCheckpointIO(CheckpointIO):
    """How Lightning writes and reads the checkpoints of a network that is whole on each device."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        save(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path, ignore_errors=True)


def stop(trainer: pl.Trainer, why: str) -> None:
    """End the training at the end of this step; the first reason is the one that counts."""
    trainer.stopped_by = getattr(trainer, "stopped_by", None) or why  # type: ignore[attr-defined]
    trainer.should_stop = True


def callback_of(action: str, callbacks: Iterable[pl.Callback] = ()) -> str:
    """The class of a callback in the name under which Lightning profiles one of its hooks, ``[Callback]mine.Timer{...}.on_fit_start``.

    It is found by its key among ``callbacks``, as it may have one of its own.
    """
    key = action.removeprefix("[Callback]").rpartition(".")[0]
    return next((type(each).__name__ for each in callbacks if each.state_key == key), key.split("{")[0].rpartition(".")[2])


class StopWatcher(PassThroughProfiler):
    """Measures nothing, but notes which callback ended the training: any of them may set ``should_stop``, in any hook."""

    def __init__(self, trainer: pl.Trainer) -> None:
        super().__init__()
        self._trainer = trainer

    @contextmanager
    def profile(self, action_name: str) -> Iterator[str]:
        before = self._trainer.should_stop
        yield action_name
        if self._trainer.should_stop and not before and action_name.startswith("[Callback]"):
            callbacks: list[pl.Callback] = self._trainer.callbacks  # type: ignore[attr-defined]  # set by a connector, out of mypy's sight
            stop(self._trainer, callback_of(action_name, callbacks))


def build_trainer(
    *,
    budget: Budget,
    callbacks: list[pl.Callback],
    accelerator: str,
    devices: int,
    precision: str,
    strategy: str | None = None,
    record: Logger | None = None,
    **lightning: Any,
) -> pl.Trainer:
    """A Trainer that runs ``budget.steps`` optimizer steps of ``budget.accumulation`` micro-batches.

    Lightning sees one epoch without end (order is a function of the batch number); it neither checkpoints nor validates by itself:
    ``callbacks/checkpoint.py`` does, at the end of a step. With several ``devices`` this process is one of a group (``ranks``), and
    ``strategy`` is ``ddp`` or ``fsdp``. Lightning always gets its environment from here: inside a job of Slurm's it would choose one that takes
    signals and requeues.
    """
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    scaled = [ScaledPrecision({"gpu": "cuda"}.get(accelerator, accelerator))] if precision == "16-mixed" else []
    shares: Strategy | str = (strategy if devices > 1 else None) or "auto"
    if shares == "fsdp":
        from gptshake.training.fsdp import ShardedStrategy

        shares = ShardedStrategy()
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=devices // torchrun.nodes() if devices > 1 else 1,
        num_nodes=torchrun.nodes() if devices > 1 else 1,
        precision=None if scaled else precision,  # type: ignore[arg-type]
        max_epochs=1,
        max_steps=budget.steps,
        accumulate_grad_batches=budget.accumulation,
        callbacks=callbacks,
        strategy=shares,
        plugins=[
            FolderCheckpointIO(),
            *scaled,
            TorchElasticEnvironment() if min(devices, torchrun.launched()) > 1 else LightningEnvironment(),
        ],
        logger=record or False,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        check_val_every_n_epoch=None,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **{key: value for key, value in lightning.items() if key not in REPLACED},  # what is left of those changes nothing
    )
    trainer.profiler = StopWatcher(trainer)  # type: ignore[attr-defined]  # set by a connector, out of mypy's sight
    return trainer
