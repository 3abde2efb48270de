"""Schemas of ``conf/optimizer`` and ``conf/scheduler``: what Hydra accepts and the functions beside this file take. Imports no torch.

A key is explained where its meaning is, in ``adamw.py``, ``sgd.py`` and ``schedule.py``; a test holds these fields equal to their parameters.
"""

from dataclasses import dataclass, field
from typing import Any

from gptshake.optim.groups import GroupRule


@dataclass
class AdamWConfig:
    """AdamW; the parameters come when the network is there."""

    lr: float  # peak learning rate; the schedule multiplies it
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1  # on matrices only
    fused: Any = "auto"  # auto, true or false
    embedding_lr_mult: float = 1.0
    groups: list[GroupRule] = field(default_factory=list)
    _target_: str = "gptshake.optim.adamw.adamw"
    _partial_: bool = True


@dataclass
class SGDConfig:
    """SGD with momentum."""

    lr: float  # peak learning rate; the schedule multiplies it
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0  # on matrices only
    fused: Any = "auto"  # auto, true or false
    embedding_lr_mult: float = 1.0
    groups: list[GroupRule] = field(default_factory=list)
    _target_: str = "gptshake.optim.sgd.sgd"
    _partial_: bool = True


@dataclass
class GPT3Config:
    """GPT-3's schedule."""

    warmup: Any = "auto"  # auto, a fraction of the run (below 1) or tokens (from 1 on)
    decay: Any = "auto"  # likewise; where the floor is reached
    floor: float = 0.1  # fraction of the peak
    _target_: str = "gptshake.optim.schedule.gpt3"
    _partial_: bool = True


@dataclass
class OneCycleConfig:
    """The one-cycle policy: learning rate and beta1."""

    pct_start: float = 0.3  # fraction of the run at which the peak is reached
    div_factor: float = 25.0  # peak / initial learning rate
    final_div_factor: float = 1e4  # initial / final learning rate
    beta1_max: float = 0.95
    beta1_min: float = 0.85
    _target_: str = "gptshake.optim.schedule.one_cycle"
    _partial_: bool = True


@dataclass
class CosineConfig:
    """Warm-up, then a cosine to the end of the run."""

    warmup: Any = "auto"  # auto, a fraction of the run (below 1) or tokens (from 1 on)
    floor: float = 0.1  # fraction of the peak at the end
    _target_: str = "gptshake.optim.schedule.cosine"
    _partial_: bool = True


@dataclass
class ConstantConfig:
    """Warm-up, then the peak for as long as the run lasts."""

    warmup: Any = "auto"  # auto, a fraction of the run (below 1) or tokens (from 1 on)
    _target_: str = "gptshake.optim.schedule.constant"
    _partial_: bool = True


@dataclass
class LinearConfig:
    """Warm-up, then a straight line to the end of the run."""

    warmup: Any = "auto"  # auto, a fraction of the run (below 1) or tokens (from 1 on)
    floor: float = 0.0  # fraction of the peak at the end
    _target_: str = "gptshake.optim.schedule.linear"
    _partial_: bool = True


@dataclass
class WSDConfig:
    """Warm-up, stable, decay."""

    warmup: Any = "auto"  # auto, a fraction of the run (below 1) or tokens (from 1 on)
    cooldown: float = 0.4  # likewise; length of the decay at the end
    shape: str = "sqrt"  # sqrt or linear
    floor: float = 0.0  # fraction of the peak at the end
    _target_: str = "gptshake.optim.schedule.wsd"
    _partial_: bool = True
