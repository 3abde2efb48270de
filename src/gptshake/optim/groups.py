"""Which parameters are decayed: a rule on shapes alone, so that it needs no torch and no network to be tested.

GPT-3's paper says "weight decay of 0.1" and not of what. nanoGPT's rule is taken: whatever has two dimensions (matrices, the
embeddings included) decays, gains and biases do not.
"""

from collections.abc import Iterable
from typing import Any, Protocol


class Parameter(Protocol):
    """What the rule looks at."""

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        ...

    @property
    def requires_grad(self) -> bool:
        """Whether it is trained at all."""
        ...


def decay_groups(named_parameters: Iterable[tuple[str, Parameter]], weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups: first the decayed parameters, then the others; frozen ones in neither, and no group without a member.

    Args:
        named_parameters: name and parameter, as ``nn.Module.named_parameters()`` gives them; their order is kept.
        weight_decay: of the first group; the second has 0.
    Returns:
        At most two dicts with the keys ``params`` and ``weight_decay``.
    """
    trained = [parameter for _, parameter in named_parameters if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
