"""The one child runner: a server that has imported everything forks a process for each task, and every end has an outcome.

The server is forked from the caller, so a closure is as good a target as a function, and the code is that of this moment.
``outcome.json``, written by the child itself, outlives whoever waits for it. Caller, server and children are tied by
pipes: when the caller or the server dies, children stop as if they had been asked to, or are ended after a grace period.
"""

import atexit
import contextlib
import faulthandler
import fcntl
import importlib
import io
import json
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from gptshake import errors
from gptshake.console import lasting
from gptshake.errors import GptshakeError, Pruned, Stop
from gptshake.files import write_atomic
from gptshake.redaction import redact
from gptshake.signals import SIGNALS, stop_behind

ASKED_BY = "GPTSHAKE_ASKED_BY"  # in the environment of a command that a task starts: the task reports what came of it
GRACE_S = 60.0  # that a child whose caller is dead gets to save its work
_OUTCOME, _OUTPUT, _LOCK = "outcome.json", "output", "child.lock"
_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LIFELINES: set[int] = set()  # write ends that this process holds; a forked server must not hold them, too
SERVER_DIED = "The process that runs are forked from was killed (out of memory?). What runs is saving its last step; run the same command again to go on."


@dataclass(frozen=True)
class Spec:
    """What one child is to do; plain values only."""

    task: Any  # handed to the target
    folder: Path  # gets outcome.json, output and child.lock
    env: Mapping[str, str | None] = field(default_factory=dict)  # set before the target runs; None removes
    threads: int | None = None  # of torch and its like
    quiet: bool = True  # what it prints goes to ``output``, not to the caller's terminal


@dataclass(frozen=True)
class Outcome:
    """How a child ended. JSON has no NaN, Python's writes and reads it all the same."""

    status: str  # ok, failed, stopped (by a signal), pruned, killed (from outside), timeout
    value: Any = None  # what the target returned
    reason: str = ""  # one sentence
    error: str = ""  # class of the exception


def raised(outcome: Outcome) -> BaseException:
    """What a child raised, to be raised again by its caller; a signal's end is a ``Stop``."""
    if outcome.status == "stopped":
        return Stop(SIGNALS.received or signal.SIGTERM)
    kind = getattr(errors, outcome.error, GptshakeError)
    return kind(outcome.reason) if issubclass(kind, GptshakeError) else GptshakeError(outcome.reason)


