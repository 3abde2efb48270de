"""Precision, clocks and the loss scale, on a CPU and on devices that are made up."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gptshake.errors import Stop, TrainingError
from gptshake.model.generate import generate
from gptshake.training import device as devices
from gptshake.training.callbacks import metrics
from gptshake.training.callbacks.noise_scale import NoiseScale, measure
from gptshake.training.checkpoint import load_weights
from gptshake.training.device import fork_rng, forward_pass, out_of_memory, seed_generators, to_device
from gptshake.training.evaluation import evaluate


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_precision_belongs_to_one_pass_so_that_an_update_is_seen_at_once(precision: str) -> None:
    layer = nn.Linear(4, 4)
    with forward_pass("cpu", precision):
        before = layer(torch.ones(1, 4))
        layer.weight.data += 1.0
        after = layer(torch.ones(1, 4))
    assert (after - before).float().mean().item() == pytest.approx(4.0, rel=0.02)
    with forward_pass("cpu", "32-true"):
        assert layer(torch.ones(1, 4)).dtype == torch.float32


def test_no_autocast_in_the_tree_is_held_over_more_than_a_pass() -> None:
    source = Path(devices.__file__).parents[1]
    users = [file.name for file in source.rglob("*.py") if "autocast(" in file.read_text(encoding="utf-8")]
    assert users == ["device.py"]


def scaled(job: Any, *callbacks: pl.Callback) -> list[dict[str, Any]]:
    """Train with a loss scale, as on a GPU without bf16."""
    return job.train(callbacks, "16-mixed")  # type: ignore[no-any-return]


class Spoil(pl.Callback):
    """Gradients that overflow in some steps, or in all."""

    def __init__(self, steps: set[int] | None) -> None:
        self.steps = steps

    def on_after_backward(self, trainer: Any, pl_module: Any) -> None:
        if self.steps is None or pl_module.steps in self.steps:
            next(pl_module.parameters()).grad.fill_(math.inf)


class Watch(pl.Callback):
    """The scale and the first weights after each step."""

    def __init__(self) -> None:
        self.scales: list[float] = []
        self.weights: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.scales.append(pl_module.step.scaler.get_scale())
        self.weights.append(next(pl_module.parameters()).detach().clone())


@pytest.mark.parametrize("fused", [True, False])
def test_gradients_are_unscaled_before_they_are_measured_and_clipped(training: Callable[..., Any], fused: bool) -> None:
    plain = training(fused=fused, clip=0.1).fit()
    rows = scaled(training(fused=fused, clip=0.1))
    for one, other in zip(rows, plain, strict=True):
        assert one["train/grad_norm"] == pytest.approx(other["train/grad_norm"], rel=0.02)
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=0.01)


@pytest.mark.parametrize("fused", [True, False])
def test_an_overflow_skips_its_step_halves_the_scale_and_is_counted(training: Callable[..., Any], fused: bool) -> None:
    job, watch = training(fused=fused, steps=5), Watch()
    rows = scaled(job, Spoil({1, 3}), watch)
    assert [row["step"] for row in rows if "train/grad_norm" not in row] == [2, 4]
    assert job.step.skipped_steps == 2
    assert watch.scales == [65536, 32768, 32768, 16384, 16384]
    same = [torch.equal(old, new) for old, new in zip(watch.weights, watch.weights[1:], strict=False)]
    assert same == [True, False, True, False]


def test_a_gradient_that_overflows_at_every_scale_ends_the_run(training: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match="Step 17: the gradient is not finite"):
        scaled(training(steps=40, interval=100), Spoil(None))


def test_the_loss_scale_comes_back_exactly(training: Callable[..., Any]) -> None:
    first = training(steps=6)
    scaled(first, Spoil({1}))
    again, watch = training(steps=8), Watch()
    again.train([watch], "16-mixed", first.run.path / "checkpoints" / "step-00000006")
    state = again.trainer.precision_plugin.state_dict()
    assert watch.scales == [32768, 32768]
    assert (state["scale"], state["_growth_tracker"]) == (32768, 4 + 2)
    assert again.step.skipped_steps == 1


class NoDoubles(TorchDispatchMode):
    """A device like Apple's, which has no float64."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        assert not any(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in tree_leaves(made)), func
        return made


def test_no_part_of_a_training_needs_float64(training: Callable[..., Any]) -> None:
    job = training(dropout=0.1)
    batches = [next(iter(job.batches())) for _ in range(3)]
    with NoDoubles():
        assert evaluate(job.model, batches)[1] == 3 * batches[0][:, 1:].numel()
        generate(job.model, batches[0][:1, :1], 4, top_p=0.9)
        list(measure(job.step, batches, 1, 3, steps=0, tokens=0))
        assert len(job.fit(NoiseScale(split_every=2))) == 4


class FakeDevice:
    """Work is queued at once and done later: a step takes 30 ms of the device and none of the host."""

    step_s = 0.03

    def __init__(self) -> None:
        self.now = self.free = 0.0  # clock of the host; when the device is done
        self.waits = 0

    def event(self, *, enable_timing: bool) -> Any:
        assert enable_timing
        outer = self

        class Event:
            def record(self) -> None:
                self.at = max(outer.now, outer.free)

            def synchronize(self) -> None:
                outer.waits += outer.now < self.at
                outer.now = max(outer.now, self.at)

            def elapsed_time(self, later: Any) -> float:
                return 1e3 * float(later.at - self.at)

        return Event()


