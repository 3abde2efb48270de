"""A record and a lease that keep nothing: what the ranks hold that train along and leave all writing to rank 0."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptshake.record.lease import Lease
from gptshake.record.metrics import Row
from gptshake.record.run import Run


class SilentRun(Run):
    """Takes everything that a run takes while it trains, and writes nothing.

    Args:
        path: the run directory, which rank 0 writes; checkpoints are read from it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, {"id": "", "name": ""})

    def update(self, **fields: Any) -> None:
        """Nothing."""

    def log(self, text: str) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def append_row(self, row: Mapping[str, float]) -> None:
        """Nothing."""

    def flush(self) -> None:
        """Nothing."""

    def sample(self, step: int, tokens: int, text: str, title: str = "sample") -> None:
        """Nothing."""

    def rows(self) -> list[Row]:
        """None."""
        return []


class NoLease(Lease):
    """Holds no directory, and hears no wish: rank 0 does."""

    def __init__(self) -> None:
        pass

    def beat(self, step: int, value: float | None = None) -> None:
        """Nothing."""

    def wish(self) -> str | None:
        """None."""
        return None

    def release(self) -> None:
        """Nothing."""
