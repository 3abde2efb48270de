"""torch's AdamW on our parameter groups, fused where the device has a fused kernel."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gptshake.errors import ConfigError
from gptshake.optim.groups import parameter_groups, use_fused

if TYPE_CHECKING:  # the schema of the config is made from the signature, before torch is needed
    import torch


def adamw(
    named_parameters: "Iterable[tuple[str, torch.Tensor]]",
    lr: float,
    beta1: float = 0.9,
    beta2: float = 0.95,
    eps: float = 1e-8,
    weight_decay: float = 0.1,
    fused: bool | str = "auto",
    embedding_lr_mult: float = 1.0,
    groups: Sequence[Mapping[str, Any]] = (),
) -> "torch.optim.AdamW":
    """AdamW with decay on matrices only; defaults of GPT-3 (Brown et al. 2020, appendix B). conf/optimizer/adamw.yaml describes the options.

    The parameters lie where they will be trained. Every group has a peak of its own, which a schedule multiplies, so groups keep their ratio.

    Raises:
        ConfigError: a rule that fits nothing, or a value that AdamW refuses.
    """
    from torch.optim import AdamW

    named = list(named_parameters)
    settings = parameter_groups(named, lr, weight_decay, groups=groups, embedding_lr_mult=embedding_lr_mult)
    one_kernel = use_fused(fused, (parameter for _, parameter in named))
    try:
        return AdamW(settings, lr=lr, betas=(beta1, beta2), eps=eps, fused=one_kernel)
    except ValueError as error:
        raise ConfigError(f"The optimizer cannot be made: {error}.") from error
