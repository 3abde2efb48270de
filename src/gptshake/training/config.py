"""Schema of ``conf/trainer``: what Hydra accepts and the builder in ``training/trainer.py`` takes. Imports no torch."""

from dataclasses import dataclass
from typing import Any


@dataclass
class TrainerConfig:
    """Where, how exactly and how long a run trains; keys that this schema lacks go to Lightning's Trainer with ``+trainer.key=``."""

    _target_: str = "gptshake.training.trainer.build_trainer"
    accelerator: str = "auto"  # auto, cpu, gpu, mps
    strategy: str | None = None  # ddp, fsdp: how several devices share the work; null for one
    devices: Any = 1  # of this machine, auto or an integer
    precision: str = "auto"  # auto, 32-true, bf16-mixed, 16-mixed (GPU)
    threads: Any = "auto"  # CPU threads of each process, auto or an integer
    compile: bool = False  # torch.compile; falls back with its reason
    max_steps: int | None = None  # optimizer steps
    max_epochs: float | None = None  # passes over the training split
    max_tokens: int | None = None  # target tokens
    hours: float | None = None  # length by time, measured once at the start and frozen as steps
    max_time: str | None = None  # DD:HH:MM:SS, a guard that never enters the schedule
    val_check_interval: Any = "auto"  # optimizer steps between validations; auto is 20 a run
    limit_val_batches: int | None = None  # validate on so many batches only; null is the whole split
    gradient_clip_val: float | None = 1.0  # global norm; null switches clipping off
    patience: int | None = None  # validations without a better loss before the run stops
    save_minutes: float = 10.0  # checkpoint at least this often, and at every validation
    price_per_hour: float | None = None  # of the machine, in any currency; the record then holds the price
