"""What stands around a training: the run record, the tokenizer, the trackers. Callbacks find it as ``module.bench``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from gptshake.distributed import ALONE, Ranks
from gptshake.errors import ConfigError
from gptshake.record.metrics import COLUMNS, Row
from gptshake.record.run import Run
from gptshake.record.trackers.protocol import Tracker
from gptshake.tokenizer.protocol import Tokenizer
from gptshake.training.evaluation import Evaluation

OWN = ("steps", "skipped_steps", "test/loss", "test/bpb")  # of the run's summary, in which what callbacks log stands too


@dataclass
class Bench:
    """The surroundings of one training, and the figures of its last finished step."""

    run: Run
    tokenizer: Tokenizer
    entropy: dict[str, float]  # nats per token: uniform, unigram, bigram
    validate: Callable[[], Evaluation]
    draw: Callable[[Path], list[Path]]  # run directory -> pictures
    trackers: list[Tracker]
    flops_per_token: float | None  # None: not known
    peak_flops: float  # of all devices in the run's precision
    ranks: Ranks = ALONE  # this process among those that train together
    row: Row = field(default_factory=dict)  # of the last step whose values have arrived; on a GPU that is the step before
    logged: dict[str, float | Tensor] = field(default_factory=dict)  # what the row of the step at work gets besides our own columns
    best_step: int | None = None
    best_loss: float = float("inf")
    validations_since_best: int = 0
    skipped_steps: int = 0  # by 16-mixed, whose loss scale was too large
    expected_rate: float | None = None  # tokens per second, roughly; None where several processors do not share one process's work
    elapsed_s: float = 0.0  # training time of earlier sittings of a resumed run

    def log(self, metrics: Mapping[str, float | Tensor]) -> None:
        """Add numbers to the row of the step at work; a tensor of one number stays where it is, and nobody waits for it.

        Raises:
            ConfigError: a name that the row has already, or more than one number.
        """
        for name, value in metrics.items():
            if name in COLUMNS or name.startswith("best/") or name in OWN:
                raise ConfigError(f"{name} is measured by gptshake; log it under another name.")
            if isinstance(value, Tensor):
                if value.numel() != 1:
                    raise ConfigError(f"{name} has {value.numel()} values, and a metric is one number: log its mean, for one.")
                self.logged[name] = value.detach()
            else:
                self.logged[name] = float(value)
