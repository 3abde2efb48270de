"""TensorBoard as a mirror of the run record: event files in the run directory, for ``tensorboard --logdir runs``.

The x-axis is the optimizer step; tokens are a curve of their own. A run that goes on is written anew from its record, so the
folder always holds one whole history. Importing this file imports no tensorboard; ``start`` does.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptshake.errors import ConfigError
from gptshake.record.run import Run

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

FOLDER = "tensorboard"


class TensorBoardSink:
    """Mirrors rows, samples and pictures into event files; see ``sinks.protocol`` for the methods.

    Args:
        every: a row is written every so many steps, and whenever it holds a validation.
    Raises:
        ConfigError: for an interval out of sense.
    """

    def __init__(self, every: int = 10) -> None:
        if every < 1:
            raise ConfigError(f"logger.every={every} cannot be: it counts steps per logged row, from 1 up.")
        self.every = every
        self._writer: EventFileWriter | None = None

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume, with the whole history.

        Raises:
            ConfigError: if tensorboard is not installed.
        """
        try:
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ConfigError("logger=tensorboard needs its package: pip install 'gptshake[tensorboard]'.") from error
        shutil.rmtree(run.path / FOLDER, ignore_errors=True)
        self._writer = EventFileWriter(str(run.path / FOLDER))
        for row in run.history(self.every):
            self.row(row)
        for sample in run.samples():
            self.sample(sample.step, sample.tokens, sample.text, sample.title)

    def row(self, row: Mapping[str, float]) -> None:
        """Write a row as scalars, if it is due."""
        if row["step"] % self.every == 0 or "val/loss" in row:
            values = [{"tag": name, "simple_value": float(value)} for name, value in row.items() if name not in ("step", "time")]
            self._write(int(row["step"]), values, row.get("time"))

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        """Write a text; TensorBoard shows it as code, so nothing in it is taken for Markdown."""
        from tensorboard.plugins.text.metadata import create_summary_metadata

        lines = "\n".join(f"    {line}" for line in [f"{title}, after {tokens:,} tokens", "", *text.splitlines()])
        tensor = {"dtype": "DT_STRING", "string_val": [lines.encode(errors="replace")], "tensor_shape": {"dim": [{"size": 1}]}}
        self._write(step, [{"tag": "samples", "metadata": create_summary_metadata("samples", ""), "tensor": tensor}])

    def image(self, name: str, path: Path) -> None:
        """Write a picture; TensorBoard shows no SVG, so these are passed over."""
        if path.suffix == ".png":
            content = path.read_bytes()
            width, height = (int.from_bytes(content[at : at + 4], "big") for at in (16, 20))  # where PNG has them
            self._write(0, [{"tag": name, "image": {"width": width, "height": height, "encoded_image_string": content}}])

    def finish(self) -> None:
        """Put everything on the disk."""
        if self._writer is not None:
            self._writer.close()
        self._writer = None

    def _write(self, step: int, values: list[dict[str, Any]], when: float | None = None) -> None:
        if self._writer is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._writer.add_event(Event(wall_time=when or time.time(), step=step, summary=Summary(value=values)))
