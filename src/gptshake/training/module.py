"""The training step as Lightning runs it: its hooks call the parts of ``step.Step``, in the same order as ``micro_batch`` and ``update``."""

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gptshake.context import Context
from gptshake.estimate.budget import Budget
from gptshake.training.device import to_device
from gptshake.training.step import Step


class GPTModule(pl.LightningModule):
    """A network and its step, the context of the run, how far it is, and ``validate``: loss in nats per token and bits per byte."""

    def __init__(self, step: Step, context: Context, validate: Callable[[], tuple[float, float]]) -> None:
        super().__init__()
        self.model, self.step, self.context, self.validate = step.model, step, context, validate
        self.best_step: int | None = None
        self.best_loss = float("inf")
        self.validations_since_best = 0
        self.elapsed_s = 0.0  # training time of earlier sessions of a resumed run

    @property
    def bench(self) -> Context:
        return self.context

    @property
    def steps(self) -> int:
        return self.step.steps

    @property
    def micro_batches(self) -> int:
        """Finished passes of the unfinished step; 0 at a step's end."""
        return self.step.micro_batches

    @property
    def tokens(self) -> int:
        """Target tokens seen in finished steps."""
        return self.step.tokens

    @property
    def budget(self) -> Budget:
        return self.step.budget

    def __getstate__(self) -> dict[str, Any]:
        """A copy, as callbacks that average weights make one, has the weights alone."""
        return super().__getstate__() | {"step": None, "context": None, "validate": None}

    def log(self, name: str, value: Any, *args: Any, logger: bool | None = None, sync_dist: bool = False, **options: Any) -> None:
        """Lightning's ``self.log``, in any hook of the module or a callback: the value is in the row of the current step.

        There is no epoch to average over, and no progress bar of Lightning's, so its other options change nothing.
        """
        if hasattr(value, "compute"):  # a metric of torchmetrics
            value = value.compute()
        if sync_dist:
            value = self.context.ranks.all_reduce_mean(torch.as_tensor(value, device=self.device).detach().clone())
        self.trainer.callback_metrics[name] = torch.as_tensor(value).detach()
        if logger is not False:
            self.context.log({name: value})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.step.make_optimizer()

    def on_fit_start(self) -> None:
        self.step.scaler = getattr(self.trainer.precision_plugin, "scaler", None)

    def on_train_start(self) -> None:
        self.step.begin()  # after a checkpoint was loaded

    def transfer_batch_to_device(self, batch: Tensor, device: torch.device, dataloader_idx: int) -> Tensor:
        return to_device(batch, device)  # without a wait for it

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.step.forward(batch)

    def on_after_backward(self) -> None:
        self.step.micro_batches += 1

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.step.clip()

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None) -> None:
        """Forward, backward and update; the step counts as finished before any callback hears of its end."""
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.step.finish()
