"""The range test itself: a training whose schedule is a ramp, on a network that is thrown away.

Groups, multipliers, clipping, dropout and accumulation are ``GPTModule``'s own, so a step is the step of a real run. After each one the
loss on fixed held-out batches is taken, in fp32 like every validation, which is free of the noise of drawing batches. The price: half
a step's time more, or less.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from gptshake.estimate.budget import Budget
from gptshake.estimate.lr_range import has_diverged
from gptshake.model.gpt import GPT
from gptshake.optim.schedule import Factors
from gptshake.training.device import forward_pass, no_memory, out_of_memory, to_device
from gptshake.training.evaluation import evaluate
from gptshake.training.module import GPTModule, OptimizerFactory

SCALED = "16-mixed"


def range_test(
    model: GPT,
    optimizer: OptimizerFactory,
    batches: Iterable[Tensor],
    held_out: Sequence[Tensor],
    rates: Sequence[float],
    budget: Budget,
    *,
    lr: float,
    beta1: float | None,
    seed: int,
    clip: float | None,
    device: str,
    precision: str,
    told: Callable[[int, float], None] = lambda step, loss: None,
) -> list[float]:
    """Held-out loss after a step at each of the rates, in nats per token, as far as it goes: the last one may be a divergence.

    Args:
        model: freshly initialized; spoilt afterwards.
        optimizer: makes the optimizer, whose groups have their own peaks at ``lr``.
        batches: micro-batches of the training split, (rows, block_size + 1) each.
        held_out: likewise of the validation split.
        rates: peak learning rates, rising.
        budget: batch and accumulation of a step.
        lr: the peak that the optimizer is made with; a rate is a factor of it for every group.
        beta1: of the steps; None leaves the optimizer's.
        seed: of dropout.
        clip: global gradient norm, or None.
        device: ``cuda``, ``mps`` or ``cpu``.
        precision: Lightning's word for it.
        told: is given every step's number, from 1, and loss.
    Raises:
        TrainingError: a pass does not fit into the memory.
    """
    tokens = budget.tokens_per_step

    def ramp(seen: int, total: int) -> Factors:
        return Factors(rates[seen // tokens - 1] / lr, beta1)

    module = GPTModule(model, optimizer, ramp, budget, None, seed=seed, clip=clip, compile=False)  # type: ignore[arg-type]  # no bench: nothing is recorded
    try:
        module.to(device)  # all of it: batches go where the module says that it is
        return _ramp(module, iter(batches), held_out, len(rates), precision, told)
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise no_memory(budget) from error
        raise


def _ramp(
    module: GPTModule,
    batches: Iterator[Tensor],
    held_out: Sequence[Tensor],
    steps: int,
    precision: str,
    told: Callable[[int, float], None],
) -> list[float]:
    optimizer = module.configure_optimizers()
    scaler = torch.amp.GradScaler(module.device.type, enabled=precision == SCALED)
    module.scaler = scaler if scaler.is_enabled() else None
    losses: list[float] = []
    while len(losses) < steps and not has_diverged(losses):
        while not _step(module, optimizer, batches, precision, scaler):
            pass  # the gradients overflowed, the scale is lower now: the same rate again
        loss = evaluate(module.model, held_out, 1.0).loss
        losses.append(loss if torch.isfinite(module.step_loss) and torch.isfinite(module.grad_norm) else float("nan"))
        told(len(losses), losses[-1])
    return losses


def _step(
    module: GPTModule, optimizer: torch.optim.Optimizer, batches: Iterator[Tensor], precision: str, scaler: torch.amp.GradScaler
) -> bool:
    """One optimizer step, as Lightning drives the module; gives whether it took place, or was skipped by the loss scale."""
    for number in range(module.budget.accumulation):
        batch = to_device(next(batches), module.device)
        module.on_train_batch_start(batch, number)
        with forward_pass(module.device.type, precision):
            loss = module.training_step(batch, number) / module.budget.accumulation
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        module.micro_batches += 1
    scaler.unscale_(optimizer)
    module.on_before_optimizer_step(optimizer)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    module.micro_batches = 0
    if module.overflowed(module.step_loss.item(), module.grad_norm.item(), scaler.get_scale()):
        return False
    module.steps += 1
    return True
