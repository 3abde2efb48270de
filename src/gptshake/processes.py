"""Child processes: functions of ours in forked children, commands in new processes; every end is an ``Outcome``.

Children are forked from the server of ``multiprocessing``, which has imported everything and is clean of CUDA, Metal and threads. When the
caller or the server dies, children stop as if they had been asked to, or are ended after a grace period.
"""

import contextlib
import faulthandler
import fcntl
import importlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import termios
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from multiprocessing import connection, forkserver, get_context, parent_process, set_forkserver_preload
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

import gptshake
from gptshake.console import lasting, protect
from gptshake.errors import ConfigError, GptshakeError, Pruned, Stop
from gptshake.outcome import REFUSED, Outcome, hold, outcome_of, read_end, read_job, read_task, remove_outcome, source_hash, write_outcome
from gptshake.redaction import redact
from gptshake.signals import SIGNALS, WATCHED, stop_behind

ASKED_BY = "GPTSHAKE_ASKED_BY"  # in the environment of a command that a task starts: the task reports what came of it
PRELOAD = "GPTSHAKE_PRELOAD"  # in the environment of the server: JSON, what ``gptshake.preloaded`` imports
METHOD = "forkserver"  # by which children start; ``fork`` where the caller has imported everything and started no threads
GRACE_S = 60.0  # that a child whose caller is dead gets to save its work
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # variables that say how many a process may use
UNSAID = 255  # the exit code by multiprocessing where the server said none
SEEN_S = 5.0  # that a file which another machine has written may take to be seen
TICK_S = 0.25  # between looks at signals, limits, and whether the server is alive
SERVER_DIED = "The process that runs are forked from was killed (out of memory?). What runs is saving its last step; run the same command again to resume."
SOURCES_CHANGED = (
    "The source files of gptshake have changed since this command started, so its runs would not be comparable: run the same command again."
)
_OUTPUT = "output"
Environment = Mapping[str, str | None]  # variables that differ from those of this process; None removes one


class SourcesChanged(GptshakeError):
    """Code is no longer what it was when the command started, so its runs would not be comparable; whoever waits for the child ends, too."""


@dataclass(frozen=True)
class Spec:
    """What one child is to do; plain values only."""

    task: Any  # handed to the target
    folder: Path  # gets outcome.json, output and child.lock
    env: Environment = field(default_factory=dict)
    threads: int | None = None  # of torch and its like
    quiet: bool = True  # what it prints goes to ``output``, not to the caller's terminal


# Commands


class Command:
    """A command in a process of its own."""

    def __init__(self, arguments: Sequence[str], env: Environment = MappingProxyType({}), **options: Any) -> None:
        sys.stdout.flush()
        environment = {name: value for name, value in (os.environ | env).items() if value is not None}
        self.process = subprocess.Popen(arguments, env=environment, **options)

    def wait(self, seconds: float | None = None) -> Outcome | None:
        """How it ended; None if it still runs after so many seconds."""
        try:
            return outcome_of(self.process.wait(seconds))
        except subprocess.TimeoutExpired:
            return None

    def stop(self, grace: float | None = None) -> None:
        """Ask it to end, and kill it if it has not after ``grace`` seconds."""
        self.process.terminate()
        self.wait(grace)
        self.kill()

    def kill(self) -> None:
        with self.process:  # closes its pipes, too
            self.process.kill()


def run_command(arguments: Sequence[str], env: Environment = MappingProxyType({}), **options: Any) -> tuple[Outcome, str]:
    """Run a command to its end, which is asked to stop when this process is; gives what it printed, too, with ``stdout=PIPE`` and ``text=True``."""
    command = Command(arguments, env, **options)
    try:
        printed = command.process.communicate()[0]
    except BaseException:
        command.stop()
        raise
    return outcome_of(command.process.returncode), printed or ""


# Children


