"""Devices are counted before anything heavy begins: more than there are, or more than a run may have, is refused in a sentence."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from gptshake import hardware, torchrun
from gptshake.config.validate import check_one_device, check_torchrun
from gptshake.errors import ConfigError
from gptshake.estimate.memory import Memory
from gptshake.setup.costs import shards
from gptshake.setup.resolve import _devices

HERE = {"cpu": 4, "cuda": 2, "mps": 1}


def devices(device: str = "cpu", *, here: bool = True, **trainer: Any) -> int:
    options = {"devices": "auto", "strategy": "ddp", "compile": False, "precision": "32-true"} | trainer
    return _devices(OmegaConf.create({"trainer": options}), device, here=here)


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "device_count", HERE.__getitem__)
    monkeypatch.setattr(torchrun, "launched", lambda: 1)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def test_auto_is_all_gpus_or_what_torchrun_has_begun_or_one_without_a_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices("cuda") == 2
    assert devices(strategy=None) == devices(strategy=None, devices=1) == 1
    monkeypatch.setattr(torchrun, "launched", lambda: 3)
    assert devices("cpu") == 3


@pytest.mark.parametrize(
    ("device", "trainer", "words"),
    [
        ("cpu", {}, "give the number of processes"),
        ("cpu", {"devices": 5}, "more than the 4 processors"),
        ("cuda", {"devices": 3}, "more than the 2 GPUs"),
        ("mps", {"devices": 2}, "more than the 1 GPU of Apple's"),
        ("cpu", {"devices": 2, "strategy": None}, "trainer=ddp or trainer=fsdp"),
        ("cpu", {"devices": 2, "strategy": "fsdp", "compile": True}, "compile=true does not work with trainer=fsdp"),
        ("cuda", {"devices": 2, "strategy": "fsdp", "precision": "16-mixed"}, "precision=16-mixed does not work with"),
    ],
)
def test_what_cannot_be_had_is_refused(device: str, trainer: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        devices(device, **trainer)


def test_a_machine_to_be_rented_may_have_more() -> None:
    assert devices("cuda", here=False, devices=8) == 8


@pytest.mark.parametrize(("strategy", "peak"), [("fsdp", 1 + 160 // 4 + 5), ("ddp", 1 + 160 + 5)])
def test_memory_is_that_of_a_shard_with_fsdp_alone(strategy: str, peak: int) -> None:
    whole = Memory(base=1, weights=40, gradients=40, optimizer=80, activations=5, saving=0)
    assert whole.sharded(shards(OmegaConf.create({"trainer": {"devices": 4, "strategy": strategy}}))).total == peak


def test_as_many_as_torchrun_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "launched", lambda: 4)
    with pytest.raises(ConfigError, match="torchrun or srun started 4 processes"):
        devices(devices=2)


def test_devices_of_all_nodes_share_a_step_and_each_node_must_have_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchrun, "launched", lambda: 4)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert devices("cuda") == devices("cuda", devices=4) == 4
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"trainer.devices=4 is more than the 2 GPUs here; each process must see all .* --gpus-per-node"):
        devices("cuda")


def test_a_trial_has_one_device() -> None:
    check_one_device(OmegaConf.create({"trainer": {"devices": 1}}), "A trial")
    with pytest.raises(ConfigError, match=r"A trial trains on one device: leave trainer\.devices=auto out"):
        check_one_device(OmegaConf.create({"trainer": {"devices": "auto"}}), "A trial")


@pytest.mark.parametrize(("task", "strategy", "multirun"), [("runs", "ddp", False), ("train", None, False), ("train", "ddp", True)])
def test_torchrun_is_for_one_run_that_is_shared(task: str, strategy: str | None, multirun: bool) -> None:
    cfg = OmegaConf.create({"task": {"_target_": f"gptshake.tasks.{task}.run"}, "trainer": {"strategy": strategy}})
    check_torchrun(cfg, 1, multirun=multirun)
    with pytest.raises(ConfigError, match="torchrun or srun started 2 processes"):
        check_torchrun(cfg, 2, multirun=multirun)
