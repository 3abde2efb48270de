"""What a task works with: the config, the run as it was asked for, and token store and plan, which are opened on first use.

Every task is ``run(context)``; one that only reads records opens neither.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gptshake.estimate.budget import Budget
from gptshake.record.launch import Launch


@dataclass
class Context:
    """One run of a task.

    Args:
        config: composed and checked; making the plan freezes in it what was left to ``auto``.
        launch: the run as it was asked for.
        open_store: opens the token store.
        make_plan: decides batch, length, device and precision.
        lines: what was printed while the store was opened, for the record.
    """

    config: Any
    launch: Launch
    open_store: Callable[["Context"], Any]
    make_plan: Callable[["Context"], Budget]
    lines: list[str] = field(default_factory=list)

    @cached_property
    def store(self) -> Any:
        """The opened token store (``data.store.TokenStore``)."""
        return self.open_store(self)

    @cached_property
    def plan(self) -> Budget:
        """Batch, steps and tokens of the run."""
        return self.make_plan(self)

    @property
    def device(self) -> str:
        """torch's word for the device of a planned run."""
        accelerator = str(self.config.trainer.accelerator)
        return {"gpu": "cuda"}.get(accelerator, accelerator)
