"""How a child ended, and the files by which it and whoever waits for it know of each other, on this machine or another.

``task.json`` says what is to do, ``job.json`` which process elsewhere does it. ``outcome.json``, which the child writes itself, outlives
whoever waits; ``child.lock`` is held while somebody is at work. All that passes is plain.
"""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, is_dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import gptshake
from gptshake import errors
from gptshake.errors import GptshakeError, Stop
from gptshake.files import is_locked, lock_file, sha256_text, write_atomic
from gptshake.signals import SIGNALS

LOCK = "child.lock"
REFUSED = "refused"  # status of a child that could not do what it was started for
_CAUSES: dict[int, str] = {signal.SIGKILL: " (out of memory?)", signal.SIGBUS: " (was a file that it maps, as a token store, cut short?)"}
_TASK, _OUTCOME, _JOB = "task.json", "outcome.json", "job.json"


@dataclass(frozen=True)
class Outcome:
    """How a process ended. JSON has no NaN, Python's writes and reads it all the same."""

    status: str  # ok, failed, stopped (by a signal), pruned, killed (from outside), timeout
    value: Any = None  # what the target returned; of a command its exit code
    reason: str = ""  # one sentence
    error: str = ""  # class of the exception
    ticket: str | None = field(default=None, compare=False)  # of the job that left it
    ended: float | None = field(default=None, compare=False)  # seconds since 1970; of one whose end was noticed only later


def raised(outcome: Outcome) -> BaseException:
    """What a child raised, to be raised again by its caller; a signal's end is a ``Stop``."""
    if outcome.status == "stopped":
        return Stop(SIGNALS.received or signal.SIGTERM)
    kind = getattr(errors, outcome.error, GptshakeError)
    return kind(outcome.reason) if issubclass(kind, GptshakeError) else GptshakeError(outcome.reason)


def outcome_of(exit_code: int) -> Outcome:
    """What an exit code says, negative for a signal: commands of ours that a signal has stopped in order end with 128 and its number."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if exit_code < 0:
        return Outcome("killed", exit_code, f"killed by {name}{_CAUSES.get(number, '')}")
    if number in set(signal.Signals):
        return Outcome("stopped", exit_code, f"stopped by {name}")
    return Outcome("failed" if exit_code else "ok", exit_code, f"ended itself with exit code {exit_code} before it was done")


@cache
def source_hash() -> str:
    """Hash of the sources of this package, as they were when this process first asked."""
    folder = Path(gptshake.__file__).parent
    return sha256_text("".join(f"{file}\n{file.read_text(encoding='utf-8')}" for file in sorted(folder.rglob("*.py"))))


@contextlib.contextmanager
def hold(folder: Path, seconds: float = inf) -> Iterator[None]:
    """Show for this block that somebody is at work in a folder; BlockingIOError: another one still is, after so long."""
    lock = lock_file(folder / LOCK, seconds)
    try:
        yield
    finally:
        os.close(lock)


def write_task(folder: Path, task: Any) -> None:
    """Leave a task, as JSON, in the folder of the child that will do it; nobody else may read it, as values that were typed may be secrets."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_task(folder)
    with os.fdopen(os.open(folder / _TASK, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        json.dump(task, stream)


def read_task(folder: Path) -> Any:
    return json.loads((folder / _TASK).read_text(encoding="utf-8"))


def remove_task(folder: Path) -> None:
    """Remove a task, and which job was to do it, so that one that begins late does nothing."""
    for name in (_TASK, _JOB):
        (folder / name).unlink(missing_ok=True)


def remove_outcome(folder: Path) -> None:
    (folder / _OUTCOME).unlink(missing_ok=True)


def write_job(folder: Path, ticket: str, **about: Any) -> None:
    """Leave in a folder which process elsewhere does its task: the one that was given this ticket, and with these sources."""
    write_atomic(folder / _JOB, json.dumps({"ticket": ticket, "sources": source_hash(), **about}))


def read_job(folder: Path) -> dict[str, Any]:
    """What ``write_job`` left in a folder; nothing if no process elsewhere does its task."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / _JOB).read_text(encoding="utf-8")))
    return {}


def read_outcome(folder: Path) -> Outcome | None:
    """How the last child in a folder ended; None if it has not, or could not say so."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Outcome(**json.loads((folder / _OUTCOME).read_text(encoding="utf-8")))
    return None


def read_end(folder: Path, ticket: str | None = None) -> Outcome | None:
    """``read_outcome`` for the one who started the child, as a job with this ticket if it did so elsewhere; None for that of an earlier one.

    Raises:
        GptshakeError: the child could not do what it was started for; its task has not begun, and may be begun again.
    """
    outcome = read_outcome(folder)
    if outcome and outcome.ticket != ticket:
        return None
    if outcome and outcome.status == REFUSED:
        remove_outcome(folder)
        raise GptshakeError(outcome.reason)
    return outcome


def write_outcome(folder: Path, outcome: Outcome) -> None:
    """Leave an outcome, as JSON, for who started the child; of a value that JSON does not know its number, or how it is printed."""

    def plain(value: Any) -> Any:
        with contextlib.suppress(Exception):  # an array has no only number
            return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value.item()
        return repr(value)

    try:
        text = json.dumps(vars(outcome), default=plain, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself
        text = json.dumps(vars(replace(outcome, value=repr(outcome.value))))
    write_atomic(folder / _OUTCOME, text)


def is_running(folder: Path) -> bool:
    return is_locked(folder / LOCK)