class Queue(pl.Callback):
    """Queues the work of a step on the fake device; other work of the host takes a second, once."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.device.now += 1.0

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.device.now += 0.001
        self.device.free = max(self.device.now, self.device.free) + self.device.step_s


def test_every_step_of_an_asynchronous_device_has_its_own_time_and_few_are_waited_for(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice()
    monkeypatch.setattr(devices, "EVENTS", {"cpu": device.event})
    monkeypatch.setattr(metrics, "LATE", {"cpu"})
    job = training(steps=9, interval=3)

    def validate(real: Any = job.module.validate) -> Any:
        device.now = max(device.now, device.free) + 5.0  # it reads its losses, so the device is idle afterwards
        return real()

    job.module.validate = validate
    rows = job.fit(Queue(device))
    assert [row["perf/step_ms"] for row in rows] == pytest.approx([31.0, 30.0, 30.0] * 3, abs=1.01)
    assert [row["step"] for row in rows] == list(range(1, 10))
    assert [row["step"] for row in rows if "val/loss" in row] == [3, 6, 9]


class Logs(pl.Callback):
    """Logs a tensor, which is changed afterwards, and a number."""

    def __init__(self) -> None:
        self.norm = torch.zeros(())

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.norm = self.norm + pl_module.steps
        self.log("mine/norm", self.norm)
        pl_module.bench.log({"mine/steps": pl_module.steps})  # the earlier name


@pytest.mark.parametrize("late", [set(), {"cpu"}])
def test_what_is_logged_is_in_the_row_of_its_step_also_where_values_are_read_late(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, late: set[str]
) -> None:
    monkeypatch.setattr(metrics, "LATE", late)
    rows = training(steps=5, interval=2).fit(Logs())
    assert [(row["step"], row["mine/steps"], row["mine/norm"]) for row in rows] == [(1, 1, 1), (2, 2, 3), (3, 3, 6), (4, 4, 10), (5, 5, 15)]


class Fails(pl.Callback):
    """An ordinary error at the beginning of the third step."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if pl_module.steps == 2:
            raise ValueError("a fault")


@pytest.mark.parametrize("late", [set(), {"cpu"}])
def test_an_error_loses_no_row_also_where_values_are_read_late(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, late: set[str]
) -> None:
    monkeypatch.setattr(metrics, "LATE", late)
    job = training(steps=5, interval=100)
    with pytest.raises(ValueError, match="a fault"):
        job.fit(Fails())
    assert [row["step"] for row in job.run.rows()] == [1, 2]


class Begins(pl.Callback):
    """Logs at the beginning of a step; the third is broken off."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        pl_module.context.log({"mine/after": pl_module.steps})
        if pl_module.steps == 2:
            raise Stop(15)


@pytest.mark.parametrize("late", [set(), {"cpu"}])
def test_what_a_broken_step_logs_is_not_in_the_row_before(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, late: set[str]
) -> None:
    monkeypatch.setattr(metrics, "LATE", late)
    job = training(steps=5, interval=5)
    with pytest.raises(Stop):
        job.fit(Begins())
    assert [(row["step"], row["mine/after"]) for row in job.run.rows()] == [(1, 0), (2, 1)]


def test_transfers_and_random_numbers_leave_other_devices_alone() -> None:
    batch = torch.arange(6).view(2, 3)
    assert torch.equal(to_device(batch, torch.device("cpu")), batch)
    state = torch.get_rng_state()
    with fork_rng(torch.device("cpu")):
        torch.rand(3)
    assert torch.equal(state, torch.get_rng_state()) and not torch.cuda.is_initialized()


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_errors_of_memory_are_known(error: Exception, is_one: bool) -> None:
    assert out_of_memory(error) is is_one


def test_a_network_that_runs_out_of_memory_while_it_is_compiled_says_so(
    training: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch, "compile", lambda function: compiled)
    with pytest.raises(torch.OutOfMemoryError):
        training(compile=True).fit()


@pytest.mark.parametrize("seed", [2_260_000_001, 2**63 - 1])
def test_every_seed_that_is_accepted_drops_out(training: Callable[..., Any], seed: int) -> None:
    job = training(dropout=0.2, seed=seed)
    assert len(job.fit()) == 4


def test_tied_weights_are_saved_and_tied_again(training: Callable[..., Any]) -> None:
    def tie(job: Any) -> Any:
        job.model.head = nn.Linear(8, 11, bias=False)
        job.model.head.weight = job.model.wte.weight
        job.model.register_buffer("first", job.model.wte.weight.detach()[:1])
        return job

    job = tie(training())
    job.fit()
    (newest,) = [folder for folder in (job.run.path / "checkpoints").iterdir() if folder.name.endswith("4")]
    weights = load_weights(newest)
    other = tie(training())
    other.model.load_state_dict(weights)
    assert torch.equal(other.model.wte.weight, job.model.wte.weight)
    assert other.model.head.weight is other.model.wte.weight and torch.equal(weights["head.weight"], weights["wte.weight"])


@pytest.mark.parametrize(("expected", "said"), [(None, 0), (1.0, 0), (1e12, 1)])
def test_a_run_far_slower_than_expected_says_once_what_to_try(
    training: Callable[..., Any], capsys: pytest.CaptureFixture[str], expected: float | None, said: int
) -> None:
    training(steps=12, expected_rate=expected).fit()
    assert capsys.readouterr().out.count("try trainer.threads=1") == said


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**64 - 1])
def test_a_seed_gives_the_numbers_of_torch_manual_seed(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(4)
    seed_generators(torch.device("cpu"), seed)
    assert torch.rand(4).equal(expected)
