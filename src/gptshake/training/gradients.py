"""Gradient norms of parts of a batch at fixed weights: what the noise scale is made of. Leaves weights, gradients and random numbers alone."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from gptshake.estimate.noise_scale import Measurement
from gptshake.training.device import fork_rng, forward_pass, to_device


def norm2(norms: Sequence[Tensor]) -> Tensor:
    """Squared global norm, a scalar, from the norms of the tensors that it is made of."""
    return torch.stack([norm.float() for norm in norms]).square().sum()


def part_norms2(model: nn.Module, parts: Sequence[Tensor], *, seed: int, precision: str = "32-true") -> list[Tensor]:
    """Squared norms of the loss's gradient on each part; a last part that is smaller than the first is left out.

    Args:
        model: a network with ``loss(inputs, targets)``, a mean over tokens.
        parts: token ids (rows, T + 1).
        seed: of dropout.
        precision: Lightning's word for it.
    """
    with fork_rng(parts[0].device), torch.enable_grad():
        torch.manual_seed(seed)
        whole = [part for part in parts if len(part) == len(parts[0])]
        return [norm2([torch.linalg.vector_norm(one) for one in _gradient(model, part, precision)]) for part in whole]


def measure(
    model: nn.Module, batches: Iterable[Tensor], groups: int, parts: int, *, steps: int, tokens: int, precision: str = "32-true"
) -> Iterator[Measurement]:
    """Measurements at the weights as they are: each compares ``parts`` gradients with their mean.

    Args:
        model: as above; in the mode (dropout) in which it was trained.
        batches: token ids (rows, T + 1), endless, all of one size.
        groups: measurements.
        parts: batches of one measurement, at least 2.
        steps, tokens: how far the training was.
        precision: Lightning's word for it; 16-mixed, whose small gradients would need a loss scale, is measured in fp32.
    """
    source = iter(batches)
    device = next(model.parameters()).device
    for _ in range(groups):
        total: list[Tensor] = []
        norms: list[float] = []
        for _ in range(parts):
            batch = to_device(next(source), device)
            gradient = _gradient(model, batch, "32-true" if precision == "16-mixed" else precision)
            norms.append(norm2([torch.linalg.vector_norm(one) for one in gradient]).item())
            total = [old + new for old, new in zip(total, gradient, strict=True)] if total else list(gradient)
        whole = norm2([torch.linalg.vector_norm(one / parts) for one in total]).item()
        yield Measurement(steps, tokens, len(batch), parts * len(batch), sum(norms) / parts, whole)


def _gradient(model: nn.Module, batch: Tensor, precision: str) -> tuple[Tensor, ...]:
    with forward_pass(batch.device.type, precision):
        loss = model.loss(batch[:, :-1], batch[:, 1:])  # type: ignore[operator]
    return torch.autograd.grad(loss, list(model.parameters()))
