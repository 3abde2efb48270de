"""One training step as Lightning runs it: loss, learning rate of the step, clipping, and no update from a loss that is not finite.

Everything random is a function of (seed, step, micro-batch), so there is no random state to save. Nothing here waits for the
device: values stay tensors until ``callbacks/recorder.py`` reads them.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from gptshake.estimate.budget import Budget
from gptshake.model.gpt import GPT
from gptshake.optim.schedule import Factors, bare
from gptshake.ranks import ALONE
from gptshake.training.bench import Bench
from gptshake.training.compiling import Loss, compiled_loss
from gptshake.training.device import to_device

OptimizerFactory = Callable[[Iterable[tuple[str, nn.Parameter]]], torch.optim.Optimizer]
Schedule = Callable[[int, int], Factors]


class GPTModule(pl.LightningModule):
    """A network, how it is optimized, and how far it is.

    Args:
        model: the network.
        optimizer: makes the optimizer from named parameters.
        schedule: (tokens seen after the step, tokens of the run) -> factor of the peak learning rate.
        budget: batch and length of the run.
        bench: record, store and sinks around it.
        seed: of dropout.
        clip: global gradient norm, or None.
        compile: whether to try ``torch.compile``.
    """

    def __init__(
        self,
        model: GPT,
        optimizer: OptimizerFactory,
        schedule: Schedule,
        budget: Budget,
        bench: Bench,
        *,
        seed: int,
        clip: float | None,
        compile: bool,
    ) -> None:
        super().__init__()
        self.model = model
        self.budget = budget
        self.bench = bench
        self.steps = 0  # finished optimizer steps
        self.micro_batches = 0  # finished forward and backward passes of the unfinished step
        self.step_loss: Tensor = torch.zeros(())  # sum over the micro-batches of the step, once it is done the mean over ranks of that
        self.grad_norm: Tensor = torch.zeros(())  # before clipping
        self.lr = 0.0
        self.beta1: float | None = None  # where the schedule moves it
        self.scaler: torch.amp.GradScaler | None = None  # of 16-mixed
        self._optimizer, self._schedule = optimizer, bare(schedule)
        self._seed, self._clip = seed, clip
        self._ranks = bench.ranks if bench else ALONE  # a range test has no bench
        self._dropout = model.config.dropout > 0
        self._loss: Loss = model.loss
        self._eager = not compile

    @property
    def tokens(self) -> int:
        """Target tokens seen in finished steps."""
        return self.steps * self.budget.tokens_per_step

    @property
    def plateau_ends(self) -> bool:
        """Whether the rate was constant until the last finished step and falls with the next."""
        step, per_step = self.steps, self.budget.tokens_per_step
        if not 2 <= step < self.budget.steps:
            return False
        before, now, after = (self._schedule(number * per_step, self.budget.total_tokens).lr for number in (step - 1, step, step + 1))
        return before == now > after

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimizer; every group remembers its own peak."""
        optimizer = self._optimizer(self.model.named_parameters())
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
        return optimizer

    def on_fit_start(self) -> None:
        """Know the loss scale, if there is one."""
        self.scaler = getattr(self.trainer.precision_plugin, "scaler", None)

    def transfer_batch_to_device(self, batch: Tensor, device: torch.device, dataloader_idx: int) -> Tensor:
        """The batch on the device, without a wait for it."""
        return to_device(batch, device)

    def on_train_batch_start(self, batch: Tensor, batch_idx: int) -> None:
        """Seed dropout by position, so that a resumed run drops what the uninterrupted one dropped."""
        if self.micro_batches == 0:
            self.step_loss = torch.zeros((), device=self.device)
        if self._dropout:
            position = self.steps * self.budget.accumulation + self.micro_batches
            torch.manual_seed(((self._seed * 1_000_003 + position) * 8191 + self.global_rank) % 2**64)  # torch takes 64 bits

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Mean cross-entropy of one micro-batch, (rows, block_size + 1) token ids, in nats per token."""
        if not self._eager:
            self._eager = True
            self._loss, said = compiled_loss(self.model, batch)
            self.bench.run.say(said)
        loss = self._loss(batch[:, :-1], batch[:, 1:])
        self.step_loss += loss.detach()
        return loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Learning rate of this step, gradient norm, clipping, and the switch that withholds a non-finite update."""
        factors = self._schedule(self.tokens + self.budget.tokens_per_step, self.budget.total_tokens)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factors.lr
            if factors.beta1 is not None and "betas" in group:
                group["betas"] = (factors.beta1, group["betas"][1])
            elif factors.beta1 is not None and "momentum" in group:
                group["momentum"] = factors.beta1
        self.lr, self.beta1 = optimizer.defaults["lr"] * factors.lr, factors.beta1  # groups may have multiples of this rate
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"] if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.grad_norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of slices: the whole network's
        self.step_loss = self._ranks.mean(self.step_loss)
        if self._clip is not None:
            nn.utils.clip_grads_with_norm_(parameters, self._clip, self.grad_norm)
        if self.scaler is not None:
            return  # it has found what is not finite, and skips the update
        finite = torch.isfinite(self.grad_norm) & torch.isfinite(self.step_loss)
        if optimizer.param_groups[0].get("fused"):
            optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]  # the fused kernel skips its update, without a wait
        elif not finite:
            for parameter in parameters:
                parameter.grad = None  # torch's optimizers leave a parameter without gradient alone

    def overflowed(self, loss: float, grad_norm: float, scale: float) -> bool:
        """Whether 16-mixed has skipped the step because its loss scale was too large, which is ordinary; ``scale`` is the next one."""
        return self.scaler is not None and math.isfinite(loss) and not math.isfinite(grad_norm) and scale >= 1


def state_of(module: GPTModule, extra: dict[str, Any]) -> dict[str, Any]:
    """Our own part of a checkpoint: how far the run is, and what callbacks must know to go on."""
    return {"steps": module.steps, "tokens": module.tokens, **extra}
