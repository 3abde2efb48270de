"""What mirrors a run elsewhere (W&B, TensorBoard, any logger of Lightning's): one base class, called in this order by whoever trains.

What a tracker is given is on the disk already; when it fails it says so once and the run goes on. Only ``start`` and ``finish`` may take seconds.
"""

from collections.abc import Mapping
from pathlib import Path

from gptshake.record.run import Run


class Tracker:
    """A mirror of the run record; what a method is about that a tracker does not override, it does not show."""

    def start(self, run: Run) -> None:
        """Begin, or begin again after a resume: ``run`` is already cut back to the checkpoint; its rows and samples are history.

        Raises:
            ConfigError: if what was asked for explicitly cannot be had.
        """

    def row(self, row: Mapping[str, float]) -> None:
        """One step's row, as in metrics.csv."""

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        """A text, as in samples.md."""

    def image(self, name: str, path: Path) -> None:
        """A picture from ``plots/``; formats that the tracker cannot show are passed over."""

    def finish(self) -> None:
        """End, with the status and the final numbers of the record, which has ended before; does nothing the second time."""
