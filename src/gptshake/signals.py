"""Signals that ask a run to end: TERM, INT, USR1, HUP.

Installed before torch is imported. Outside the training loop a signal raises ``Stop`` at once; inside it only sets a flag,
which the loop asks after every micro-batch, so that a step is never torn. A second INT ends the process immediately.
A signal found ignored at the start (nohup, ``&``) stays ignored.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from gptshake.errors import Stop

_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


class Signals:
    """The process's one handler; ``received`` is the signal that came, or None."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._deferred = False
        self._ignored: set[int] = set()

    def install(self) -> None:
        """Take over the watched signals; called again after a library has put its own handler in front."""
        for signum in _WATCHED:
            if signal.getsignal(signum) == signal.SIG_IGN:
                self._ignored.add(signum)
            if signum not in self._ignored:
                signal.signal(signum, self._handle)

    def reset(self) -> None:
        """Forget what the process was that this one was forked from."""
        self.received, self._deferred = None, False
        self._ignored.clear()

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block a signal only sets ``received``."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.received == signal.SIGINT:
            os._exit(128 + signum)
        self.received = signum
        if not self._deferred:
            raise Stop(signum)


def stop_behind(error: BaseException) -> Stop | None:
    """The signal that an error comes from, or None.

    A ``Stop`` may come anywhere, also amidst what a library tidies up; what the library raises then is no failure of the run.
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:  # an error that is raised anew out of what wrapped it makes a ring
        if isinstance(link, Stop):
            return link
        chain.append(link)
        link = link.__cause__ or link.__context__
    return None


SIGNALS = Signals()
