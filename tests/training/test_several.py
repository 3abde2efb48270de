"""What one rank of several does by itself: when it may stop, what it leaves to others, what it writes."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from gptshake.distributed import Ranks
from gptshake.errors import Pruned, Stop
from gptshake.record.lock import NullLock
from gptshake.record.run import NullRun, steps_saved
from gptshake.signals import SIGNALS
from gptshake.training.callbacks.noise_scale import NoiseScale
from gptshake.training.evaluation import evaluate


class OneOfTwo(Ranks):
    """A rank whose neighbour says what ``other`` says of (signal, save, prune) after a step."""

    def __init__(self, other: tuple[int, int, int] = (0, 0, 0)) -> None:
        super().__init__(0, 2)
        self.other = other
        self.asked = 0

    def all_reduce_max(self, *flags: int) -> list[int]:
        self.asked += 1
        return [max(int(ours), theirs) for ours, theirs in zip(flags, self.other, strict=False)]

    def all_reduce_mean(self, value: torch.Tensor) -> torch.Tensor:
        return value


class SignalIn(pl.Callback):
    """A signal that comes while a micro-batch is worked on."""

    def __init__(self, micro_batch: int) -> None:
        self.micro_batch = micro_batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.micro_batch:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def deferred() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    SIGNALS.reset()
    SIGNALS.install()
    with SIGNALS.deferred():
        yield
    SIGNALS.reset()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
    signal.signal(signal.SIGTERM, before)


def several(job: Any, ranks: Ranks) -> Any:
    job.context.ranks = job.step.ranks = ranks
    return job


def test_a_signal_inside_a_step_waits_for_the_step_that_all_ranks_finish(training: Callable[..., Any], deferred: None) -> None:
    job = several(training(batch=8, micro=2, steps=6, interval=100), OneOfTwo())
    with pytest.raises(Stop):
        job.fit(SignalIn(9))  # the second of four micro-batches of step 3
    assert job.module.steps == 3
    assert steps_saved(job.run.path) == [3]


def test_a_rank_stops_saves_or_is_pruned_because_another_says_so(training: Callable[..., Any], deferred: None) -> None:
    job = several(training(steps=6, interval=100), OneOfTwo((int(signal.SIGINT), 0, 0)))
    with pytest.raises(Stop) as stopped:
        job.fit()
    assert stopped.value.exit_code == 128 + signal.SIGINT
    assert steps_saved(job.run.path) == [1]
    job = several(training(steps=3, interval=100), OneOfTwo((0, 1, 0)))
    job.fit()
    assert steps_saved(job.run.path) == [2, 3]
    job = several(training(steps=3, interval=100), OneOfTwo((0, 0, 1)))
    with pytest.raises(Pruned):
        job.fit()


def test_ranks_agree_once_a_step(training: Callable[..., Any], deferred: None) -> None:
    ranks = OneOfTwo()
    several(training(batch=8, micro=2, steps=5, interval=100), ranks).fit()
    assert ranks.asked == 5


def test_a_rank_that_follows_writes_nothing(training: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, lease = NullRun(tmp_path, {"id": "", "name": ""}), NullLock()
    run.say("words")
    run.log("words")
    run.append_row({"step": 1})
    run.flush()
    run.sample(1, 1, "text")
    run.update(status="ok")
    lease.heartbeat(1, 2.0)
    assert (run.rows(), lease.stop_requested()) == ([], None)
    lease.release()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("n", [1, 4, 5])
def test_a_validation_that_is_shared_scores_every_target_once(training: Callable[..., Any], n: int) -> None:
    model = training().model
    batches = [torch.randint(11, (3, 9), generator=torch.Generator().manual_seed(number)) for number in range(n)]
    loss, tokens = evaluate(model, batches)
    parts: list[list[float]] = []

    class Counting(Ranks):
        def all_reduce_sum(self, *values: float) -> list[float]:
            parts.append(list(values))
            return [values[0], max(values[1], 1)]

    for rank in range(3):
        evaluate(model, batches, ranks=Counting(rank, 3))
    loss_sum, scored = (sum(values) for values in zip(*parts, strict=True))
    assert scored == tokens
    assert loss_sum / scored == pytest.approx(loss, abs=1e-12)


def test_the_noise_scale_is_for_one_device(training: Callable[..., Any]) -> None:
    with pytest.raises(Exception, match="measured on one device"):
        several(training(), OneOfTwo()).fit(NoiseScale())