class Child:
    """A process at work for a ``Spec``; whoever shares this machine out gives it a slot."""

    slot, place = 0, ""

    def __init__(self, process: BaseProcess, spec: Spec) -> None:
        self.process, self.spec, self.folder, self.pid = process, spec, spec.folder, process.pid or 0
        self.started = time.monotonic()
        self.outcome: Outcome | None = None
        self.killed: Outcome | None = None  # what its end will be

    def stop(self) -> None:
        """Ask it to end; it saves its work, as it does if it was suspended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)

    def kill(self, reason: str, status: str = "timeout") -> None:
        """End it and what it started, at once."""
        self.killed = Outcome(status, reason=reason)
        for kill in (os.killpg, os.kill):  # it has no group of its own yet in its first millisecond
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(self.pid, signal.SIGKILL)


class ChildRunner:
    """Starts children that call ``target`` with a task.

    Args:
        target: a function of a module, or a ``partial`` of one; what it returns must be JSON.
        preload: modules to import once, in the server, while the caller goes on; those of the process' first runner count.
        method: ``forkserver``, or ``fork`` where the target needs what lies in the caller's memory, and neither torch nor a GPU.
    """

    def __init__(self, target: Callable[[Any], Any], preload: Sequence[str] = (), method: str | None = None) -> None:
        self._target = target
        self._context: Any = get_context(method or METHOD)
        self._alive: list[Child] = []
        self._sources: str | None = None  # None without a server
        self._server: dict[str, str] = {}  # variables that it starts with
        if self._context.get_start_method() != "forkserver":
            for name in preload:  # children have what the caller has
                importlib.import_module(name)
            return
        self._sources, main = source_hash(), sys.modules["__main__"]
        app = getattr(main, "__file__", None) if getattr(main, "__spec__", None) is None else None  # a script: its functions are targets
        if app and "__main__" not in Path(app).read_text(encoding="utf-8", errors="replace"):
            raise ConfigError(
                f'{app} would start again in each process of a sweep, which imports it: call it below if __name__ == "__main__":.'
            )
        self._server[PRELOAD] = json.dumps({"path": sys.path, "modules": list(preload), "main": app})
        self._server |= import_path()
        quiet = "ignore:resource_tracker:UserWarning"  # torch.compile leaves a semaphore to the tracker, which removes it with a warning
        self._server["PYTHONWARNINGS"] = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), quiet]))
        set_forkserver_preload(["gptshake.preloaded"])
        with _environment(self._server):
            forkserver.ensure_running()  # it imports while the caller goes on

    def start(self, spec: Spec) -> Child:
        """Start a child.

        Raises:
            GptshakeError: the target or the task cannot be sent to another process.
        """
        spec.folder.mkdir(parents=True, exist_ok=True)
        remove_outcome(spec.folder)
        _flush()
        process = self._context.Process(target=_live, args=(spec, self._target, dict(os.environ), self._sources))
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)  # a child takes them when it is ready to
        try:
            with _environment(self._server):  # a server that was killed is started anew by this, and must be the same
                process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise GptshakeError(
                f"A run needs something that no other process finds, as a function inside of a function is: {error}"
            ) from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._alive.append(Child(process, spec))
        return self._alive[-1]

    def run(self, spec: Spec, until: float = inf) -> Outcome:
        """Start a child and wait for its end, which comes by force at a time of ``time.monotonic()``.

        Raises:
            Stop: a signal came while this process defers them.
            GptshakeError: as of ``start`` and ``wait``.
        """
        child = self.start(spec)
        while child.outcome is None:
            self.wait([child], TICK_S)
            if SIGNALS.received is not None:
                raise Stop(SIGNALS.received)
            if time.monotonic() > until:
                child.kill("it took too long")
        return child.outcome

    def wait(self, children: Sequence[Child], seconds: float) -> list[Child]:
        """Those of the children that have ended; waits until there is one, or for so long.

        Raises:
            GptshakeError: the server has died, or could not import what a child needs, or the sources have changed.
        """
        running: dict[Any, Child] = {child.process.sentinel: child for child in children if child.outcome is None}
        if len(running) == len(children):
            for sentinel in connection.wait(list(running), max(seconds, 0.0)):
                self._end(running[sentinel])
        return [child for child in children if child.outcome is not None]

    def _end(self, child: Child) -> None:
        unsaid = fcntl.ioctl(child.process.sentinel, termios.FIONREAD, bytes(4)) == bytes(4)
        child.process.join()
        # A server that lives writes the exit code before it closes the pipe. It may have been read already, when another child was started.
        lost = self._sources is not None and unsaid and child.process.exitcode == UNSAID
        self._alive.remove(child)
        end = outcome_of(child.process.exitcode or 0)
        child.process.close()
        written = read_end(child.spec.folder)
        if written is None and lost:
            raise GptshakeError(SERVER_DIED)
        child.outcome = written or child.killed or replace(end, status="failed" if end.status == "ok" else end.status, value=None)
        if written is None:
            write_outcome(child.spec.folder, child.outcome)

    def close(self, grace: float = 10.0) -> None:
        """End the children that still live: they are asked to stop, and killed if they do not."""
        for child in self._alive:
            child.stop()
        until = time.monotonic() + grace
        for last in (False, True):
            while self._alive and time.monotonic() < until:
                # A full disk takes no outcome; without one a run is begun or continued again. Children of a server that has died end by themselves.
                with contextlib.suppress(GptshakeError, OSError):
                    self.wait(list(self._alive), until - time.monotonic())
            if not last:
                for child in self._alive:
                    child.kill("its caller ended")
                until = time.monotonic() + 5.0


def import_path() -> dict[str, str]:
    """Variables for a new interpreter that finds this package, and nothing of the working directory before the standard library."""
    own = Path(gptshake.__file__).parents[1]
    return {"PYTHONSAFEPATH": "1"} | ({"PYTHONPATH": str(own)} if own == Path.cwd() else {})


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


# Inside of a child


def _live(spec: Spec, target: Callable[[Any], Any], environment: dict[str, str], sources: str | None) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)  # until the task begins; a server that is not ours has not blocked them
    outcome = Outcome("failed", reason="its folder could not be made")
    server = sys.modules.get("gptshake.preloaded") if sources else None  # missing where an app has a server of its own
    threading.Thread(target=_stop_with_parents, args=(os.getppid(),), daemon=True).start()  # takes no signals, as they are blocked
    try:
        with hold(spec.folder):
            _enter(spec, environment)
            if server and server.failed:
                outcome = Outcome(REFUSED, reason=f"What runs need could not be imported: {server.failed}")
            elif sources and (server.sources if server else source_hash()) != sources:
                outcome = Outcome(REFUSED, reason=SOURCES_CHANGED)
            else:
                outcome = _call(target, spec.task)
            write_outcome(spec.folder, outcome)
    except GptshakeError as error:  # a full disk takes no outcome
        print(redact(f"error: {error}"), file=sys.stderr)
    except BaseException:
        if spec.folder.is_dir():  # else the caller was interrupted and has removed it: nobody waits
            traceback.print_exc()
    finally:
        _flush()
        os._exit(0 if outcome.status == "ok" else 1)


def _stop_with_parents(server: int) -> None:
    """Wait for the end of the caller or the server, whose process id is given, then end this process, gently first."""
    caller = parent_process()
    while caller and not connection.wait([caller.sentinel], TICK_S) and os.getppid() == server:
        pass
    if SIGNALS.received is None:  # a second signal would interrupt the saving
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(128 + signal.SIGTERM)


def _enter(spec: Spec, environment: dict[str, str]) -> None:
    """Make this process the child's own: session, environment, streams, threads, signals."""
    os.setsid()
    os.environ.clear()
    os.environ.update({name: value for name, value in {**environment, **spec.env}.items() if value is not None})
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if spec.quiet:
        output = os.open(spec.folder / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        _redact_streams()
        faulthandler.disable()  # what was inherited may be overridden by a library, and enabling it again would change nothing
        faulthandler.enable()  # where a crash happened is kept in the output, too
    else:
        protect()
    if spec.threads is not None:
        os.environ.update(dict.fromkeys(THREADS, str(spec.threads)))
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(spec.threads)
    for number in (*WATCHED, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    SIGNALS.reset()
    SIGNALS.install()


def _redact_streams() -> None:
    streams = (lasting(number, "utf-8", line_buffering=True) for number in (1, 2))
    sys.stdout, sys.stderr = (_Redacted(stream.detach(), "utf-8", "backslashreplace", line_buffering=True) for stream in streams)


class _Redacted(io.TextIOWrapper):
    """A text stream that hides secrets in what anybody prints."""

    def write(self, text: str) -> int:
        return super().write(redact(text))


def _call(target: Callable[[Any], Any], task: Any) -> Outcome:
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
        try:
            return Outcome("ok", target(task))
        finally:
            SIGNALS.defer()  # another signal would interrupt the writing of the outcome
    except BaseException as error:
        if stop := stop_behind(error):
            return replace(outcome_of(stop.exit_code), value=None)
        if isinstance(error, Pruned):
            return Outcome("pruned", reason=error.reason)
        if isinstance(error, SystemExit):
            return Outcome("failed", reason=f"ended itself with exit code {error.code or 0} before it was done", error="SystemExit")
        if isinstance(error, GptshakeError):
            return Outcome(
                REFUSED if isinstance(error, SourcesChanged) else "failed", reason=redact(str(error)), error=type(error).__name__
            )
        print(redact("".join(traceback.format_exception(error))), end="", file=sys.stderr)
        return Outcome("failed", reason=redact(" ".join(f"{type(error).__name__}: {error}".split())), error=type(error).__name__)


def run_here(target: Callable[[Any], Any], folder: Path, ticket: str | None = None) -> Outcome:
    """Do the task in a folder in this process, which was started for it alone, with the outcome that a child would leave.

    Args:
        ticket: what ``write_job`` was given for this process; it does nothing if another one has taken its place, and leaves no
            outcome if that happened meanwhile.
    """
    SIGNALS.install()
    _redact_streams()
    with contextlib.ExitStack() as stack:
        held = False
        while not held:
            with contextlib.suppress(BlockingIOError):  # who holds it may be the one that took its place
                stack.enter_context(hold(folder, SEEN_S if ticket else inf))
                held = True
            until = time.monotonic() + SEEN_S  # a network file system may show late which process the folder waits for
            while ticket and read_job(folder).get("ticket") != ticket:
                if time.monotonic() >= until:
                    return Outcome(REFUSED, reason="another process was started in its place")
                time.sleep(TICK_S)
        remove_outcome(folder)
        changed = ticket and read_job(folder).get("sources") != source_hash()
        outcome = Outcome(REFUSED, reason=SOURCES_CHANGED) if changed else _call(target, read_task(folder))
        if not ticket or read_job(folder).get("ticket") == ticket:
            write_outcome(folder, replace(outcome, ticket=ticket))
    return outcome


def live_here(target: Callable[[Any], Any], folder: Path, ticket: str | None = None) -> NoReturn:
    """``run_here``, then end without the interpreter's own end, which after torch and Lightning takes a second of a slot."""
    outcome = run_here(target, folder, ticket)
    _flush()
    os._exit(outcome.status != "ok")
