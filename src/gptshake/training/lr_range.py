"""The range test itself: a training whose schedule is a ramp, on a network that is thrown away.

After each step the loss on fixed held-out batches is taken, in fp32 like every validation, which is free of the noise of drawing
batches; it costs half a step's time more, or less.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from gptshake.estimate.lr_range import has_diverged
from gptshake.optim.schedule import Factors, Schedule
from gptshake.training.device import no_memory, out_of_memory
from gptshake.training.evaluation import evaluate
from gptshake.training.step import Step


def ramp(rates: Sequence[float], tokens_per_step: int, *, lr: float, beta1: float | None) -> Schedule:
    """The schedule whose steps have these rates, for an optimizer made with the peak ``lr``; every group keeps its share of it."""

    def factors(seen: int, total: int) -> Factors:
        return Factors(rates[min(seen // tokens_per_step, len(rates)) - 1] / lr, beta1)

    return factors


def range_test(
    step: Step,  # with a ``ramp`` for its schedule, its network on the device where it shall train; spoilt afterwards
    batches: Iterable[Tensor],  # micro-batches of the training split, (rows, block_size + 1) each
    held_out: Sequence[Tensor],  # likewise of the validation split
    steps: int,  # rates of the ramp
    report: Callable[[int, float], None] = lambda number, loss: None,  # gets every step's number, from 1, and loss
) -> list[float]:
    """Held-out loss after each of the steps, in nats per token, as far as it goes: the last one may be a divergence."""
    step.budget = replace(step.budget, steps=steps)
    source = iter(batches)
    losses: list[float] = []
    try:
        step.prepare()
        while len(losses) < steps and not has_diverged(losses):
            for _ in range(step.budget.accumulation):
                step.micro_batch(next(source))
            step.update()
            loss, norm = step.loss.item(), step.grad_norm.item()
            if step.scaler is not None and step.overflowed(loss, norm, step.scaler.get_scale()):
                step.steps -= 1  # the scale is lower now: the same rate again
                step.begin()
                continue
            finite = torch.isfinite(step.loss) and torch.isfinite(step.grad_norm)
            losses.append(evaluate(step.model, held_out)[0] if finite else float("nan"))
            report(len(losses), losses[-1])
    except (MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            raise no_memory(step.budget) from error
        raise
    return losses
