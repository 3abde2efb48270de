"""How long the real step takes here: a few passes on random tokens, with a network of its own that is thrown away."""

import time

import torch
from torch import nn

from gptshake.estimate.budget import Budget

PASSES = 4  # the first is warm-up
MOST_SECONDS = 20.0


def micro_batch_seconds(model: nn.Module, budget: Budget, device: str, precision: str) -> float:
    """Seconds of one forward and backward pass of a micro-batch, the median of a few; an estimate, for other runs may share the machine.

    Args:
        model: a network with ``loss(inputs, targets)``; its gradients are left behind.
        budget: sizes of the micro-batch.
        device: ``cuda``, ``mps`` or ``cpu``.
        precision: Lightning's word for it.
    """
    model.to(device)
    vocabulary = int(next(model.parameters()).shape[0])
    size = (budget.micro_batch_size, budget.block_size + 1)
    tokens = torch.randint(vocabulary, size, generator=torch.Generator().manual_seed(0)).to(device)
    taken: list[float] = []
    while len(taken) < PASSES and sum(taken) < MOST_SECONDS:
        start = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=precision.startswith("bf16")):
            loss = model.loss(tokens[:, :-1], tokens[:, 1:])  # type: ignore[operator]
        loss.backward()
        model.zero_grad(set_to_none=True)
        loss.item()  # waits for the device
        taken.append(time.perf_counter() - start)
    later = sorted(taken[1:] or taken)
    return later[len(later) // 2]
