"""A run of half a second: one small block, four micro-batches a step, dropout on, every number reproducible."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_sweep import WORDS, values

from gptshake import hardware
from gptshake.record.metrics import read_rows

SMALL = (
    *("model=tiny", "model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=16", "model.dropout=0.2"),
    *("data=text_char", "data.batch_size=8", "data.micro_batch_size=2"),
    *("trainer=cpu", "trainer.threads=1", "trainer.precision=32-true", "trainer.max_steps=12"),
    *("trainer.val_check_interval=4", "trainer.limit_val_batches=2", "callbacks=none", "logger=none", "scheduler=cosine"),
)


@pytest.fixture(scope="session")
def small(book: Path) -> tuple[str, ...]:
    """The overrides of the small run."""
    return (*SMALL, f"data.path={book}")


@pytest.fixture(scope="module")
def undisturbed_sweep(commands: Any, small: Any, tmp_path_factory: Any) -> dict[str, Any]:
    """What the sweep of ``engine_sweep`` gives on this machine."""
    folder = tmp_path_factory.mktemp("here")
    done = commands(folder, "-m", *small, *WORDS)
    assert done.code == 0, done.err
    return values(folder)


class Record:
    """A run directory as its reader sees it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.info: dict[str, Any] = json.loads((path / "run.json").read_text(encoding="utf-8"))

    @property
    def steps(self) -> list[int]:
        return [int(row["step"]) for row in read_rows(self.path / "metrics.csv")]

    def numbers(self) -> list[tuple[Any, ...]]:
        """What must be equal bit for bit, row by row."""
        keys = ("step", "train/tokens", "train/loss", "train/lr", "train/grad_norm", "val/loss", "val/bpb")
        return [tuple(row.get(key) for key in keys) for row in read_rows(self.path / "metrics.csv")]

    def saved(self) -> list[str]:
        return sorted(folder.name for folder in (self.path / "checkpoints").glob("*"))


@pytest.fixture(scope="session")
def the_run() -> Callable[[Path], Record]:
    """The only run below a folder."""

    def find(folder: Path) -> Record:
        (file,) = (folder / "runs").glob("*/run.json")
        return Record(file.parent)

    return find


def kind() -> dict[str, str]:
    """What decides how sums are rounded: torch, the processor (a cloud gives two of them one name, so with its numbers), its instructions."""
    import torch

    text = hardware.CPU_INFO.read_text() if hardware.CPU_INFO.exists() else ""
    found = {name: re.search(rf"^{name}\s*: (.+)$", text, re.M) for name in ("cpu family", "model", "stepping")}
    processor = ", ".join([hardware.cpu_name(), *(f"{name} {match[1]}" for name, match in found.items() if match)])
    return {"torch": torch.__version__, "processor": processor, "instructions": torch.backends.cpu.get_cpu_capability()}


@pytest.fixture(scope="session")
def machine_kind() -> dict[str, str]:
    """The kind of machine that the tests run on."""
    return kind()
