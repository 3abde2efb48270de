"""Slots of this machine: how many there are, what each run sees of it, and that a free one is used again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deeds import environment

from gptshake import hardware
from gptshake.errors import ConfigError, Stop
from gptshake.sweep.executor.local import LocalSlots


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cores, 16 GB, no GPU."""
    monkeypatch.setattr(hardware, "physical_cores", lambda: 8)
    monkeypatch.setattr(hardware, "memory_bytes", lambda: 16 << 30)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def opened() -> Iterator[Any]:
    made: list[LocalSlots] = []

    def make(run_threads: int | None = None, **options: Any) -> LocalSlots:
        slots = LocalSlots(**options)
        slots.open(environment, [], run_threads)
        made.append(slots)
        return slots

    yield make
    for slots in made:
        slots.close()


@pytest.mark.parametrize(
    ("options", "asked", "number", "threads"),
    [
        ({}, ("cpu", None, None), 8, 1),
        ({}, ("cpu", None, 3), 3, 2),
        ({}, ("cpu", 3 << 30, None), 4, 2),
        ({}, ("cpu", 100 << 30, None), 1, 8),
        ({}, ("mps", None, None), 1, 8),
        ({"slots": 2}, ("cpu", 100 << 30, 1), 2, 4),
        ({"slots": 2, "threads": 3}, ("cpu", None, None), 2, 3),
    ],
)
def test_cores_and_memory_are_shared_out(options: Any, asked: Any, number: int, threads: int) -> None:
    slots = LocalSlots(**options)
    assert slots.allot(*asked) == number and slots.threads == threads
    assert slots.device.startswith(f"{number} slot")


def test_threads_of_the_config_take_the_place_of_a_share(opened: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slots = opened(slots=1, run_threads=2)
    assert slots.allot("cpu", None, None) == 1 and slots.threads == 2 and slots.device == "1 slot on CPU, 2 threads each"
    slots.start("OMP_NUM_THREADS", tmp_path / "run")
    assert slots.wait(10.0)[0].outcome.value[0] == "2"
    assert opened(run_threads=3).allot("cpu", None, None) == 2
    assert "warning" not in capsys.readouterr().out
    assert opened(slots=2, run_threads=5).allot("cpu", None, None) == 2
    assert "warning: 2 x 5 threads on 8 cores is slow" in capsys.readouterr().out


def test_every_run_sees_its_own_gpu(opened: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert hardware.visible_gpus() == ["3", "5"]
    slots = opened(slots_per_gpu=2)
    assert slots.allot("cuda", None, None) == 4
    runs = [slots.start("CUDA_VISIBLE_DEVICES", tmp_path / str(number)) for number in range(4)]
    ended: list[Any] = []
    while len(ended) < 4:
        ended += slots.wait(10.0)
    assert sorted(run.outcome.value[0] for run in runs) == ["3", "3", "5", "5"]
    assert {run.outcome.value[1] for run in runs} == {"2"}


def test_on_a_machine_with_gpus_cpu_runs_take_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert LocalSlots().allot("cpu", None, None) == 8
    assert LocalSlots().allot(None, None, None) == 1  # an app of which nothing is known


def test_when_all_slots_are_taken_nobody_is_taken_and_a_free_slot_the_next(opened: Any, tmp_path: Path) -> None:
    slots = opened(slots=1)
    slots.allot("cpu", None, None)
    first = slots.start("HOME", tmp_path / "0")
    assert first is not None and slots.start("HOME", tmp_path / "1") is None
    assert [run.folder for run in slots.wait(10.0)] == [first.folder]
    assert slots.start("HOME", tmp_path / "1") is not None


@pytest.mark.parametrize("options", [{"slots": 0}, {"slots": "many"}, {"slots_per_gpu": 0}, {"threads": 1.5}])
def test_what_is_no_number_of_slots_is_refused(options: Any) -> None:
    with pytest.raises(ConfigError, match="from 1 up, or auto"):
        LocalSlots(**options)


def test_no_task_is_left_behind_where_nobody_waited_for_its_end(opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slots = opened(slots=1)
    slots.allot("cpu", None, None)
    slots.start("HOME", tmp_path / "run")
    slots.close()
    assert not (tmp_path / "run/task.json").exists()
    with monkeypatch.context() as stopped, pytest.raises(Stop):
        stopped.setattr(slots.server, "wait", lambda *_: (_ for _ in ()).throw(Stop(2)))
        slots.probe("HOME", tmp_path / "prepare")
    assert not (tmp_path / "prepare/task.json").exists()
