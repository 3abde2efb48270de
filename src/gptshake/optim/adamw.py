"""torch's AdamW on our parameter groups, fused where the device has a fused kernel (one pass over memory instead of a dozen)."""

from collections.abc import Iterable

import torch
from torch import Tensor

from gptshake.errors import ConfigError
from gptshake.optim.groups import decay_groups

FUSED_DEVICES = {"cpu", "cuda"}


def adamw(
    named_parameters: Iterable[tuple[str, Tensor]],
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    fused: bool | str = "auto",
) -> torch.optim.AdamW:
    """AdamW with decay on matrices only (``decay_groups``); defaults of GPT-3 (Brown et al. 2020, appendix B).

    Every group has ``lr`` as its own peak. A schedule multiplies the peaks, so groups that differ keep their ratio.

    Args:
        named_parameters: on the device on which they will be trained.
        lr: peak learning rate.
        beta1: memory of the gradient.
        beta2: memory of its square.
        eps: added to the root of the second moment.
        weight_decay: decoupled, so a step shrinks a matrix by lr x weight_decay.
        fused: ``auto`` is true where every parameter lies on a device with the kernel.
    Raises:
        ConfigError: another word than ``auto`` for ``fused``, or a value that AdamW refuses.
    """
    if fused != "auto" and not isinstance(fused, bool):
        raise ConfigError(f"optimizer.fused={fused} is not understood: write auto, true or false.")
    named = list(named_parameters)
    use_fused = all(parameter.device.type in FUSED_DEVICES for _, parameter in named) if fused == "auto" else bool(fused)
    try:
        return torch.optim.AdamW(decay_groups(named, weight_decay), lr=lr, betas=(beta1, beta2), eps=eps, fused=use_fused)
    except ValueError as error:
        raise ConfigError(f"The optimizer cannot be made: {error}.") from error
