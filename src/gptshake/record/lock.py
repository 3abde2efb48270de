"""Who is at work in a run directory: a lock held by the kernel, so it ends with the process; a heartbeat; a request to stop.

Each file has one writer: the run writes ``lease.json``, others ``stop``. This is all that a run and a sweep's controller know of each other.
"""

import contextlib
import json
import os
import socket
import time
from math import inf
from pathlib import Path
from typing import Any

from gptshake.errors import RecordError
from gptshake.files import is_locked, lock_file, read_text, refuse_links, write_atomic

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 60.0  # only asked where a lock of another host may be invisible
_LOCK, HEARTBEAT, _STOP = "run.lock", "lease.json", "stop"
_LARGEST = 1 << 16  # bytes of a heartbeat
_HELD: set[int] = set()  # descriptors of this process's locks
_SEEN: dict[Path, tuple[float, float]] = {}  # time of another host's last heartbeat, and when it came by the clock of this one


def _forked() -> None:
    """In a new child, such as one that prefetches batches: its parent alone holds the lock, and must not seem alive when it was killed."""
    while _HELD:
        os.close(_HELD.pop())


os.register_at_fork(after_in_child=_forked)


class RunLock:
    """The right to write into a run directory, held from construction until ``release`` or the end of the process.

    Take it before the run is created or opened; the directory is made if it is not there. It is refused with the number of the process
    that holds it, or if a link in it leads out of it. A request to stop from before is forgotten.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        refuse_links(path)
        self._path = path
        try:
            self._handle = lock_file(path / _LOCK, seconds=0.2)  # somebody who only asks ``is_alive`` holds it for microseconds
        except BlockingIOError:
            raise in_use(path) from None
        _HELD.add(self._handle)
        (path / _STOP).unlink(missing_ok=True)
        self._written = -HEARTBEAT_SECONDS
        self.heartbeat(0)

    def heartbeat(self, step: int, value: float | None = None) -> None:
        """Show that the run is alive, after so many steps and with this validation loss; call it as often as you like, it seldom writes."""
        if time.monotonic() - self._written >= HEARTBEAT_SECONDS:
            now = {"pid": os.getpid(), "host": socket.gethostname(), "time": time.time(), "step": step, "value": value}
            write_atomic(self._path / HEARTBEAT, json.dumps(now))
            self._written = time.monotonic()

    def stop_requested(self) -> str | None:
        """Why somebody asks the run to end, or None; costs a look at the disk, so ask once a step at most."""
        try:
            return read_text(self._path / _STOP, _LARGEST)
        except (OSError, ValueError):
            return None

    def release(self) -> None:
        """Let go of the directory; its files stay, for removing a lock file would let two processes lock two files."""
        _HELD.discard(self._handle)
        os.close(self._handle)


class NullLock(RunLock):
    """Holds no directory: what ranks have that train along and leave all writing to rank 0."""

    def __init__(self) -> None:
        self._written = float("inf")  # no heartbeat is due

    def stop_requested(self) -> str | None:
        return None

    def release(self) -> None:
        pass


def in_use(path: Path) -> RecordError:
    """That somebody else is at work in a run directory."""
    holder = read_heartbeat(path)
    who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    elsewhere = holder and holder["host"] != socket.gethostname()
    gone = f" If that host is gone, wait {STALE_SECONDS:g} s from its last heartbeat on." if elsewhere else ""
    return RecordError(f"{path} is in use by {who}; wait for it or stop it first.{gone}")


def ask_to_stop(path: Path, reason: str) -> None:
    """Ask the run in this directory to end as pruned; it looks at the end of each step."""
    write_atomic(path / _STOP, reason)


def is_asked_to_stop(path: Path) -> bool:
    """Whether a request to end lies in this run directory."""
    return (path / _STOP).exists()


def read_heartbeat(path: Path) -> dict[str, Any] | None:
    """The last heartbeat: pid, host, time, step, value; None if there is none that can be read."""
    with contextlib.suppress(OSError, ValueError, OverflowError, RecursionError):
        last = json.loads(read_text(path / HEARTBEAT, _LARGEST))
        if isinstance(last, dict) and {"pid", "host"} <= last.keys() and isinstance(last.get("time"), int | float):
            return last | {"time": float(last["time"])}
    return None


def last_seen(path: Path) -> float | None:
    """When a run that is killed last showed that it was alive, in seconds since 1970: a row, a heartbeat, a line; None if it never has."""
    times = list[float]()
    for name in ("metrics.csv", HEARTBEAT, "output"):
        with contextlib.suppress(OSError):
            times.append((path / name).stat().st_mtime)
    return max(times, default=None)


def is_alive(path: Path) -> bool:
    """Whether a process is at work in this run directory.

    The lock answers. Only for a run of another host, whose lock a network file system may not show, does a heartbeat of
    the last ``STALE_SECONDS`` count as well: by both hosts' clocks, or if this process saw it come, by its own, as the other may be wrong.
    """
    if is_locked(path / _LOCK):
        return True
    last = read_heartbeat(path) if (path / _LOCK).exists() else None
    if last is None or last["host"] == socket.gethostname():
        return False
    seen, came = _SEEN.get(path, (last["time"], -inf))
    came = time.monotonic() if last["time"] > seen else came
    _SEEN[path] = last["time"], came
    return bool(min(abs(time.time() - last["time"]), time.monotonic() - came) < STALE_SECONDS)
