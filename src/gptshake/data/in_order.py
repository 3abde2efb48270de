"""A function over chunks in several processes, results in the order of the chunks: for work on text that one core is too slow for.

Each process has a pipe of its own and one chunk at a time, given out in turn, so order and flat memory come for free; the
price is that all wait for the slowest chunk of a round, which chunks of like size keep small. Processes are spawned (0.3 s),
never forked: this one may have threads. They end when this one does, however it ends, since their pipe then breaks.
"""

import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from gptshake.errors import GptshakeError

Given = TypeVar("Given")
Result = TypeVar("Result")


def in_order(function: Callable[[Given], Result], chunks: Iterable[Given], processes: int) -> Iterator[Result]:
    """``map(function, chunks)`` with that many processes.

    Args:
        function: one of a module, so that another process can import it.
        chunks: what is handed over, by pickling; read at most ``processes`` ahead of the results.
        processes: at least 1.
    Raises:
        GptshakeError: if a process was killed.
        Exception: what the function raised.
    """
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    workers = []
    try:
        for _ in range(processes):
            ours, theirs = context.Pipe()
            pipes.append(ours)
            workers.append(context.Process(target=_work, args=(function, theirs), daemon=True))
            workers[-1].start()
            theirs.close()
        given = 0
        for given, chunk in enumerate(chunks, 1):
            pipe = pipes[(given - 1) % processes]
            if given > processes:
                yield _result(pipe)
            _give(pipe, chunk)
        for number in range(max(given - processes, 0), given):
            yield _result(pipes[number % processes])
    finally:
        for pipe in pipes:
            pipe.close()
        for worker in workers:
            worker.terminate()
            worker.join()


def _work(function: Callable[[Any], Any], pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the first one decides
    try:
        while True:
            chunk = pipe.recv()
            try:
                answer = (True, function(chunk))
            except Exception as error:
                answer = (False, error)
            pipe.send(answer)
    except (EOFError, OSError):
        return


def _give(pipe: Connection, chunk: Any) -> None:
    try:
        pipe.send(chunk)
    except OSError as error:
        raise GptshakeError(_KILLED) from error


def _result(pipe: Connection) -> Any:
    try:
        good, answer = pipe.recv()
    except (EOFError, OSError) as error:
        raise GptshakeError(_KILLED) from error
    if not good:
        raise answer
    return answer


_KILLED = "A process that helped to read the text was killed (out of memory?). Run the same command again: it goes on where it was."
