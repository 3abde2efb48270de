"""``trainer.compile``: the loss compiled, or the reason why it cannot be."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from gptshake.errors import first_line
from gptshake.model.gpt import GPT
from gptshake.training.device import fork_rng, out_of_memory

Loss = Callable[[Tensor, Tensor], Tensor]


def compiled_loss(model: GPT, batch: Tensor) -> tuple[Loss, str]:
    """The loss to train with, and a sentence: the compiled one, tried forward and backward on ``batch``, or else the network's own.

    To be called under the precision of the passes. Random numbers and gradients stay as they are.

    Raises:
        RuntimeError, MemoryError: memory ran out, which is no fault of the compiler.
    """
    compiled, began = torch.compile(model.loss), time.perf_counter()
    try:
        with fork_rng(batch.device), torch.enable_grad():
            loss = compiled(batch[:, :-1], batch[:, 1:])
            torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad])
    except Exception as error:  # whatever the compiler stumbles over, the run can go on without it
        if out_of_memory(error):
            raise
        return model.loss, f"torch.compile failed, training continues without it: {first_line(error)}"
    return compiled, f"torch.compile took {time.perf_counter() - began:.1f} s ({_cache_use()})"


def _cache_use() -> str:
    """Whether the compiler found its graphs in its cache, from its own counters."""
    from torch._dynamo.utils import counters

    hits, misses = (sum(counters["inductor"][f"fxgraph_cache_{kind}"] for kind in kinds) for kinds in (("hit",), ("miss", "bypass")))
    return "graphs from its cache" if hits and not misses else f"{misses} of {hits + misses} graphs built anew"
