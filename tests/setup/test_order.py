"""What measures on a GPU does so in children; this process asks the driver's tool and does not start CUDA. The GPU here is made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from gptshake import hardware
from gptshake.config.compose import compose
from gptshake.errors import GptshakeError
from gptshake.setup import lr_finder, resolve
from gptshake.setup.instantiate import data_module

TOOL = {"compute_cap": "7.5", "memory.total": "15360", "memory.free": "15000", "name": "Tesla T4, 15360"}
STARTS = ("_lazy_init", "get_device_capability", "get_device_properties", "mem_get_info", "get_device_name", "current_device")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has started CUDA in this process, on a machine with a T4."""
    started: list[str] = []

    def starting(name: str) -> Callable[..., Any]:
        def start(*_: Any, **__: Any) -> Any:
            started.append(name)
            raise RuntimeError(f"CUDA was started by {name}")

        return start

    def output(*command: str) -> str:
        field = command[1].removeprefix("--query-gpu=").split(",")[0] if len(command) > 1 else ""
        return TOOL.get(field, "") + (", [N/A]" if command[0] == "nvidia-smi" and field != "name" else "")

    monkeypatch.setattr(hardware, "_output", output)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name in STARTS:
        monkeypatch.setattr(torch.cuda, name, starting(name))
    return started


@pytest.fixture
def settled(book: Path, tmp_path: Path) -> Callable[..., Any]:
    def settle(*overrides: str) -> Any:
        shape = ("model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16")
        cfg = compose(["model=tiny", *shape, "data=text_char", f"data.path={book}", "trainer=gpu", "data.batch_size=8", *overrides])
        OmegaConf.set_struct(cfg, False)
        cfg.paths.cache = str(tmp_path / "cache")
        store = resolve.token_store(cfg, [])
        return cfg, store, resolve.resolve(cfg, store)

    return settle


def test_the_range_test_trains_on_the_gpu_in_a_child(started: list[str], settled: Callable[..., Any]) -> None:
    cfg, store, budget = settled("task=find_lr", "data.micro_batch_size=4")
    assert (cfg.trainer.accelerator, cfg.trainer.precision) == ("gpu", "16-mixed")
    with pytest.raises(GptshakeError, match=r"CUDA was started by|not compiled with CUDA"):  # in the child
        lr_finder.run_range_tests(cfg, store, budget)
    assert started == []


@pytest.mark.parametrize("overrides", [("trainer.hours=1", "data.micro_batch_size=4"), ("data.micro_batch_size=auto",)])
def test_speed_and_micro_batch_are_measured_in_children(
    started: list[str], settled: Callable[..., Any], overrides: tuple[str, ...]
) -> None:
    if "trainer.hours=1" in overrides:
        with pytest.raises(GptshakeError, match="The speed could not be measured"):
            settled(*overrides)
    else:
        _, _, budget = settled(*overrides)
        assert any("could not be measured" in note for note in budget.notes)
    assert started == []


def test_the_micro_batch_of_a_sharded_network_follows_from_the_formula(
    started: list[str], settled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "device_count", lambda device: 2)
    _, _, budget = settled("data.micro_batch_size=auto", "trainer=fsdp", "trainer.devices=2")
    assert budget.micro_batch_size == 4 and not any("could not be measured" in note for note in budget.notes)
    assert started == []


def test_a_run_on_the_cpu_does_not_start_cuda(started: list[str], settled: Callable[..., Any]) -> None:
    cfg, store, budget = settled("trainer=cpu")
    batch = next(iter(data_module(cfg, store, budget).train_dataloader()))
    assert cfg.trainer.precision != "16-mixed" and not batch.is_pinned() and not torch.cuda.is_initialized()
