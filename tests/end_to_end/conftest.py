"""A run of half a second: one small block, four micro-batches a step, dropout on, every number reproducible."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
