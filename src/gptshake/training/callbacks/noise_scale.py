"""Measures the gradient noise scale beside a training that stays the same, bit for bit, and says at the end what it means.

With accumulation the micro-batches' gradients pass by anyway: their norms are taken as they come, before they are added up. Where a
step is one pass, each ``split_every``-th batch goes through once more, in quarters, on the weights and tokens of that step. Values stay
on the device for ``HELD`` measurements, so a GPU is not waited for.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from gptshake.errors import ConfigError
from gptshake.estimate.noise_scale import Measurement, noise_scale_text, running_estimates
from gptshake.record.metrics import NoiseScaleWriter, read_measurements
from gptshake.training.device import fork_rng, to_device
from gptshake.training.module import GPTModule
from gptshake.training.step import Step

HELD = 50  # measurements between two looks at the device
PARTS = 4  # of a batch that is one pass


class NoiseScale(pl.Callback):
    """Rows of noise_scale.csv, and the sentence at the end.

    With accumulation every step is measured, else each ``split_every``-th, which costs one more pass.
    """

    def __init__(self, split_every: int = 10) -> None:
        self.split_every = split_every
        self._passing: list[Tensor] = []  # norms of the parameters' gradients in the current pass
        self._passed: list[Tensor] = []  # squared norms of the step's micro-batches
        self._held: list[tuple[int, int, Tensor]] = []  # step, tokens, (2,) squared norms: mean of the micro-batches, whole batch

    def on_train_start(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        """Begin, or go on where the checkpoint was; ConfigError where the norms cannot be compared."""
        if pl_module.context.ranks.size > 1:
            raise ConfigError("The noise scale is measured on one device: leave callbacks=noise_scale or trainer.devices out.")
        if pl_module.budget.batch_size < 2:
            raise ConfigError("The noise scale compares a batch with parts of it, and data.batch_size=1 has none: set it to 2 or more.")
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise ConfigError(
                "The noise scale cannot be measured under the loss scale of trainer.precision=16-mixed; use bf16-mixed or 32-true."
            )
        self._writer = NoiseScaleWriter(pl_module.context.run.path, pl_module.steps)
        if pl_module.budget.accumulation > 1:
            for parameter in pl_module.model.parameters():  # of one pass, before it is added to those of the others
                parameter.register_hook(lambda gradient: self._passing.append(torch.linalg.vector_norm(gradient)))  # type: ignore[no-untyped-call]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: GPTModule, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Forget a step that was broken off; where a step is one pass, measure its parts."""
        if pl_module.micro_batches == 0:
            self._passed.clear()
        if pl_module.budget.accumulation == 1 and (pl_module.steps + 1) % self.split_every == 0:
            size = _part_size(pl_module)
            with fork_rng(batch.device):
                torch.manual_seed(pl_module.steps)  # of dropout
                whole = [part for part in batch.split(size) if len(part) == size]
                self._passed += [_norm2(map(torch.linalg.vector_norm, pl_module.step.gradient(part))) for part in whole]

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self._passing.clear()

    def on_after_backward(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        if self._passing:
            self._passed.append(_norm2(self._passing) * pl_module.budget.accumulation**2)  # by which Lightning has divided the loss

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: GPTModule, outputs: Any, batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        self._hold(pl_module)
        if len(self._held) >= HELD:
            self._write(pl_module)

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: GPTModule, checkpoint: dict[str, Any]) -> None:  # type: ignore[override]
        """What the checkpoint's steps gave is on the disk before it."""
        self._hold(pl_module)
        self._write(pl_module)
        self._writer.flush()

    def on_train_end(self, trainer: pl.Trainer, pl_module: GPTModule) -> None:  # type: ignore[override]
        self._write(pl_module)
        estimates = running_estimates(read_measurements(pl_module.context.run.path))
        pl_module.context.run.say(noise_scale_text(estimates, pl_module.budget.batch_size, pl_module.budget.block_size))

    def on_exception(self, trainer: pl.Trainer, pl_module: GPTModule, exception: BaseException) -> None:  # type: ignore[override]
        self._write(pl_module)

    def _hold(self, module: GPTModule) -> None:
        """Keep the numbers of the step that has just ended, once."""
        if module.micro_batches == 0 and self._passed:
            values = torch.stack((torch.stack(self._passed).mean(), module.step.grad_norm.float().square()))
            self._held.append((module.steps, module.tokens, values))
            self._passed.clear()

    def _write(self, module: GPTModule) -> None:
        if not self._held:
            return
        part = module.budget.micro_batch_size if module.budget.accumulation > 1 else _part_size(module)
        numbers = torch.stack([values for _, _, values in self._held]).tolist()
        for (step, tokens, _), (small, large) in zip(self._held, numbers, strict=True):
            self._writer.add(Measurement(step, tokens, part, module.budget.batch_size, small, large))
        self._held.clear()


def _part_size(module: GPTModule) -> int:
    return max(1, module.budget.batch_size // PARTS)


def _norm2(norms: Iterable[Tensor]) -> Tensor:
    """Squared global norm, a scalar, from the norms of the tensors that it is made of."""
    return torch.stack([norm.float() for norm in norms]).square().sum()


def measure(step: Step, batches: Iterable[Tensor], groups: int, parts: int, *, steps: int, tokens: int) -> Iterator[Measurement]:
    """Measurements at the weights as they are: each compares the gradients of ``parts`` batches, at least 2, with their mean.

    The network is in the mode (dropout) in which it was trained, and the step without a loss scale, which small gradients would need.
    """
    source, device = iter(batches), next(step.model.parameters()).device
    for _ in range(groups):
        total: Sequence[Tensor] = ()
        norms: list[float] = []
        for _ in range(parts):
            batch = to_device(next(source), device)
            gradient = step.gradient(batch)
            norms.append(_norm2(map(torch.linalg.vector_norm, gradient)).item())
            total = [old + new for old, new in zip(total, gradient, strict=True)] if total else gradient
        whole = _norm2(torch.linalg.vector_norm(one / parts) for one in total).item()
        yield Measurement(steps, tokens, len(batch), parts * len(batch), sum(norms) / parts, whole)
