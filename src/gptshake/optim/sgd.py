"""torch's SGD with momentum on our parameter groups: the plain method that others are compared with."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gptshake.errors import ConfigError
from gptshake.optim.groups import parameter_groups, use_fused

if TYPE_CHECKING:  # the schema of the config is made from the signature, before torch is needed
    import torch


def sgd(
    named_parameters: "Iterable[tuple[str, torch.Tensor]]",
    lr: float,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    fused: bool | str = "auto",
    embedding_lr_mult: float = 1.0,
    groups: Sequence[Mapping[str, Any]] = (),
) -> "torch.optim.SGD":
    """Stochastic gradient descent with momentum (Polyak 1964; Nesterov's form after Sutskever et al. 2013); arguments as in ``adamw``.

    A schedule that moves beta1 moves the momentum here; the decay is added to the gradient (coupled, unlike AdamW's).
    """
    from torch.optim import SGD

    named = list(named_parameters)
    settings = parameter_groups(named, lr, weight_decay, groups=groups, embedding_lr_mult=embedding_lr_mult)
    one_kernel = use_fused(fused, (parameter for _, parameter in named), slices=False)
    try:
        return SGD(settings, lr=lr, momentum=momentum, nesterov=nesterov, fused=one_kernel)
    except ValueError as error:
        raise ConfigError(f"The optimizer cannot be made: {error}.") from error
