"""Work in several processes: the order of the chunks, errors, and no process that outlives the others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import count

import pytest

from gptshake.data.source.mediawiki import in_order
from gptshake.errors import GptshakeError


def slow_square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def identity(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def fail_at_three(number: int) -> int:
    if number == 3:
        raise ValueError("three")
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("n", [0, 1, 2, 3, 10])
def test_results_come_in_the_order_of_the_chunks(n: int) -> None:
    assert list(in_order(slow_square, range(n), 3)) == [number * number for number in range(n)]


def test_several_processes_work_and_chunks_are_read_only_so_far_ahead() -> None:
    read: list[int] = []

    def chunks() -> Iterator[int]:
        for number in count():
            read.append(number)
            yield number

    results = in_order(identity, chunks(), 2)
    found = {next(results) for _ in range(4)}
    assert os.getpid() not in found and len(read) <= 7
    while len(found) < 2:  # the first process may be done before the second has started
        found.add(next(results))
    results.close()


def test_an_error_of_the_function_is_raised_in_its_turn() -> None:
    results = in_order(fail_at_three, range(9), 2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)


def test_a_killed_process_is_a_sentence() -> None:
    with pytest.raises(GptshakeError, match=r"was killed .*resumes where it stopped"):
        list(in_order(die_at_three, range(9), 2))


def test_processes_end_when_the_first_one_is_killed() -> None:
    code = """
import itertools, sys
from gptshake.data.source.mediawiki import in_order
from operator import abs
for result in in_order(abs, itertools.count(), 2):
    if result == 5:
        import multiprocessing, os
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9 and len(done.stdout.split()) == 2, done.stderr
    limit = time.monotonic() + 20
    while any(alive(int(pid)) for pid in done.stdout.split()):
        assert time.monotonic() < limit
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")
