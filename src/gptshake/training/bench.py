"""What stands around a training: the run record, the tokenizer, the sinks. Callbacks find it as ``module.bench``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gptshake.ranks import ALONE, Ranks
from gptshake.record.metrics import Row
from gptshake.record.run import Run
from gptshake.record.sinks.protocol import Sink
from gptshake.tokenizer.protocol import Tokenizer
from gptshake.training.evaluation import Evaluation


@dataclass
class Bench:
    """The surroundings of one training, and the figures of its last finished step."""

    run: Run
    tokenizer: Tokenizer
    entropy: dict[str, float]  # nats per token: uniform, unigram, bigram
    validate: Callable[[], Evaluation]
    draw: Callable[[Path], list[Path]]  # run directory -> pictures
    sinks: list[Sink]
    flops_per_token: float
    peak_flops: float  # of all devices in the run's precision
    ranks: Ranks = ALONE  # this process among those that train together
    row: Row = field(default_factory=dict)  # the last finished row of metrics.csv
    best_step: int | None = None
    best_loss: float = float("inf")
    validations_since_best: int = 0
    skipped_steps: int = 0  # by 16-mixed, whose loss scale was too large
    expected_rate: float | None = None  # tokens per second, roughly; None where several processors do not share one process's work
    elapsed_s: float = 0.0  # training time of earlier sittings of a resumed run
