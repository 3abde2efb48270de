"""Schema of ``hydra.sweeper`` for our sweeper: what any Hydra app may set. Imports nothing heavy, for Hydra scans it at every start."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(repr=False, eq=False)
class SweeperConfig:
    """How a study searches, how long, and with how many runs at once."""

    _target_: str = "hydra_plugins.gptshake_sweeper.sweeper.GptshakeSweeper"
    study: str | None = None  # its folder below hydra.sweep.dir; the same name again continues it
    objective: str | None = None  # which of the numbers that a task returns; null: the task returns one number
    direction: str = "minimize"  # or maximize
    n_trials: int | None = None  # trials to finish; null: 20, the whole grid, or until the result of one axis is certain
    hours: float | None = None  # choose n_trials so that the study takes about so long
    timeout: float | None = None  # seconds after which no new trial begins
    trial_timeout: float | None = None  # seconds after which a run is ended and counted as failed
    seed: int = 0  # of what is proposed; the runs have their own
    deterministic: bool = False  # propose the same whatever the order in which runs finish; slots may wait
    repeats: int = 1  # runs of every point, with seeds that are the same for all points
    seed_key: str = "seed"  # the app's key for a run's seed, used by repeats and confirm
    confirm: int = 0  # runs with fresh seeds for each of the best points, before a winner is named
    noise: bool = True  # where one axis is searched until the result is certain: a second seed of the best and of its better neighbour
    enqueue: list[Any] = field(default_factory=list)  # points to try first, such as [{optimizer.lr: 3e-4}]
    ablate: list[str] = field(default_factory=list)  # changes to compare with the base: each alone, then all together
    keep: int = 3  # best trials whose weights are kept
    max_failures: int = 5  # failed trials after which no new trial begins
    search_space: Any = None  # key -> range, for key=range
    sampler: Any = None  # an Optuna sampler, to be called with seed=, for ranges; null: a line search for one, TPE for several
    pruner: Any = None  # an Optuna pruner; null: gptshake.sweep.pruning.Patient
    executor: Any = None  # where runs happen; null: slots of this machine
    trial: Any = None  # filled in for each run: study, number, repeat, params
