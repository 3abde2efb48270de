"""One optimizer step: the gradient of the whole batch, the schedule's rate, no update from a loss that is not finite."""

import math
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from gptshake.errors import ConfigError, TrainingError
from gptshake.optim.schedule import constant, cosine, gpt3, one_cycle


class Gradients(pl.Callback):
    """Keeps the gradients of every step before clipping."""

    def __init__(self) -> None:
        self.steps: list[list[torch.Tensor]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer) -> None:
        self.steps.append([parameter.grad.clone() for parameter in pl_module.parameters() if parameter.grad is not None])


class Weights(pl.Callback):
    """Keeps the weights before every micro-batch."""

    def __init__(self) -> None:
        self.before: list[list[torch.Tensor]] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        self.before.append([parameter.detach().clone() for parameter in pl_module.parameters()])


@pytest.mark.parametrize("micro", [4, 2, 1])
def test_an_accumulated_batch_has_the_gradients_losses_and_norms_of_the_whole_one(training: Any, micro: int) -> None:
    whole, parts = Gradients(), Gradients()
    one = training(batch=8, micro=8, clip=None).fit(whole)
    several = training(batch=8, micro=micro, clip=None).fit(parts)
    assert len(whole.steps) == len(parts.steps) == 4
    for left, right in zip(whole.steps[0], parts.steps[0], strict=True):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-6)
    for key in ("train/loss", "train/grad_norm"):
        assert one[0][key] == pytest.approx(several[0][key], abs=1e-6)
        assert [row[key] for row in one] == pytest.approx([row[key] for row in several], rel=1e-3)
    assert [row["train/tokens"] for row in one] == [row["train/tokens"] for row in several] == [64, 128, 192, 256]


@pytest.mark.parametrize("schedule", [gpt3, one_cycle, cosine, constant, partial(cosine, warmup=0.5, floor=0.0)])
def test_the_rate_of_every_row_is_the_peak_times_the_schedule_at_its_tokens(training: Any, schedule: Any) -> None:
    job = training(steps=7, lr=3e-3, schedule=schedule)
    rows = job.fit()
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [row["train/lr"] for row in rows] == [3e-3 * schedule(row["train/tokens"], job.budget.total_tokens).lr for row in rows]


def test_one_cycle_moves_beta1_too(training: Any) -> None:
    job = training(steps=7, schedule=one_cycle)
    seen: list[float] = []

    class Betas(pl.Callback):
        def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer) -> None:
            seen.append(optimizer.param_groups[0]["betas"][0])

    job.fit(Betas())
    expected = [one_cycle(step * 64, 7 * 64).beta1 for step in range(1, 7)]
    assert set(expected) <= set(seen)


def test_a_schedule_moves_the_first_beta_of_an_optimizer_with_three_and_leaves_the_others(training: Any) -> None:
    step = training(steps=7, schedule=one_cycle).module.step
    (group, *_) = step.make_optimizer().param_groups
    group["betas"] = (0.98, 0.92, 0.99)
    step.begin()
    assert group["betas"] == (one_cycle(64, 7 * 64).beta1, 0.92, 0.99)


@pytest.mark.parametrize(
    ("loss", "said"), [(torch.zeros(4), r"the shape \(4,\): with reduction=mean"), (1.0, "float"), (torch.zeros(1), r"\(1,\)")]
)
def test_a_network_whose_loss_is_no_single_number_is_named(training: Any, loss: Any, said: str) -> None:
    job = training(steps=1)
    job.module.step._loss = lambda inputs, targets: loss
    with pytest.raises(ConfigError, match=r"loss\(\) of \w+ gave .*" + said):
        job.fit()


def test_the_norm_in_the_record_is_the_one_before_clipping(training: Any) -> None:
    free, clipped = training(clip=None), training(clip=1e-3)
    assert free.fit()[0]["train/grad_norm"] == clipped.fit()[0]["train/grad_norm"] > 1e-3