class Child:
    """A process at work for a ``Spec``."""

    def __init__(self, pid: int, spec: Spec) -> None:
        self.pid, self.spec = pid, spec
        self.started = time.monotonic()
        self.outcome: Outcome | None = None
        self._verdict: Outcome | None = None

    def terminate(self) -> None:
        """Ask it to stop; it saves its work."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self, reason: str, status: str = "timeout") -> None:
        """End it and what it started, at once."""
        self._verdict = Outcome(status, reason=reason)
        for kill in (os.killpg, os.kill):  # it has no group of its own yet in its first millisecond
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)

    def ended(self, status: int) -> None:
        """Take note of its end, from its wait status."""
        written = read_outcome(self.spec.folder)
        self.outcome = written or self._verdict or _unexplained(status)
        if written is None:
            _write_outcome(self.spec.folder, self.outcome)


class ForkServer:
    """Forks children that call ``target`` with a task.

    Args:
        target: called in each child; what it returns must be JSON.
        preload: modules to import once, in the server, while the caller goes on.
    """

    def __init__(self, target: Callable[[Any], Any], preload: Sequence[str] = ()) -> None:
        lifeline, self._lifeline = os.pipe()
        self._connection, theirs = Pipe()
        self._alive: dict[int, Child] = {}
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        self.pid = os.fork()
        if self.pid == 0:
            for inherited in (*_LIFELINES, self._lifeline):
                os.close(inherited)
            _LIFELINES.clear()  # a child may have servers of its own, and the numbers will be those of other files
            self._connection.close()
            _Server(theirs, lifeline, target).serve(preload)
        theirs.close()
        os.close(lifeline)
        _LIFELINES.add(self._lifeline)

    def start(self, spec: Spec) -> Child:
        """Begin a child.

        Raises:
            GptshakeError: a module could not be imported, or the server is dead.
        """
        spec.folder.mkdir(parents=True, exist_ok=True)
        (spec.folder / _OUTCOME).unlink(missing_ok=True)
        self._send(spec)
        while True:
            kind, *content = self._receive()
            if kind == "started":
                child = Child(content[0], spec)
                self._alive[child.pid] = child
                return child
            self._note(kind, content)

    def wait(self, children: Sequence[Child], seconds: float) -> list[Child]:
        """Those of the children that have ended; waits until there is one, or for so long.

        Raises:
            GptshakeError: the server is dead.
        """
        until = time.monotonic() + seconds
        while not (ended := [child for child in children if child.outcome is not None]):
            left = until - time.monotonic()
            if left <= 0 or not self._poll(left):
                return []
            kind, *content = self._receive()
            self._note(kind, content)
        return ended

    def close(self, grace: float = 10.0) -> None:
        """End the server; children that still live are asked to stop, and killed if they do not."""
        for child in self._alive.values():
            child.terminate()
        with contextlib.suppress(GptshakeError, OSError):  # a full disk takes no outcome; without one a run is begun or continued again
            until = time.monotonic() + grace
            while self._alive and time.monotonic() < until:
                self.wait(list(self._alive.values()), until - time.monotonic())
        for child in self._alive.values():
            child.kill("its caller ended")
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)  # it has nothing to save, and may be importing still
        _LIFELINES.discard(self._lifeline)
        os.close(self._lifeline)
        self._connection.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)

    def _note(self, kind: str, content: list[Any]) -> None:
        if kind == "failed":
            raise GptshakeError(f"What runs need could not be imported: {content[0]}")
        if kind == "ended" and content[0] in self._alive:
            self._alive.pop(content[0]).ended(content[1])

    def _send(self, spec: Spec) -> None:
        try:
            self._connection.send(spec)
        except OSError as error:
            raise GptshakeError(SERVER_DIED) from error

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except (EOFError, OSError) as error:
            raise GptshakeError(SERVER_DIED) from error

    def _poll(self, seconds: float) -> bool:
        try:
            return self._connection.poll(seconds)
        except OSError as error:
            raise GptshakeError(SERVER_DIED) from error


class _Server:
    """The server's side; one thread, no CUDA, nothing of the caller's but its memory."""

    def __init__(self, connection: Connection, lifeline: int, target: Callable[[Any], Any]) -> None:
        self.connection, self.lifeline, self.target = connection, lifeline, target
        self.children: set[int] = set()
        self.own_line, self.own_end = os.pipe()  # children read it: its end is the server's end
        self.woken, self.wake = os.pipe()

    def serve(self, preload: Sequence[str]) -> NoReturn:
        """Answer requests until the caller is gone and all children have ended."""
        try:
            os.setsid()
            _default_signals()
            signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)  # a child takes them when it is ready to; the server ends with its caller
            self._import(preload)
            os.set_blocking(self.wake, False)
            signal.signal(signal.SIGCHLD, lambda *_: None)
            signal.set_wakeup_fd(self.wake, warn_on_full_buffer=False)
            while self._turn():
                pass
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def _import(self, preload: Sequence[str]) -> None:
        try:
            for name in preload:
                importlib.import_module(name)
        except Exception as error:
            self._tell("failed", f"{type(error).__name__}: {error}")

    def _turn(self) -> bool:
        sources: list[Any] = [self.woken] if self.connection.closed else [self.woken, self.connection]
        ready = select.select(sources, [], [])[0]
        if self.woken in ready:
            os.read(self.woken, 4096)
        self._reap()
        if self.connection in ready:
            try:
                self._fork(self.connection.recv())
            except (EOFError, OSError):
                self.connection.close()
        return bool(self.children) or not self.connection.closed

    def _reap(self) -> None:
        while self.children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            self.children.discard(pid)
            self._tell("ended", pid, status)

    def _fork(self, spec: Spec) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            for descriptor in (self.own_end, self.woken, self.wake, self.connection.fileno()):
                os.close(descriptor)
            _live(spec, self.target, (self.lifeline, self.own_line))
        self.children.add(pid)
        self._tell("started", pid)

    def _tell(self, *message: Any) -> None:
        with contextlib.suppress(OSError, ValueError):  # the caller is gone; children hear of it themselves
            self.connection.send(message)


def _live(spec: Spec, target: Callable[[Any], Any], lifelines: tuple[int, ...]) -> NoReturn:
    """A child's life: its folder, the target, the outcome."""
    outcome = Outcome("failed", reason="its folder could not be made")
    try:
        atexit._clear()
        lock = _enter(spec)
        outcome = _call(target, spec.task, lifelines)
        _write_outcome(spec.folder, outcome)
        atexit._run_exitfuncs()
        os.close(lock)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(0 if outcome.status == "ok" else 1)


