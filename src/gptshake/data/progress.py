"""Progress of long work with a corpus, as a line now and then: how much of it, how fast, and how long still."""

import time
from collections.abc import Callable

from gptshake.estimate.words import duration

Say = Callable[[str], None]


class Progress:
    """Says how far a work of many megabytes is, at most once in ``every`` seconds, and not before so long.

    Args:
        say: prints a line.
        what: the work, such as ``train`` or ``reading``.
        total: bytes in all; None if nobody knows.
        done: bytes that were done by an earlier process; they do not count for the speed.
        every: seconds between lines.
    """

    def __init__(self, say: Say, what: str, total: float | None = None, *, done: int = 0, every: float = 5.0) -> None:
        self._say, self._what, self._total, self._first, self._every = say, what, total, done, every
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
        left = f" | {duration((self._total - done) / speed)} left" if self._total and speed > 0 else ""
        self._say(f"  {self._what}: {done / 1e6:,.0f}{of} MB | {speed / 1e6:.1f} MB/s{left}" + (f" | {more}" if more else ""))
