"""What the controller asks of a place where runs happen. Slots of this machine now; a cluster would be another class.

A run is a task (plain values) and a folder. Its end is an ``Outcome``, which lies in the folder, too, whoever has died.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from gptshake.processes import Outcome


class Running(Protocol):
    """A run at work."""

    slot: int
    folder: Path
    started: float  # time.monotonic()

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, if it has."""

    def stop(self) -> None:
        """Ask it to checkpoint and end."""

    def kill(self, reason: str) -> None:
        """End it now, as failed for this reason."""


class Executor(Protocol):
    """Runs tasks, so many at once."""

    threads: int  # of one run
    device: str  # in words, for people

    def open(self, target: Callable[[Any], Any], modules: Sequence[str]) -> None:
        """Get ready to call ``target`` with tasks, in processes that have imported ``modules`` already."""

    def probe(self, task: Any, folder: Path) -> Outcome:
        """Do one task alone, where a run would be done, its output shown; returns at its end."""

    def allot(self, device: str | None, memory: int | None, most: int | None) -> int:
        """Decide on the slots.

        Args:
            device: ``cuda``, ``mps`` or ``cpu``; None if it is not known what the tasks use.
            memory: bytes that one run needs, or None.
            most: more slots than that could never be filled; None if that is not known.
        Returns:
            Their number.
        """

    def start(self, task: Any, folder: Path) -> Running | None:
        """Begin a run in a free slot; None if all are taken."""

    def wait(self, seconds: float) -> Sequence[Running]:
        """The runs that have ended; waits until there is one, or for so long."""

    def close(self) -> None:
        """End what still runs, and let go of everything."""
