"""The noise scale is measured right, and beside the training: not a bit of that changes."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from gptshake.errors import ConfigError, TrainingError
from gptshake.record.metrics import NOISE_COLUMNS, NOISE_SCALE, read_measurements
from gptshake.training.callbacks.noise_scale import HELD, NoiseScale, measure


def gradient2(model: Any, batch: Tensor) -> float:
    """|gradient|^2 of the mean loss on a batch."""
    gradients = torch.autograd.grad(model.loss(batch[:, :-1], batch[:, 1:]), list(model.parameters()))
    return float(sum(one.double().square().sum() for one in gradients))


@pytest.mark.parametrize("micro", [8, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_the_training_is_the_same_bit_for_bit(training: Any, micro: int, every: int) -> None:
    plain, measured = (training(batch=8, micro=micro, dropout=0.3, steps=6) for _ in range(2))
    numbers = [[row["train/loss"], row["train/grad_norm"]] for row in plain.fit()]
    assert numbers == [[row["train/loss"], row["train/grad_norm"]] for row in measured.fit(NoiseScale(every))]
    assert all(torch.equal(*pair) for pair in zip(plain.model.parameters(), measured.model.parameters(), strict=True))
    steps = [one.step for one in read_measurements(measured.run.path)]
    assert steps == ([1, 2, 3, 4, 5, 6] if micro == 2 or every == 1 else [3, 6])


@pytest.mark.parametrize(("micro", "part"), [(4, 4), (2, 2), (8, 2)])
def test_the_norms_are_those_of_the_micro_batches_before_clipping(training: Any, micro: int, part: int) -> None:
    job = training(batch=8, micro=micro, steps=1, clip=1e-3)
    whole = torch.cat(list(islice(job.batches(), 8 // micro)))
    parts = [gradient2(job.model, one) for one in whole.split(part)]
    expected = (sum(parts) / len(parts), gradient2(job.model, whole))
    job.fit(NoiseScale(1))
    (one,) = read_measurements(job.run.path)
    assert (one.step, one.tokens, one.micro_batch_size, one.batch_size) == (1, 64, part, 8)
    assert (one.micro_norm2, one.batch_norm2) == pytest.approx(expected, rel=1e-4)


def test_a_batch_that_has_no_equal_quarters_leaves_its_rest_out(training: Any) -> None:
    job = training(batch=11, micro=11, steps=1)
    whole = next(iter(job.batches()))
    parts = [gradient2(job.model, one) for one in whole[:10].split(2)]
    job.fit(NoiseScale(1))
    (one,) = read_measurements(job.run.path)
    assert one.micro_batch_size == 2 and one.micro_norm2 == pytest.approx(sum(parts) / 5, rel=1e-4)


def test_signal_and_noise_are_mean_and_variance_of_the_sequences_gradients(training: Any) -> None:
    job = training(batch=4, micro=1, steps=1)
    batches = list(islice(job.batches(), 400))
    gradients = torch.stack([_flat(job.model, batch) for batch in batches])
    noise, signal = float(gradients.var(0).sum()), float(gradients.mean(0).square().sum())
    (one,) = measure(job.step, iter(batches), 1, 400, steps=0, tokens=0)
    assert one.noise == pytest.approx(noise, rel=1e-3)
    assert one.signal == pytest.approx(signal - noise / 400, rel=1e-2)


def _flat(model: Any, batch: Tensor) -> Tensor:
    return torch.cat([one.flatten() for one in torch.autograd.grad(model.loss(batch[:, :-1], batch[:, 1:]), list(model.parameters()))])


def test_a_measurement_leaves_weights_gradients_and_random_numbers_alone(training: Any) -> None:
    job = training(dropout=0.5, steps=1)
    before = [one.clone() for one in job.model.parameters()]
    list(measure(job.step, job.batches(), 2, 2, steps=0, tokens=0))
    assert all(torch.equal(*pair) for pair in zip(before, job.model.parameters(), strict=True))
    assert all(one.grad is None for one in job.model.parameters())


def test_more_than_are_held_are_written_in_order_and_told_at_the_end(training: Any, capsys: pytest.CaptureFixture[str]) -> None:
    job = training(batch=4, micro=1, steps=HELD + 7)
    job.fit(NoiseScale())
    assert [one.step for one in read_measurements(job.run.path)] == list(range(1, HELD + 8))
    assert (job.run.path / NOISE_SCALE).read_text().splitlines()[0].split(",") == list(NOISE_COLUMNS)
    assert "noise scale: " in capsys.readouterr().out


def test_a_broken_off_step_leaves_nothing_behind(training: Any) -> None:
    job = training(batch=8, micro=2, steps=4)

    class Pull(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
            if batch_idx == 5:  # in the second step
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        job.fit(NoiseScale(), Pull())
    assert [one.step for one in read_measurements(job.run.path)] == [1]


def test_a_step_that_is_not_finite_is_no_measurement(training: Any) -> None:
    job = training(batch=8, micro=2, steps=4)
    job.model.distort = lambda loss: loss * (float("nan") if job.step.steps == 2 else 1.0)
    with pytest.raises(TrainingError):
        job.fit(NoiseScale())
    assert [one.step for one in read_measurements(job.run.path)] == [1, 2]


def test_a_batch_of_one_sequence_is_refused(training: Any) -> None:
    with pytest.raises(ConfigError, match=r"data\.batch_size=1 has none: set it to 2 or more"):
        training(batch=1, micro=1).fit(NoiseScale())


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    from pytorch_lightning.plugins.precision import Precision

    monkeypatch.setattr(Precision, "scaler", object(), raising=False)
    yield


def test_a_loss_scale_is_refused(training: Any, scaled: None) -> None:
    with pytest.raises(ConfigError, match="16-mixed"):
        training().fit(NoiseScale())
