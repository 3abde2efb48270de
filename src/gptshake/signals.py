"""Signals that ask a run to end: TERM, INT, USR1, HUP; installed before torch is imported. One that was ignored at the start stays so.

Inside the training loop a signal only sets a flag, which the loop asks after every micro-batch; outside it raises ``Stop``. A second INT ends the
process at once, and so does a thread if the main thread hangs in a library's call: after a grace period, or soon after a second signal.
"""

import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from types import FrameType

from gptshake.errors import Stop, chain

WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
GRACE = 20.0  # seconds that a signal may stay unanswered
SECOND = 2.0  # the same from a second signal on
_POLL = 0.1  # seconds between two looks whether a signal was answered


class Signals:
    """The process's one handler; ``received`` is the signal that came, or None."""

    def __init__(self) -> None:
        self._ignored: set[int] = set()
        self.reset()
        self._answered = 0  # how often Python has run the handler
        self._wake: int | None = None  # where the interpreter writes the number of each signal that arrives

    def install(self) -> None:
        """Take over the watched signals; called again after a library has put its own handler in front."""
        for signum in WATCHED:
            if signal.getsignal(signum) == signal.SIG_IGN:
                self._ignored.add(signum)
            if signum not in self._ignored:
                signal.signal(signum, self._handle)
        if self._wake is None:
            arrivals, self._wake = os.pipe()
            os.set_blocking(self._wake, False)
            threading.Thread(target=self._watch, args=(arrivals, self._answered), name="signals", daemon=True).start()
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def reset(self) -> None:
        """Forget what the process was that this one was forked from."""
        self.received: int | None = None
        self._deferred = self.is_saving = False
        self._ignored.clear()

    def forked(self) -> None:
        """In a new child: the pipe and its thread are the parent's."""
        if self._wake is not None:
            signal.set_wakeup_fd(-1)
            self._wake = None

    def defer(self) -> None:
        self._deferred = True

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block a signal only sets ``received``; whoever writes the block asks for it at the end."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Within this block, inside one that defers, a signal raises ``Stop`` at once."""
        deferred, self._deferred = self._deferred, False
        try:
            if self.received is not None:
                raise Stop(self.received)
            yield
        finally:
            self._deferred = deferred

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Within this block the grace period is suspended: a large file may take longer to write."""
        self.is_saving = True
        try:
            yield
        finally:
            self.is_saving = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        self._answered += 1
        if signum == signal.SIGINT and self.received == signal.SIGINT:
            os._exit(128 + signum)
        self.received = signum
        if not self._deferred:
            raise Stop(signum)

    def _watch(self, arrivals: int, answered: int) -> None:
        """End the process when the main thread does not answer; signals that arrive together count as one.

        Args:
            arrivals: the end of the pipe to read from.
            answered: ``_answered`` before this thread began; a signal may be answered before its first look.
        """
        signum, deadline, grace_ends = 0, inf, inf
        while True:
            came = select.select([arrivals], [], [], None if signum == 0 else _POLL)[0]
            stops = [number for number in (os.read(arrivals, 64) if came else b"") if number in WATCHED and number not in self._ignored]
            now = time.monotonic()
            if self._answered != answered:
                answered, signum, deadline, grace_ends = self._answered, 0, inf, inf
            elif stops and signum:
                deadline = min(deadline, now + SECOND)
            elif stops:
                signum, grace_ends = stops[0], now + (GRACE if self.received is None else SECOND)
            if self.is_saving and signum:
                grace_ends = now + SECOND
            if now >= min(deadline, grace_ends):
                try:
                    why = "as a call into a library does not return; the last checkpoint is kept"
                    os.write(2, f"error: signal {signum} was not answered, {why}\n".encode())
                finally:
                    os._exit(128 + signum)  # without the main thread


def stop_behind(error: BaseException) -> Stop | None:
    """The signal that an error comes from, or None: what a library raises while a ``Stop`` ends it is no failure of the run."""
    return next((link for link in chain(error) if isinstance(link, Stop)), None)


SIGNALS = Signals()
os.register_at_fork(after_in_child=SIGNALS.forked)
