"""Loss over every target of a split: no sampling, no dropout, no global random numbers."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from gptshake.model.gpt import GPT
from gptshake.ranks import ALONE, Ranks


@dataclass(frozen=True)
class Evaluation:
    """Result over a split."""

    loss: float  # nats per token
    bpb: float  # bits per UTF-8 byte of the text that the targets cover
    tokens: int  # targets scored


@torch.no_grad()
def evaluate(
    model: GPT,
    batches: Iterable[Tensor],
    bytes_per_target: float,
    hidden_nats: float = 0.0,
    *,
    between: Callable[[], None] = lambda: None,
    ranks: Ranks = ALONE,
) -> Evaluation:
    """Score every target in ``batches``.

    Args:
        model: the network; its training mode is restored afterwards.
        batches: token ids (rows, T + 1), int64.
        bytes_per_target: UTF-8 bytes of the split's text per target token.
        hidden_nats: what the text under unknown tokens costs, in nats per target token (see ``tokenizer.unknown``).
        between: called after every batch (a heartbeat, a question for signals).
        ranks: that share the batches, and all learn the result.
    Returns:
        bpb = (sum of losses + cost of what unknown tokens hide) / (ln 2 x bytes).
    """
    was_training, device = model.training, next(model.parameters()).device
    total, tokens = torch.zeros((), dtype=torch.float64), 0
    model.eval()
    try:
        for batch, counts in ranks.share(batches):
            ids = batch.to(device)
            loss = model.loss(ids[:, :-1], ids[:, 1:], reduction="sum").double().cpu()
            if counts:
                total, tokens = total + loss, tokens + ids[:, 1:].numel()
            between()
    finally:
        model.train(was_training)
    loss_sum, scored = ranks.total(total.item(), tokens)
    mean = loss_sum / scored
    return Evaluation(mean, (mean + hidden_nats) / (math.log(2) * bytes_per_target), int(scored))