def _enter(spec: Spec) -> int:
    os.setsid()
    for name, value in spec.env.items():
        os.environ.pop(name, None) if value is None else os.environ.__setitem__(name, value)
    lock = os.open(spec.folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if spec.quiet:
        _redirect(spec.folder / _OUTPUT)
        faulthandler.disable()  # what was inherited may be overridden by a library, and enabling it again would change nothing
        faulthandler.enable()  # where a crash happened is kept in the output, too
    if spec.threads is not None:
        os.environ.update(dict.fromkeys(_THREADS, str(spec.threads)))
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(spec.threads)
    _default_signals()
    SIGNALS.reset()
    SIGNALS.install()
    return lock


class _Redacted(io.TextIOWrapper):
    """A text stream that hides secrets in what anybody prints."""

    def write(self, text: str) -> int:
        """As of any stream."""
        return super().write(redact(text))


def _redirect(path: Path) -> None:
    output = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    streams = (lasting(number, "utf-8", line_buffering=True) for number in (1, 2))
    sys.stdout, sys.stderr = (_Redacted(stream.detach(), "utf-8", "backslashreplace", line_buffering=True) for stream in streams)


def _stop_with(lifelines: tuple[int, ...]) -> None:
    """Wait for the end of the caller or the server, then end this process, gently first."""
    select.select(lifelines, [], [])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(128 + signal.SIGTERM)


def _call(target: Callable[[Any], Any], task: Any, lifelines: tuple[int, ...]) -> Outcome:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        threading.Thread(target=_stop_with, args=(lifelines,), daemon=True).start()
        return Outcome("ok", target(task))
    except BaseException as error:
        return _ending(error)


def _ending(error: BaseException) -> Outcome:
    if stop := stop_behind(error):
        return Outcome("stopped", reason=f"stopped by {_signal_name(stop.signum)}")
    if isinstance(error, Pruned):
        return Outcome("pruned", reason=error.reason)
    if isinstance(error, GptshakeError):
        return Outcome("failed", reason=redact(str(error)), error=type(error).__name__)
    if isinstance(error, SystemExit):
        return Outcome("failed", reason=f"ended itself with exit code {error.code or 0} before it was done", error="SystemExit")
    print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
    return Outcome("failed", reason=redact(" ".join(f"{type(error).__name__}: {error}".split())), error=type(error).__name__)


def read_outcome(folder: Path) -> Outcome | None:
    """How the last child in a folder ended; None if it has not, or could not say so."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Outcome(**json.loads((folder / _OUTCOME).read_text(encoding="utf-8")))
    return None


def is_running(folder: Path) -> bool:
    """Whether a child is at work in a folder."""
    try:
        handle = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def _write_outcome(folder: Path, outcome: Outcome) -> None:
    write_atomic(folder / _OUTCOME, json.dumps(asdict(outcome), default=_plain))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else repr(value)


def _unexplained(status: int) -> Outcome:
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return Outcome("failed", reason=f"ended itself with exit code {code} before it was done")
    hint = " (out of memory?)" if -code == signal.SIGKILL else ""
    return Outcome("killed", reason=f"killed by {_signal_name(-code)}{hint}")


def _signal_name(number: int) -> str:
    return signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"


def _default_signals() -> None:
    for number in (*_WATCHED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
