"""Progress of long work with a corpus: a line that renews itself on a terminal, elsewhere one now and then."""

import time
from collections.abc import Callable

from gptshake.console import Console
from gptshake.estimate.words import duration

SPARE = (3, 1, 2)  # of the parts of a line, if a terminal is narrow
Say = Callable[[str], None]


class Progress:
    """Shows how far a work of many megabytes is, how fast, and how long still; ``with`` it, so that its last line is removed.

    Args:
        say: prints a line, where the output is not a terminal.
        what: the work, such as ``train`` or ``reading``.
        total: bytes in all; None if nobody knows.
        done: bytes that were done by an earlier process; they do not count for the speed.
        every: seconds between lines, and before the first, where the output is not a terminal.
    """

    def __init__(self, say: Say, what: str, total: float | None = None, *, done: int = 0, every: float = 5.0) -> None:
        self._say, self._what, self._total, self._first = say, what, total, done
        self._console = Console()
        self._every = 0.2 if self._console.renews else every
        self._began = self._last = time.monotonic()

    def __call__(self, done: int, more: str = "", total: float | None = None) -> None:
        """Take note of ``done`` bytes in all, those of earlier processes included; ``more`` is said too, ``total`` a better guess of all."""
        now = time.monotonic()
        if now - self._last < self._every:
            return
        self._last = now
        self._total = self._total if total is None else total
        speed = (done - self._first) / (now - self._began)
        of = f" of {self._total / 1e6:,.0f}" if self._total else ""
        left = f"{duration((self._total - done) / speed)} left" if self._total and speed > 0 else ""
        parts = (f"  {self._what}: {done / 1e6:,.0f}{of} MB", f"{speed / 1e6:.1f} MB/s", left, more)
        if self._console.renews:
            self._console.show(parts, SPARE)
        else:
            self._say(self._console.line(parts, SPARE))

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._console.clear()
