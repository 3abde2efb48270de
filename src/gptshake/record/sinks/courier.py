"""One thread that makes calls in their order, so that whoever hands them over never waits for a server or a frozen process.

After the first call that fails the rest are dropped: a mirror with a hole is no mirror. The thread is a daemon, so a call that
never returns does not hold the process back either.
"""

import threading
from collections.abc import Callable
from queue import SimpleQueue


class Courier:
    """Makes calls elsewhere; ``error`` is what the first failed one raised."""

    def __init__(self) -> None:
        self.error: Exception | SystemExit | None = None
        self._calls: SimpleQueue[Callable[[], object] | threading.Event | None] = SimpleQueue()
        threading.Thread(target=self._work, name="mirror", daemon=True).start()

    @property
    def backlog(self) -> int:
        """Calls that still wait."""
        return self._calls.qsize()

    def do(self, call: Callable[[], object]) -> None:
        """Make a call when all before it are done; returns at once."""
        self._calls.put(call)

    def wait(self, seconds: float) -> bool:
        """Whether everything handed over so far was done, or dropped, within so many seconds."""
        done = threading.Event()
        self._calls.put(done)
        return done.wait(seconds)

    def dismiss(self) -> None:
        """End the thread after the calls that still wait."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            if isinstance(call, threading.Event):
                call.set()
            elif self.error is None:
                try:
                    call()
                except (Exception, SystemExit) as error:  # whatever it is, it is told to the one who asks
                    self.error = error
