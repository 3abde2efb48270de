"""Who is at work in a run directory: a lock held by the kernel, a heartbeat with the last value, a wish to stop.

The lock ends with the process, however it ends, so nothing stale is left to clean up. Each file has one writer: the run
writes ``lease.json``, others ask for a stop through the file ``stop``; so no beat can undo a wish.
This is all that a run and a sweep's controller know of each other.
"""

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from gptshake.errors import RecordError
from gptshake.files import refuse_links, write_atomic

BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # only asked where a lock of another host may be invisible
_LOCK, _BEAT, _STOP = "run.lock", "lease.json", "stop"


class Lease:
    """The right to write into a run directory, held from construction until ``release`` or the end of the process.

    Take it before the run is created or opened. A wish to stop from an earlier life of the run is forgotten.

    Args:
        path: the run directory; made if it is not there.
    Raises:
        RecordError: if another process holds it; names its number. Or a link in it leads out of it.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        refuse_links(path)
        self._path = path
        self._handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock_patiently(self._handle):
            os.close(self._handle)
            holder = read_lease(path)
            who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
            raise RecordError(f"{path} is in use by {who}; wait for it or stop it first.")
        (path / _STOP).unlink(missing_ok=True)
        self._write(0, None)

    def beat(self, step: int, value: float | None = None) -> None:
        """Say that the run is alive; call it as often as you like, it writes every ``BEAT_SECONDS`` at most.

        Args:
            step: optimizer steps finished.
            value: the last validation loss.
        """
        if time.monotonic() - self._beaten >= BEAT_SECONDS:
            self._write(step, value)

    def wish(self) -> str | None:
        """Why somebody wishes the run to end, or None; costs a look at the disk, so ask once a step at most."""
        try:
            return (self._path / _STOP).read_text(encoding="utf-8")
        except OSError:
            return None

    def release(self) -> None:
        """Let go of the directory; its files stay, for removing a lock file would let two processes lock two files."""
        os.close(self._handle)

    def _write(self, step: int, value: float | None) -> None:
        beat = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "step": step, "value": value}
        write_atomic(self._path / _BEAT, json.dumps(beat))
        self._beaten = time.monotonic()


def ask_to_stop(path: Path, reason: str) -> None:
    """Wish the run in this directory to end as pruned; it hears of it at the end of its step."""
    write_atomic(path / _STOP, reason)


def read_lease(path: Path) -> dict[str, Any] | None:
    """The last heartbeat: pid, host, time, step, value; None if there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        beat = json.loads((path / _BEAT).read_text(encoding="utf-8"))
        if isinstance(beat, dict) and {"pid", "host"} <= beat.keys() and isinstance(beat.get("time"), int | float):
            return beat
    return None


def is_alive(path: Path) -> bool:
    """Whether a process is at work in this run directory.

    The lock answers. Only for a run of another host, whose lock a network file system may not show, does a heartbeat of
    the last ``STALE_SECONDS`` count as well.
    """
    try:
        handle = os.open(path / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        if not _lock(handle, fcntl.LOCK_SH):  # shared: two who ask at once do not see each other
            return True
    finally:
        os.close(handle)
    beat = read_lease(path)
    return beat is not None and beat["host"] != socket.gethostname() and time.time() - beat["time"] < STALE_SECONDS


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock_patiently(handle: int, tries: int = 10, pause: float = 0.02) -> bool:
    """Try for 0.2 s: somebody who only asks ``is_alive`` holds the lock for microseconds."""
    for _ in range(tries):
        if _lock(handle, fcntl.LOCK_EX):
            return True
        time.sleep(pause)
    return False
