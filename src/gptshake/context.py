"""What a task works with: the config, the run as it was asked for, token store and plan, and the record that a training fills.

Every task is ``run(context)``; store and plan are opened on first use, so one that only reads records opens neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptshake.distributed import ALONE, Ranks
from gptshake.errors import ConfigError
from gptshake.estimate.budget import Budget
from gptshake.record.git import Code
from gptshake.record.metrics import COLUMNS, Row

if TYPE_CHECKING:
    from gptshake.record.run import Run
    from gptshake.record.trackers.protocol import Tracker

RESERVED = (*COLUMNS, "steps", "skipped_steps", "test/loss", "test/bpb")  # names in a row or in the summary of a run


@dataclass(frozen=True)
class RunSpec:
    """One run as it was asked for: what the command line knows of it before it begins."""

    id: str
    name: str
    path: Path  # run directory
    overrides: list[str]  # as typed, so that the run becomes a config again
    choices: dict[str, str]  # group -> option
    provenance: dict[str, Any] = field(default_factory=dict)
    resumes: bool = False  # ``path`` holds a run already
    trial: dict[str, Any] | None = None  # of a sweep: study, number, repeat, params
    code: Code = field(default_factory=Code)  # with the uncommitted changes of the moment when the command began
    command: list[str] = field(default_factory=list)  # the whole command line, sweeps too, for a task that writes it down
    local_conf: dict[str, bytes] = field(default_factory=dict)  # the user's own ./conf, and Python files that it names


@dataclass
class Context:
    """One run of a task; callbacks find that of their training as ``pl_module.context``.

    Args:
        config: composed and checked; the plan writes into it what each ``auto`` means.
        spec: the run as it was asked for.
        open_store: opens the token store.
        make_plan: decides batch, length, device and precision.
        lines: what was printed while the store was opened, for the record.
        ranks: this process among those that train together.
        initial: the weights that a run starts from (``setup.initial``), until the network has them.
        trackers: trackers that mirror the record.
        draw: draws the curves of a run directory, and gives the pictures.
        flops_per_token: of the network; None: not known.
        peak_flops: of all devices in the run's precision.
        row: of the last step whose values have arrived; on a GPU that is the step before.
        logged: what the row of the current step gets besides our own columns.
    """

    config: Any
    spec: RunSpec
    open_store: Callable[[Context], Any]
    make_plan: Callable[[Context], Budget]
    lines: list[str] = field(default_factory=list)
    ranks: Ranks = ALONE
    initial: Any = None
    trackers: list[Tracker] = field(default_factory=list)
    draw: Callable[[Path], list[Path]] = lambda folder: []
    flops_per_token: float | None = None
    peak_flops: float = 1.0
    row: Row = field(default_factory=dict)
    logged: dict[str, Any] = field(default_factory=dict)
    run: Run = field(init=False, repr=False)  # the record, once the training has opened it

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

    def log(self, metrics: Mapping[str, Any]) -> None:
        """Add numbers to the row of the current step; a scalar tensor stays where it is, and nobody waits for its device.

        Raises:
            ConfigError: a name that gptshake uses itself, or more than one number.
        """
        for name, value in metrics.items():
            if name in RESERVED or name.startswith("best/"):
                raise ConfigError(f"{name} is measured by gptshake; log it under another name.")
            if not hasattr(value, "detach"):
                self.logged[name] = float(value)
            elif value.numel() == 1:
                self.logged[name] = value.detach()
            else:
                raise ConfigError(f"{name} has {value.numel()} values, and a metric is one number: log its mean, for one.")
