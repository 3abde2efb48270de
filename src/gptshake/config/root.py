"""Schema of the root of the config: plain keys with their defaults, and every group as a free place."""

from dataclasses import dataclass
from typing import Any


@dataclass
class RootConfig:
    """Root keys; anything else at the root needs a ``+``."""

    seed: int = 1337  # of initial weights, order of blocks, dropout
    note: str = ""  # free text for the record
    dirty: bool = False  # run although sources or config are not committed (also --dirty)
    resume: str | None = None  # run directory, name or id to continue
    init_from: str | None = None  # run whose best weights to start from
    study: str | None = None  # a sweep's name, below multirun/; null: what is swept names it
    deterministic: bool = False  # ask torch for deterministic algorithms (slower on a GPU)
    conf_shadow: bool = False  # allow files in ./conf to replace packaged options of the same name
    preset: Any = None  # what a model recommends: lr, batch_size or batch_tokens
    paths: Any = None
    tokenizer: Any = None
    optimizer: Any = None
    scheduler: Any = None
    data: Any = None
    model: Any = None
    trainer: Any = None
    logger: Any = None
    callbacks: Any = None
    search_space: Any = None
    sampler: Any = None
    pruner: Any = None
    executor: Any = None
    task: Any = None
    experiment: Any = None
    debug: Any = None
