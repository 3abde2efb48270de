"""The range test itself: a training whose schedule is a ramp, on a network that is thrown away.

Groups, multipliers, clipping, dropout and accumulation are ``GPTModule``'s own, so a step is the step of a real run. After each one the
loss on fixed held-out batches is taken, which is free of the noise of drawing batches. The price: half a step's time more, or less.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from torch import Tensor

from gptshake.errors import TrainingError
from gptshake.estimate.budget import Budget
from gptshake.estimate.lr_range import has_diverged
from gptshake.model.gpt import GPT
from gptshake.optim.schedule import Factors
from gptshake.training.evaluation import evaluate
from gptshake.training.module import GPTModule, OptimizerFactory

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


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

    module = GPTModule(model.to(device), optimizer, ramp, budget, None, seed=seed, clip=clip, compile=False)  # type: ignore[arg-type]  # no bench: nothing is recorded
    with torch.autocast(device, AUTOCAST.get(precision, torch.bfloat16), enabled=precision in AUTOCAST):
        try:
            return _ramp(module, iter(batches), held_out, len(rates), torch.amp.GradScaler(device, enabled=precision == "16-mixed"), told)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error):
                raise TrainingError(_no_memory(budget)) from error
            raise


def _ramp(
    module: GPTModule,
    batches: Iterator[Tensor],
    held_out: Sequence[Tensor],
    steps: int,
    scaler: torch.amp.GradScaler,
    told: Callable[[int, float], None],
) -> list[float]:
    optimizer = module.configure_optimizers()
    losses: list[float] = []
    while len(losses) < steps and not has_diverged(losses):
        _step(module, optimizer, batches, scaler)
        loss = evaluate(module.model, held_out, 1.0).loss
        losses.append(loss if torch.isfinite(module.step_loss) and torch.isfinite(module.grad_norm) else float("nan"))
        told(len(losses), losses[-1])
    return losses


def _step(module: GPTModule, optimizer: torch.optim.Optimizer, batches: Iterator[Tensor], scaler: torch.amp.GradScaler) -> None:
    """One optimizer step, as Lightning drives the module."""
    for number in range(module.budget.accumulation):
        batch = next(batches).to(module.device)
        module.on_train_batch_start(batch, number)
        loss = module.training_step(batch, number) / module.budget.accumulation
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        module.micro_batches += 1
    scaler.unscale_(optimizer)
    module.on_before_optimizer_step(optimizer)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad(set_to_none=True)
    module.steps, module.micro_batches = module.steps + 1, 0


def _no_memory(budget: Budget) -> str:
    size = f"{budget.micro_batch_size} sequence{'s' if budget.micro_batch_size > 1 else ''} of {budget.block_size} tokens"
    way = (
        f"data.micro_batch_size={max(1, budget.micro_batch_size // 2)}"
        if budget.micro_batch_size > 1
        else "a smaller model or model.block_size"
    )
    return f"There is not enough memory for {size} at once: try {way}."
