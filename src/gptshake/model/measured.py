"""Costs of a network whose config does not say them: built on the meta device, without memory, and counted there.

Parameters are exact. FLOPs are what torch counts in one forward pass; a network that torch cannot follow there, or in which it sees
fewer operations than two per parameter and token, has costs that are "not known". Memory of activations is not known.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gptshake.model.config import Costs, GPTConfig

LEAST = 0.9  # of 6 FLOPs per value: fewer are a sign that torch did not see them (gains and biases are no products)


def costs_of(build: Callable[[], nn.Module], block_size: int) -> Costs:
    """What a network costs: its own ``config`` if that says it, else what is counted; ``build`` makes it without memory."""
    with torch.device("meta"):
        network = build()
    config: Any = getattr(network, "config", None)
    return config if hasattr(config, "num_params") and not isinstance(config, GPTConfig) else MeasuredCosts(network, block_size)


class MeasuredCosts:
    """``model.config.Costs`` of any network on the meta device that gives logits of token ids."""

    def __init__(self, network: nn.Module, block_size: int) -> None:
        self.block_size = block_size
        self._flops: int | None = None
        self._params = sum(parameter.numel() for parameter in network.parameters())
        self._embedding = sum(
            {id(part.weight): part.weight.numel() for part in network.modules() if isinstance(part, nn.Embedding)}.values()
        )
        try:
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                network(torch.zeros(1, block_size, dtype=torch.int64, device="meta"))
        except RuntimeError:  # an operation without a meta kernel, or a value that is asked for
            return
        flops = 3 * counter.get_total_flops() // block_size  # a training step is three forward passes
        if flops >= 6 * LEAST * self.num_params(non_embedding=True):
            self._flops = flops

    def num_params(self, non_embedding: bool = False) -> int:
        return self._params - (self._embedding if non_embedding else 0)

    def flops_per_token(self) -> int | None:
        return self._flops

    def activation_bytes(self, micro_batch_size: int, *, value_bytes: int = 2, on_cpu: bool = False) -> int | None:
        return None
