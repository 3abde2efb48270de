"""TensorBoard as a mirror of the run record: event files over optimizer steps, for ``tensorboard --logdir runs``.

A resumed run is written anew from its record, so the folder always holds one whole history. Importing this file imports no torch.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptshake.errors import ConfigError
from gptshake.record.run import Run
from gptshake.record.trackers.config import TensorBoardConfig
from gptshake.record.trackers.protocol import Tracker


@dataclass(eq=False)
class TensorBoardTracker(TensorBoardConfig, Tracker):
    """Mirrors rows, samples and pictures into event files."""

    def __post_init__(self) -> None:
        self._writer: Any = None

    def start(self, run: Run) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError("logger=tensorboard needs its package: pip install 'gptshake[tensorboard]'.") from error
        shutil.rmtree(run.path / "tensorboard", ignore_errors=True)
        self._writer = SummaryWriter(str(run.path / "tensorboard"))
        for row in run.history(self.every):
            self.row(row)
        for sample in run.samples():
            self.sample(sample.step, sample.tokens, sample.text, sample.title)

    def row(self, row: Mapping[str, float]) -> None:
        if self._writer and (row["step"] % self.every == 0 or "val/loss" in row):
            for name in row.keys() - {"step", "time"}:
                self._writer.add_scalar(name, row[name], int(row["step"]), row.get("time"))

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        if self._writer:  # as code, so nothing in it is taken for Markdown
            lines = [f"{title}, after {tokens:,} tokens", "", *text.splitlines()]
            self._writer.add_text("samples", "\n".join(f"    {line}" for line in lines).encode(errors="replace").decode(), step)

    def image(self, name: str, path: Path) -> None:
        if self._writer and path.suffix == ".png":
            import numpy
            from PIL import Image

            self._writer.add_image(f"plots/{name}", numpy.asarray(Image.open(path).convert("RGB")), 0, dataformats="HWC")

    def finish(self) -> None:
        if self._writer:
            self._writer.close()
        self._writer = None
