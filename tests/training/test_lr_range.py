"""The ramp's steps are the steps of a real training: same groups, clipping, accumulation, dropout; only the rate goes up."""

from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from gptshake.data.module import TrainBatches
from gptshake.errors import TrainingError
from gptshake.model.gpt import GPT
from gptshake.optim.adamw import adamw
from gptshake.optim.schedule import Factors
from gptshake.training.lr_range import ramp as ramp_schedule
from gptshake.training.lr_range import range_test
from gptshake.training.step import Step

RATES = [1e-3, 2e-3, 4e-3, 8e-3]
BLOCK = 8


def ramp(job: Any, rates: list[float] = RATES, *, lr: float = 1e-2, optimizer: Any = None, **options: Any) -> list[float]:
    schedule = ramp_schedule(rates, job.budget.tokens_per_step, lr=lr, beta1=None)
    step = Step(job.model, optimizer or partial(adamw, lr=lr), schedule, job.budget, **({"seed": 1, "clip": 1.0} | options))
    return range_test(step, job.batches(), list(islice(job.batches(), 2)), len(rates))


@pytest.mark.parametrize("options", [{}, {"micro": 2}, {"dropout": 0.3}, {"micro": 4, "dropout": 0.2}])
def test_a_ramp_is_a_training_whose_schedule_goes_up(training: Any, options: dict[str, Any]) -> None:
    real = training(**options, schedule=lambda tokens, total: Factors(RATES[tokens // 64 - 1] / 1e-2))
    real.fit()
    tried = training(**options)
    ramp(tried)
    for left, right in zip(real.model.parameters(), tried.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_every_group_keeps_its_share_of_the_rate(training: Any) -> None:
    seen: list[list[float]] = []

    def optimizer(named: Any) -> torch.optim.Optimizer:
        matrices, others = [], []
        for _, parameter in named:
            (matrices if parameter.ndim > 1 else others).append(parameter)
        made = torch.optim.SGD([{"params": matrices, "lr": 0.5}, {"params": others, "lr": 0.1}])
        made.register_step_pre_hook(lambda which, *_: seen.append([group["lr"] for group in which.param_groups]))  # type: ignore[arg-type]
        return made

    ramp(training(), optimizer=optimizer, lr=0.5)
    assert [pair[0] for pair in seen] == pytest.approx(RATES)
    assert [pair[1] / pair[0] for pair in seen] == pytest.approx([0.2] * len(RATES))


def test_the_same_seed_gives_the_same_curve_and_held_out_losses_are_of_the_network_alone(training: Any) -> None:
    first, second = ramp(training(dropout=0.3)), ramp(training(dropout=0.3))
    assert first == second and len(first) == len(RATES)


def test_it_stops_where_the_loss_diverges(training: Any) -> None:
    losses = ramp(training(), [1e-3, 1e4, 1e5, 1e6, 1e7], clip=None)
    assert len(losses) < 5 and losses[-1] > 4 * min(losses)


def test_a_loss_without_a_number_ends_it_at_once(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real = GPT.loss
    monkeypatch.setattr(GPT, "loss", lambda self, *args, **options: real(self, *args, **options) * float("nan"))
    losses = ramp(training())
    assert len(losses) == 1 and losses[0] != losses[0]


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory")]
)
@pytest.mark.parametrize(("micro", "way"), [(4, "data.micro_batch_size=2"), (1, "a smaller model or model.block_size")])
def test_too_little_memory_is_told_with_what_to_change(
    training: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, micro: int, way: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(GPT, "loss", full)
    with pytest.raises(TrainingError, match=f"not enough memory for {micro} sequences? of {BLOCK} tokens at once: try {way}"):
        ramp(training(micro=micro))


def test_bf16_is_the_bf16_of_training(training: Any) -> None:
    plain, short = ramp(training()), ramp(training(), precision="bf16-mixed")
    assert plain != short and plain == pytest.approx(short, rel=0.05)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_a_long_ramp_in_half_precision_ends_where_that_in_fp32_does(training: Any, precision: str) -> None:
    def learned(precision: str) -> list[float]:
        job = training(batch=16, micro=16)
        job.batches = lambda: TrainBatches(np.arange(4000).astype(np.uint16) % 11, BLOCK, 16, seed=1)
        return ramp(job, [1e-3 * 1.08**step for step in range(40)], precision=precision)

    plain, half = learned("32-true"), learned(precision)
    assert plain[0] - plain[-1] > 1.0
    assert half == pytest.approx(plain, abs=0.1 * (plain[0] - plain[-1]))


def test_an_overflow_of_the_loss_scale_is_no_divergence(training: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, seen = torch.amp.GradScaler.scale, []

    def scale(self: Any, outputs: Any) -> Any:
        seen.append(None)
        return real(self, outputs) * (float("inf") if len(seen) in (1, 3) else 1.0)

    monkeypatch.setattr(torch.amp.GradScaler, "scale", scale)
    losses = ramp(training(), precision="16-mixed")
    assert len(losses) == len(RATES) and all(loss == loss for loss in losses)
    assert len(seen) == len(RATES) + 2


def test_a_network_is_spoilt_but_the_vocabulary_fits(training: Any) -> None:
    job = training()
    before = [parameter.clone() for parameter in job.model.parameters()]
    losses = ramp(job)
    assert all(0 < loss < 100 for loss in losses)
    assert not all(torch.equal(left, right) for left, right in zip(before, job.model.parameters(), strict=True))
