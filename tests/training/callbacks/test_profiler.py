"""Where real steps' time goes: each moment is counted once, slow things are found, and the training is the same as without."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import pytorch_lightning as pl
from torch import Tensor

from gptshake.estimate.bottleneck import parts_of
from gptshake.training.callbacks import profiler as module
from gptshake.training.callbacks.profiler import Measured, Profiler, Timeline, part_of
from gptshake.training.device import EVENTS


class SlowLoader:
    """Sleeps before every batch, until the batches end."""

    def __init__(self, batches: Any, seconds: float, n: int = 10**6) -> None:
        self.batches, self.seconds, self.n = batches, seconds, n

    def __iter__(self) -> Iterator[Tensor]:
        for _, batch in zip(range(self.n), self.batches, strict=False):
            time.sleep(self.seconds)
            yield batch


class SlowCallback(pl.Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        time.sleep(0.02)


def profiled(training: Any, tmp_path: Path, *callbacks: pl.Callback, loader: Any = None, **options: Any) -> Profiler:
    """A profile of one training; of few steps, and without a limit in seconds."""
    profiler = Profiler(**({"warmup": 1, "steps": 3, "seconds": 60, "trace": tmp_path / "trace.json"} | options))
    batches = loader or training.batches()
    training.batches = lambda: profiler.timed(batches)
    with pytest.raises(Measured):
        training.fit(*callbacks, profiler)
    return profiler


def shares(profiler: Profiler) -> dict[str, float]:
    return {part.name: part.share for part in parts_of(profiler.measured, 1, 1)}


def test_a_slow_source_takes_the_time_of_the_step(training: Callable[..., Any], tmp_path: Path) -> None:
    one = training(steps=40, micro=4)
    found = profiled(one, tmp_path, loader=SlowLoader(one.batches(), 0.03))
    assert shares(found)["data"] > 0.5 and found.computing < 0.5
    assert found.start["data"] >= 0.03  # the first batch is part of the start


def test_a_slow_callback_is_named(training: Callable[..., Any], tmp_path: Path) -> None:
    found = profiled(training(steps=40), tmp_path, SlowCallback())
    assert shares(found)["logging"] > 0.5
    assert all(step["logging/SlowCallback"] >= 0.02 for step in found.measured)


def test_a_slow_network_is_not_taken_for_anything_else(training: Callable[..., Any], tmp_path: Path) -> None:
    one = training(steps=40)
    one.model.distort = lambda loss: (time.sleep(0.03), loss)[1]
    assert shares(profiled(one, tmp_path))["forward"] > 0.5


def test_the_parts_of_a_step_are_all_of_it(training: Callable[..., Any], tmp_path: Path) -> None:
    one = training(steps=40, micro=4, interval=1000)
    found = profiled(one, tmp_path, loader=SlowLoader(one.batches(), 0.01))
    assert len(found.measured) == len(found.measured_s) == len(found.plain_s) == 3
    for parts in found.measured:
        assert {"data", "transfer", "forward", "backward", "optimizer", "logging/Metrics"} <= parts.keys()
    ratios = [sum(parts.values()) / whole_s for parts, whole_s in zip(found.measured, found.measured_s, strict=True)]
    assert median(ratios) == pytest.approx(1, rel=0.05)  # a busy machine may hold up one of the three between the two clocks


def test_a_profiled_training_has_the_losses_of_one_without(training: Callable[..., Any], tmp_path: Path) -> None:
    watched, alone = training(steps=40, dropout=0.2, micro=4), training(steps=40, dropout=0.2, micro=4)
    profiled(watched, tmp_path)
    keys = ("step", "train/loss", "train/lr", "train/grad_norm", "val/loss")
    rows = [[row.get(key) for key in keys] for row in watched.run.rows()]
    assert len(rows) == 1 + 2 * 3 + module.TRACED
    assert rows == [[row.get(key) for key in keys] for row in alone.fit()][: len(rows)]


def test_validations_and_checkpoints_are_timed_by_themselves(training: Callable[..., Any], tmp_path: Path) -> None:
    one = training(steps=40, interval=2)
    one.module.validate = lambda validate=one.module.validate: (time.sleep(0.02), validate())[1]
    found = profiled(one, tmp_path, SlowCallback())
    assert min(found.announcer.occasions["validation"]) >= 0.02
    assert shares(found)["logging"] > 0.5 and sum(step.get("logging/Metrics", 0) for step in found.measured) < 0.02


def test_the_trace_names_the_parts(training: Callable[..., Any], tmp_path: Path) -> None:
    profiled(training(steps=40), tmp_path)
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert {"data", "forward", "backward", "optimizer"} <= {event.get("name") for event in events}


def test_the_seconds_end_it_early(training: Callable[..., Any], tmp_path: Path) -> None:
    assert len(profiled(training(steps=1000), tmp_path, warmup=500, steps=500, seconds=1e-6).measured) == 1


def test_data_that_end_first_end_it_too(training: Callable[..., Any], tmp_path: Path) -> None:
    one = training(steps=40)
    found = profiled(one, tmp_path, loader=SlowLoader(one.batches(), 0, n=3), steps=20)
    assert found.measured == [] and not (tmp_path / "trace.json").exists()


def test_a_moment_belongs_to_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 3.0, 6.0, 10.0, 15.0])
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    line = Timeline("cpu")
    line.begin("optimizer")
    line.begin("forward")
    line.end()
    line.end()
    line.close()
    assert line.seconds() == {"other": 1.0 + 5.0, "optimizer": 2.0 + 4.0, "forward": 3.0}


def test_on_a_gpu_the_stamps_are_events_of_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 1000, 250))

    class Event:
        waited = 0

        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at = next(ticks)

        def elapsed_time(self, later: Any) -> float:
            return float(later.at - self.at)  # milliseconds

        def synchronize(self) -> None:
            Event.waited += 1

    monkeypatch.setitem(EVENTS, "cuda", Event)
    line = Timeline("cuda", "logging/Profiler")
    line.end()
    line.begin("data")
    line.close()
    assert Event.waited == 0 and line.seconds() == {"logging/Profiler": 0.25, "other": 0.25, "data": 0.25} and Event.waited == 1


@pytest.mark.parametrize(
    ("action", "part"),
    [
        ("[Strategy]SingleDeviceStrategy.training_step", "forward"),
        ("[LightningModule]GPTModule.optimizer_step", "optimizer"),
        ("[LightningModule]GPTModule.on_train_batch_start", None),
        ("run_training_batch", None),
        ("[Callback]Samples.on_train_batch_end", "logging/Samples"),
        ("[Callback]mine.<locals>.Odd.setup", "logging/Odd"),
        ("[Callback]EarlyStopping{'monitor': 'val.loss', 'mode': 'min'}.on_train_end", "logging/EarlyStopping"),
        ("save_checkpoint", "checkpoint"),
    ],
)
def test_lightnings_names_are_understood(action: str, part: str | None) -> None:
    assert part_of(action) == part