def test_clipping_bounds_what_the_optimizer_sees(training: Any) -> None:
    norms: list[float] = []

    class Norms(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            state = trainer.optimizers[0].state  # exp_avg of the first step is (1 - beta1) x gradient
            norms.append(math.sqrt(sum(float((values["exp_avg"] / 0.1).square().sum()) for values in state.values())))

    training(clip=0.05, steps=1).fit(Norms())
    assert norms == [pytest.approx(0.05, rel=1e-3)]


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("micro", [8, 4])
def test_a_loss_that_is_not_finite_changes_no_weight_and_names_its_step(training: Any, fused: bool, micro: int) -> None:
    job, weights = training(steps=6, fused=fused, micro=micro), Weights()
    job.model.distort = lambda loss: loss * (math.nan if job.step.steps == 2 else 1.0)
    with pytest.raises(TrainingError, match=r"^Step 3: the loss is not finite .*its update was not applied"):
        job.fit(weights)
    first_of_third = 2 * job.budget.accumulation
    for before, after in zip(weights.before[first_of_third], job.model.parameters(), strict=True):
        assert torch.equal(before, after)
    assert not torch.equal(weights.before[0][0], weights.before[first_of_third][0])
    assert [row["step"] for row in job.run.rows()] == [1, 2, 3] and math.isnan(job.run.rows()[2]["train/loss"])
    assert sorted(folder.name for folder in (job.run.path / "checkpoints").iterdir()) == ["step-00000002"]


@pytest.mark.parametrize("fused", [True, False])
def test_a_gradient_that_is_not_finite_is_told_apart_from_a_loss(training: Any, fused: bool) -> None:
    job, weights = training(fused=fused), Weights()
    next(job.model.parameters()).register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match="Step 1: the gradient is not finite"):
        job.fit(weights)
    assert all(torch.equal(before, after) for before, after in zip(weights.before[0], job.model.parameters(), strict=True))


def test_dropout_is_a_function_of_the_position(training: Any) -> None:
    one, two = training(dropout=0.3, micro=4), training(dropout=0.3, micro=4)

    class Noise(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            torch.rand(batch_idx + 1)  # somebody else draws random numbers

    key = "train/loss"
    assert [row[key] for row in one.fit()] == [row[key] for row in two.fit(Noise())]


def test_patience_ends_a_run_after_so_many_validations_without_a_better_loss(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = training(steps=50, interval=2, val_losses=[3.0, 2.0, 2.1, 2.2, 2.3], patience=2)
    rows = job.fit()
    assert len(rows) == 8 and job.module.best_step == 4
    assert "val loss has not improved in 2 validations" in capsys.readouterr().out


def test_a_time_limit_ends_a_run_with_a_validation(training: Any) -> None:
    rows = training(steps=10_000, interval=10_000, max_seconds=1).fit()
    assert 0 < len(rows) < 10_000
    assert "val/loss" in rows[-1] and "val/loss" not in rows[0]


def test_the_last_step_is_validated_whatever_the_interval(training: Any) -> None:
    rows = training(steps=5, interval=3).fit()
    assert [row["step"] for row in rows if "val/loss" in row] == [3, 5]


def losses(rows: list[dict[str, Any]]) -> list[float]:
    return [row["train/loss"] for row in rows]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_run_learns_what_an_eager_one_does_and_says_what_compiling_cost(
    training: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    eager = losses(training(micro=4, dropout=0.0).fit())
    assert losses(training(micro=4, dropout=0.0, compile=True).fit()) == pytest.approx(eager, abs=1e-5)
    assert re.search(r"torch.compile took \d+\.\d s \((\d+ of \d+ graphs recompiled|graphs from its cache)\)", capsys.readouterr().out)


def test_what_cannot_be_compiled_is_trained_without_with_the_reason(
    training: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no compiler for this\nand much more")

    monkeypatch.setattr(torch, "compile", lambda function: refuse)
    assert losses(training(compile=True, dropout=0.1).fit()) == losses(training(dropout=0.1).fit())
    assert "torch.compile failed, training continues without it: no compiler for this\n" in capsys.readouterr().out
