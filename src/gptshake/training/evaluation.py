"""Loss over every target of a split: no sampling, no dropout, no global random numbers. In fp32, whatever the training's precision."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from gptshake.distributed import ALONE, Ranks
from gptshake.model.gpt import GPT
from gptshake.training.device import forward_pass, to_device

LOGITS, ROWS = 1 << 25, 64  # most logits, and most windows, that are computed at once where each token's loss is asked for
Ints = npt.NDArray[np.integer[Any]]
HELD = 64  # losses that stay on the device before they are read, so that it is not waited for at every batch


@torch.no_grad()
def evaluate(
    model: GPT,
    batches: Iterable[Tensor],  # token ids (rows, T + 1), int64
    *,
    most: int | None = None,  # of the batches, from the first on; None: all
    between: Callable[[], None] = lambda: None,  # called before every batch (a heartbeat, a question for signals)
    ranks: Ranks = ALONE,  # that share the batches, and all learn the result
) -> tuple[float, int]:
    """Score every target in ``batches``: mean loss in nats per token, and how many targets; the model's mode is restored."""
    was_training, device = model.training, next(model.parameters()).device
    total, tokens = 0.0, 0
    held: list[Tensor] = []
    model.eval()
    try:
        for batch, counts in ranks.shard(batches, most):
            between()
            ids = to_device(batch, device)
            with forward_pass(device.type, "32-true"):  # also where the caller's own passes are shorter
                loss = model.loss(ids[:, :-1], ids[:, 1:], reduction="sum")
            if counts:
                held.append(loss)
                tokens += ids[:, 1:].numel()
            if len(held) == HELD:
                total, held = _added(total, held), []
    finally:
        model.train(was_training)
    loss_sum, scored = ranks.all_reduce_sum(_added(total, held), tokens)
    return loss_sum / scored, int(scored)


@torch.no_grad()
def token_losses(model: GPT, ids: Ints, windows: Ints) -> Iterator[tuple[Ints, Ints, npt.NDArray[np.floating[Any]]]]:
    """Of every scored token its position in ``ids``, the length of its context, and its loss in nats; some windows at a time, shape (n,) each.

    The model is in evaluation mode, ``ids`` has the shape (n_tokens,), and ``windows`` are those of ``data.stream.scoring_windows``.
    """
    device = next(model.parameters()).device
    rows = max(1, min(ROWS, LOGITS // (model.config.block_size * (model.config.vocab_size or 1))))
    for first in range(0, len(windows), rows):
        begin, scored, end = windows[first : first + rows, :, None].transpose(1, 0, 2)
        places = begin + np.arange((end - begin).max() + 1)  # what is behind the end of a shorter one is read, but not scored
        block = to_device(torch.from_numpy(ids[np.minimum(places, len(ids) - 1)].astype(np.int64)), device)
        with forward_pass(device.type, "32-true"):
            losses = F.cross_entropy(model(block[:, :-1]).flatten(0, 1).float(), block[:, 1:].flatten(), reduction="none")
        wanted = (places > scored) & (places <= end)
        yield places[wanted], (places - begin)[wanted], losses.view(len(block), -1).cpu().numpy()[wanted[:, 1:]]


def bits_per_byte(loss: float, bytes_per_target: float, hidden_nats: float = 0.0) -> float:
    """Bits per UTF-8 byte of a text, the figure that compares across tokenizers, from nats per token and what text under unknown tokens costs."""
    return (loss + hidden_nats) / (math.log(2) * bytes_per_target)


def _added(total: float, losses: list[Tensor]) -> float:
    """The sum one by one in fp64, which not every device has."""
    for loss in torch.stack(losses).tolist() if losses else ():
        total += loss
    return total
